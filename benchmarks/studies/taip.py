"""Does test-time adaptation help beyond its controls, and is it adaptation or joint training that earns the gain?

    python benchmarks/studies/taip.py                        # run what lacks, one case and encoder after the other
    python benchmarks/studies/taip.py --only a_acac:schnet   # one of them
    python benchmarks/studies/taip.py --dry-run              # their specifications; starts nothing
    python benchmarks/studies/taip.py --table                # table and verdicts of what is finished
    python benchmarks/studies/taip.py --plan taip_trial.yaml # the published setting on ethanol, fewer steps
    python benchmarks/studies/taip.py --plan taip_paper.yaml # the published size, for a GPU

Every case is one specification of kind "taip", as `mlipkit run` takes it. It can be killed at any moment and called
again: everything lies under ``build/studies/PLAN`` and goes on where it stands. MLIPKIT_DATA names the folder of data
sets. One line per case, encoder, arm and seed goes to `results/taip.jsonl`, verdicts to `results/taip.json`; those of
another plan to files of its name (`results/taip_trial.json`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from records import RESULTS, command, keep, rounded, told

import mlipkit as mk
from mlipkit.errors import RunError
from mlipkit.runs import parse_spec
from mlipkit.runs.folder import RunFolder, write_text
from mlipkit.strategies.taip.kept import recall
from mlipkit.strategies.taip.study import NAME

HERE = Path(__file__).resolve().parent
PUBLISHED = 0.7
"""Error over that of the baseline that the paper claims on average."""


def specifications(study: dict[str, Any], plan: str) -> dict[str, mk.TaipSpec]:
    """Specification by ``case:encoder``, all encoders of a case before the next."""
    data, found = os.environ.get("MLIPKIT_DATA", ""), {}
    for case, fields in study["cases"].items():
        for encoder in study["encoders"]:
            record = {**study["template"], **fields, "name": f"{case}_{encoder}"}
            record["model"] = {**record["model"], "encoder": encoder}
            text = json.dumps(record)
            if "$DATA" in text and not data:
                raise RunError("needs the folder of data sets", where="MLIPKIT_DATA")
            spec = parse_spec(json.loads(text.replace("$DATA", data)), where=f"{plan}: {case}")
            assert isinstance(spec, mk.TaipSpec)
            found[f"{case}:{encoder}"] = spec
    return found


def recorded(plan: str) -> str:
    """Name of the results of a plan."""
    name = Path(plan).stem
    return "taip" if name == "taip_small" else name


def run(key: str, spec: mk.TaipSpec, root: Path, name: str) -> None:
    """Let one go on to its end, in this process; keep its lines under a name."""
    from mlipkit.runs.build import execute

    folder = root / spec.name
    if (folder / NAME).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    files, begin = RunFolder(folder), time.time()
    write_text(files.spec, spec.to_yaml())

    found = execute(spec, files, Path.cwd(), told(key), lambda: "run")
    if found.state != "completed":
        raise SystemExit(f"{key}: {found.reason}")
    for seed in spec.seeds:
        one = recall(folder / f"seed_{seed}")
        assert one is not None
        for test, columns in one.errors.items():
            for column, quantities in columns.items():
                keep(name, {
                    "case": key.partition(":")[0], "encoder": spec.model.encoder, "arm": column, "seed": seed,
                    "test": test, "n": len(one.uids[test]), "rates": one.rates["adapted"],
                    **{f"{quantity}_mae": float(values.mean()) for quantity, values in quantities.items()},
                    "seconds_per_frame": one.seconds, "training_s": one.training_s, "steps": one.steps,
                    "wall_s": round(time.time() - begin, 1), "command": command(),
                })  # fmt: skip


def table(specs: dict[str, mk.TaipSpec], root: Path, name: str) -> None:
    """Ratios and verdicts of what is finished, printed and kept; what was finished elsewhere stays."""
    path = RESULTS / f"{name}.json"
    before = json.loads(path.read_text(encoding="utf-8"))["cases"] if path.is_file() else {}
    record: dict[str, Any] = {"command": command(), "published_ratio": PUBLISHED, "cases": before}
    for key, spec in specs.items():
        if not (root / spec.name / NAME).is_file():
            continue
        found = json.loads((root / spec.name / NAME).read_text(encoding="utf-8"))
        record["cases"][key] = found
        print(f"\n{key}: {found['sentence']}")
        rates = ", ".join("/".join(f"{rate:g}" for rate in one["rates"]["adapted"].values()) for one in found["seeds"])
        cost = found["seeds"][0]["seconds"]
        print(
            f"  adaptation steps chosen for forces/energies: {rates}; "
            f"cost per frame {cost['adapted'] / cost['off']:.1f} times plain"
        )
        for row in found["ratios"]:
            print(
                f"  {row['test']:34} {row['quantity']:7} {row['column']:22} {row['ratio']:.3f} "
                f"({row['lower']:.3f} to {row['upper']:.3f})  of {row['baseline']:.4g}"
            )
    if not record["cases"]:
        raise RunError("nothing is finished yet", where=str(root))
    write_text(path, json.dumps(rounded(record), indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plan", default="taip_small.yaml", help="file of the study, beside this script")
    parser.add_argument("--only", metavar="CASE:ENCODER", help="one of them, or several with commas")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    name, root = recorded(given.plan), HERE.parents[1] / "build" / "studies" / Path(given.plan).stem
    specs = specifications(yaml.safe_load((HERE / given.plan).read_text()), given.plan)
    if given.dry_run:
        print(*(spec.to_yaml() for spec in specs.values()), sep="---\n")
        return
    chosen = specs if given.only is None else {key: specs[key] for key in given.only.split(",")}
    if not given.table:
        for key, spec in chosen.items():
            run(key, spec, root, name)
    table(specs, root, name)


if __name__ == "__main__":
    main()
