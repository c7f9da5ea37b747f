"""Does iterative sampling beat naive sampling on a small molecular liquid, beyond an offset, at equal budgets?

    python benchmarks/studies/liquid_arms.py                   # run what lacks, one arm and seed after the other
    python benchmarks/studies/liquid_arms.py --dry-run         # stages, budget and equality of the arms; starts nothing
    python benchmarks/studies/liquid_arms.py --only naive:0    # one arm and seed
    python benchmarks/studies/liquid_arms.py --table           # tables and verdict from the finished workflows alone

SO3LR is the universal model, GFN1-xTB gives the labels; both come with the package. It can be killed at any moment and
called again: every workflow lies under ``build/studies/liquid_arms`` and goes on where it stands. The test sets are the
same for all and are labelled once. One line per arm and seed goes to `results/liquid_arms.jsonl`, the comparison to
`results/liquid_arms.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from records import RESULTS, command, keep

import mlipkit as mk
from mlipkit.errors import RunError
from mlipkit.runs import parse_spec
from mlipkit.runs.folder import write_text
from mlipkit.strategies.workflows import compare_arms, equal_budgets
from mlipkit.strategies.workflows.evaluating import INDEPENDENT

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1] / "build" / "studies" / "liquid_arms"


def specifications(study: dict[str, Any]) -> list[mk.WorkflowSpec]:
    """All arms of one seed before the next; each takes the test sets of those before it."""
    found: list[mk.WorkflowSpec] = []
    for seed in study["seeds"]:
        for arm in study["arms"]:
            reuse = [str(ROOT / one.name) for one in found[:1]]
            record = {**study["template"], "arm": arm, "seed": seed, "name": f"{arm}_{seed}", "reuse": reuse}
            spec = parse_spec(record)
            assert isinstance(spec, mk.WorkflowSpec)
            found.append(spec)
    return found


def run(spec: mk.WorkflowSpec) -> None:
    """Start a workflow, or let it go on; wait for its end and keep its line."""
    before = ROOT / spec.name / "evaluation.json"
    done = before.is_file()
    one = mk.launch(spec, folder=ROOT / spec.name, resume=True).wait()
    if one.state != "completed":
        raise SystemExit(f"{one.name}: {one.sentence}")
    if done:
        return
    record = json.loads(before.read_text())
    last = max(row["round"] for row in record["rows"])
    kept = ("model", "test_set", "n_frames", "density_g_cm3", "rmse_e", "mean_e", "std_e", "rmse_f", "rmse_s")
    rows = [
        {key: row.get(key) for key in kept}
        for row in record["rows"] if row["round"] in (0, last) and (row["own"] or row["test_set"] == INDEPENDENT)
    ]  # fmt: skip
    facts = one.facts()
    keep("liquid_arms", {
        "arm": spec.arm, "seed": spec.seed, "command": command(), "wall_s": facts["seconds"],
        "stage_wall_s": facts["stage_seconds"], "labels_asked": facts["labels_asked"],
        "labels_failed": facts["labels_failed"], "frame_gradients": facts["frame_gradients"],
        "budget": spec.plan.budget.sentence, "rows": rows, "sentences": record["sentences"],
    })  # fmt: skip


def compare(specs: list[mk.WorkflowSpec]) -> None:
    """Tables and verdict of what is finished."""
    folders = [ROOT / spec.name for spec in specs if (ROOT / spec.name / "evaluation.json").is_file()]
    if not folders:
        raise RunError("nothing is finished yet", where=str(ROOT))
    found = compare_arms(folders)
    write_text(RESULTS / "liquid_arms.json", json.dumps({"command": command(), **found.to_json()}, indent=1) + "\n")
    print(found.sentence, found.budgets, *found.notes, found.table(), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plan", default="liquid_arms.yaml", help="file of the study, beside this script")
    parser.add_argument("--only", metavar="ARM:SEED")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    specs = specifications(yaml.safe_load((HERE / given.plan).read_text()))
    print(equal_budgets(spec.plan for spec in specs))
    if given.dry_run:
        print(*(spec.plan.table() for spec in specs[:2]), sep="\n\n")
        return
    if not given.table:
        for spec in specs:
            if given.only in (None, f"{spec.arm}:{spec.seed}"):
                run(spec)
    compare(specs)


if __name__ == "__main__":
    main()
