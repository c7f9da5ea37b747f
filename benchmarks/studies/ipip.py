"""Does iterative pretraining beat the best of its controls at equal gradient steps, and which of its parts helps?

    python benchmarks/studies/ipip.py a_ethanol                    # run what lacks of one study, arm by arm
    python benchmarks/studies/ipip.py --dry-run                    # studies, arms, budgets; starts nothing
    python benchmarks/studies/ipip.py a_ethanol --only painn:ipip:0
    python benchmarks/studies/ipip.py a_ethanol --table            # tables and verdicts of what is finished
    python benchmarks/studies/ipip.py a_ethanol --renew            # lines of what is finished, from their folders
    python benchmarks/studies/ipip.py a_ethanol --plan ipip_paper.yaml

SO3LR is the teacher, the DFT frames are those of the public sets. Every student's arm has the same DFT frames and as
many gradient steps, pretraining included; the teacher's MD is done once and shared. It can be killed at any moment and
called again: each arm lies under ``build/studies/ipip`` and goes on where it stands. One line per arm and seed goes to
`results/ipip_STUDY.jsonl`, the comparison to `results/ipip_STUDY.json`. Data lie in the folder named by MLIPKIT_DATA;
those that a plan calls ``made/NAME`` were made here, by `mo_s_o.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from records import RESULTS, command, keep, merged, read_lines, told

from mlipkit.errors import MlipkitError
from mlipkit.events import always_run
from mlipkit.runs import IPIPSpec, parse_spec
from mlipkit.runs.folder import RunFolder, write_text
from mlipkit.strategies.finetuning.outcome import UNTOUCHED
from mlipkit.strategies.finetuning.record import RECORD as FINE_TUNED
from mlipkit.strategies.ipip import LoopPlan, equal_steps, species_record, timeline

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1] / "build" / "studies" / "ipip"
MADE = "made"


class Study:
    """One data set of a plan: its arms in order, all of one seed before the next.

    Attributes:
        tuned: arm of another study whose potential is the teacher, {} for the one that the template names.
        beside: study with the same teacher, from whose arms equal stages are taken over; "" for none.
    """

    def __init__(self, plan: str, name: str) -> None:
        record = yaml.safe_load((HERE / plan).read_text())
        own = record["studies"][name]
        self.name, self.plan = name, plan
        self.template = merged(record["template"], own.get("template", {}))
        self.tuned: dict[str, Any] = own.get("tuned", {})
        self.encoders: dict[str, Any] = own.get("encoders", record["encoders"])
        self.settings: dict[str, Any] = record.get("settings", {})
        self.beside: str = own.get("beside", "")
        self.seeds, self.arms = own.get("seeds", record["seeds"]), own.get("arms", record["arms"])
        self.root = ROOT / Path(plan).stem / name

    def arms_and_seeds(self) -> Iterator[tuple[str, str, int]]:
        for seed in self.seeds:
            for encoder in self.encoders:
                yield from ((encoder, arm, seed) for arm in self.arms)

    def folder(self, encoder: str, arm: str, seed: int) -> Path:
        return self.root / encoder / f"{arm}_{seed}"

    def spec(self, encoder: str, arm: str, seed: int) -> IPIPSpec:
        model = {"model": {"encoder": encoder, **self.encoders[encoder]}}
        own = [self.settings.get(key, {}) for key in (encoder, f"{encoder}:{arm}")]
        record = merged(self.template, *own, model, {"kind": "ipip", "arm": arm, "seed": seed, "name": f"{arm}_{seed}"})
        made, _, name = record["data"].partition("/")
        folder = ROOT / "data" if made == MADE else Path(os.environ["MLIPKIT_DATA"]) / made
        record["data"] = str(folder / name)
        if self.tuned:
            place = Study(self.plan, self.tuned["study"]).folder
            record["teacher"] = str(place(self.tuned["encoder"], self.tuned["arm"], self.tuned["seed"]))
        # The first arm that was begun has the teacher's MD and the first pool.
        others = [self.folder(*one) for one in self.arms_and_seeds() if one[0] == encoder]
        if self.beside:
            others.append(Study(self.plan, self.beside).folder(encoder, arm, seed))
        here = self.folder(encoder, arm, seed)
        record["reuse"] = [str(one) for one in others if one != here and (one / "spec.yaml").is_file()]
        spec = parse_spec(record)
        assert isinstance(spec, IPIPSpec)
        return spec


def run(study: Study, encoder: str, arm: str, seed: int) -> None:
    """Carry out an arm in this process, or go on; keep a line when it has just ended."""
    from mlipkit.runs import build

    files = RunFolder(study.folder(encoder, arm, seed))
    done = files.path / "facts.json"
    if done.is_file():
        return
    spec = study.spec(encoder, arm, seed)
    files.path.mkdir(parents=True, exist_ok=True)
    write_text(files.spec, spec.to_yaml())
    begin, cpu = time.perf_counter(), time.process_time()
    finished = build.execute(spec, files, Path.cwd(), told(f"{encoder} {arm} {seed}"), always_run)
    if finished.state != "completed":
        raise SystemExit(f"{encoder} {arm} {seed}: {finished.reason}")
    facts = {**finished.facts, "wall_s": time.perf_counter() - begin, "cpu_s": time.process_time() - cpu}
    write_text(done, json.dumps(facts))
    keep(f"ipip_{study.name}", {
        "study": study.name, "plan": study.root.parent.name, "encoder": encoder, "arm": arm, "seed": seed,
        "command": command(), "budget": spec.plan.budget.sentence, **kept(files.path, facts),
    })  # fmt: skip


def kept(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an arm that has ended: part of its line.

    Args:
        facts: of its run, with wall_s and cpu_s of the process that ended it.
    """
    from mlipkit.strategies.ipip.evaluating import compared

    record, rounds = json.loads((folder / "evaluation.json").read_text()), timeline(folder)
    stability, reaction = ([row[name] for row in rounds if row[name]] for name in TESTS)
    return {
        "n_test": compared(record), "selected": record["selected"],
        "rows": [{key: row.get(key) for key in KEPT} for row in record["rows"]],
        "rounds": [{key: row[key] for key in ROUND if row[key] is not None}
                   | validation(folder, row["round"], record) for row in rounds],
        "stability": [{key: one[key] for key in STABLE} for one in stability],
        "reaction": [{key: one[key] for key in (*STABLE, "species")} for one in reaction],
        "wall_s": facts["wall_s"], "cpu_s": facts["cpu_s"], "stage_wall_s": facts["stage_seconds"],
    }  # fmt: skip


def validation(folder: Path, k: int, record: Mapping[str, Any]) -> dict[str, float]:
    """Force MAE, meV/Å, of the student of a round on the validation frames, before fine-tuning and after it.

    A student that had new weights before has no such figure.

    Args:
        record: the evaluation of the arm.
    """
    plan = LoopPlan.from_json(json.loads((folder / "plan.json").read_text()))
    path = folder / plan.folder(f"finetune_{k}") / FINE_TUNED
    (row,) = (row for row in record["rows"][1:] if row["round"] == k)
    found = {"validation_after": row["validation"]["forces_mae"]}
    if path.is_file():
        start = json.loads(path.read_text())["metrics"][UNTOUCHED]["validation"]
        found["validation_before"] = 1e3 * start["forces_mae"]
    return found


def renew(study: Study) -> None:
    """The lines of a study from the folders of its arms: what is kept of an arm today, measured when it ran."""
    path = RESULTS / f"ipip_{study.name}.jsonl"
    lines = []
    for line in read_lines(path):
        folder = study.folder(line["encoder"], line["arm"], line["seed"])
        lines.append({**line, **kept(folder, json.loads((folder / "facts.json").read_text()))})
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


KEPT = ("model", "round", "forces_mae", "forces_norm", "energy_mae", "better_than_teacher", "ratio_to_teacher")
ROUND = ("round", "pool", "forgotten", "relabelled", "new", "new_unstable", "md_failed", "md_runs", "md_reasons",
         "md_steps_per_s", "student_vs_teacher")  # fmt: skip
TESTS = ("stability", "reaction")
STABLE = ("failed", "n", "fraction", "interval", "reasons", "times_fs")
MOMENTS = 5
"""Parts of a simulation at whose ends species are counted."""


def compare(study: Study) -> None:
    """Tables and verdicts of what is finished, for each encoder."""
    from mlipkit.strategies.ipip.comparing import compare as compare_arms

    record: dict[str, Any] = {"command": command(), "study": study.name, "plan": study.root.parent.name}
    encoders = {}
    for encoder in study.encoders:
        folders = [study.folder(*one) for one in study.arms_and_seeds() if one[0] == encoder]
        ended = [one for one in folders if (one / "facts.json").is_file()]
        try:
            found = compare_arms(ended)
        except MlipkitError as error:
            print(f"{encoder}: {error}")
            continue
        print(f"{encoder}\n{found.table()}\n")
        encoders[encoder] = {**found.to_json(), "species_over_time": species_over_time(ended)}
    if encoders:
        write_text(RESULTS / f"ipip_{study.name}.json", json.dumps({**record, **encoders}, indent=1) + "\n")


def species_over_time(folders: Sequence[Path]) -> dict[str, list[dict[str, Any]]]:
    """Arm -> clusters of the tracked element at equally spaced moments of its reaction tests, all seeds together."""
    runs: dict[str, list[Any]] = {}
    stages: dict[str, Mapping[str, Any]] = {}
    for folder in folders:
        plan = LoopPlan.from_json(json.loads((folder / "plan.json").read_text()))
        for stage in plan.of("reaction")[-1:]:
            runs.setdefault(plan.arm, []).extend(species_record.load(folder / plan.folder(stage.name)) or [])
            stages[plan.arm] = stage.options
    found = {}
    for arm, options in stages.items():
        last = options["steps"] // options["stride"] * options["stride"] * options["timestep"]
        moments = [last * k / MOMENTS for k in range(MOMENTS + 1)]
        found[arm] = species_record.over_time(runs[arm], options["track"], moments)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", help="all when left out")
    parser.add_argument("--plan", default="ipip_small.yaml")
    parser.add_argument("--only", help="encoder:arm:seed, such as painn:ipip:0")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--renew", action="store_true")
    given = parser.parse_args()
    names = given.studies or list(yaml.safe_load((HERE / given.plan).read_text())["studies"])
    for name in names:
        study = Study(given.plan, name)
        if given.dry_run:
            plans = {one: study.spec(*one).plan for one in study.arms_and_seeds()}
            print(
                f"{name}: {len(plans)} arms and seeds. {equal_steps([p for (_, _, s), p in plans.items() if s == 0])}"
            )
        elif given.renew:
            renew(study)
        elif given.table:
            compare(study)
        else:
            for one in study.arms_and_seeds():
                if given.only in (None, ":".join(map(str, one))):
                    run(study, *one)
            compare(study)


if __name__ == "__main__":
    main()
