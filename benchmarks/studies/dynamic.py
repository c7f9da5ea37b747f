"""Does training through roll-outs beat training on single frames with the same work?

    python benchmarks/studies/dynamic.py ethanol_nve               # run what lacks of one study, arm by arm
    python benchmarks/studies/dynamic.py --dry-run                 # studies, arms, force evaluations; starts nothing
    python benchmarks/studies/dynamic.py --encoder painn           # of all studies, this encoder
    python benchmarks/studies/dynamic.py ethanol_nve --only painn:dt:0
    python benchmarks/studies/dynamic.py ethanol_nve --table       # tables and verdicts of what is finished
    python benchmarks/studies/dynamic.py ethanol_nve --plan dynamic_paper.yaml

Every arm goes on from a potential trained on single frames, with the same rates and as many force evaluations whose
gradients are taken. Arms, settings and data stand in the plan. It can be killed at any moment and called again: each
training lies under ``build/studies/dynamic`` and goes on where it stands. One line per arm and seed goes to
`results/dynamic_STUDY.jsonl`, the comparison to `results/dynamic_STUDY.json`. Studies of `data/...` need the folder
named by MLIPKIT_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from records import RESULTS, command, keep, merged, told

from mlipkit.events import always_run
from mlipkit.runs import DynamicSpec, parse_spec
from mlipkit.runs.folder import RunFolder, write_text

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1] / "build" / "studies" / "dynamic"
FIRST = "first"
"""The training on single frames from which arms go on."""


class Study:
    """One data set of a plan: its trainings in order."""

    def __init__(self, plan: str, name: str) -> None:
        record = yaml.safe_load((HERE / plan).read_text())
        own = record["studies"][name]
        self.name, self.plan = name, plan
        self.encoders, self.seeds = own.get("encoders", record["encoders"]), own.get("seeds", record["seeds"])
        self.arms: dict[str, Any] = {key: record["arms"][key] for key in own.get("arms", record["arms"])}
        self.losses = record["losses"]
        self.skipped: dict[str, list[str]] = record.get("skipped", {})
        self.verdicts = record["verdicts"]
        self.template = merged(record["template"], own.get("template", {}))
        self.first, self.then = (merged(record[part], own.get(part, {})) for part in ("first", "then"))
        self.root = ROOT / Path(plan).stem / name

    def trainings(self):
        """(encoder, arm, seed), the first ones before those that go on from them; one encoder before the next."""
        for encoder in self.encoders:
            for seed in self.seeds:
                arms = [arm for arm in self.arms if arm not in self.skipped.get(encoder, [])]
                for loss in dict.fromkeys(self.losses.get(arm, "mepa") for arm in arms):
                    yield encoder, f"{FIRST}_{loss}", seed
                yield from ((encoder, arm, seed) for arm in arms)

    def folder(self, encoder: str, arm: str, seed: int) -> Path:
        return self.root / encoder / f"{arm}_{seed}"

    def spec(self, encoder: str, arm: str, seed: int) -> DynamicSpec:
        record = merged(self.template, {"kind": "dynamic", "seed": seed, "name": f"{arm}_{seed}"})
        record["data"] = [_place(text) for text in record["data"]]
        if arm.startswith(FIRST):
            loss = arm.removeprefix(f"{FIRST}_")
            record = merged(record, self.first, {"loss": {"kind": loss}, "model": {"encoder": encoder}})
        else:
            loss = self.losses.get(arm, "mepa")
            begin = self.folder(encoder, f"{FIRST}_{loss}", seed) / "checkpoints" / "chosen.safetensors"
            record = merged(record, self.then, self.arms[arm], {"loss": {"kind": loss}, "potential": str(begin)})
            record.pop("model", None)
        spec = parse_spec(record)
        assert isinstance(spec, DynamicSpec)
        return spec


def _place(text: str) -> str:
    return text if text.partition(":")[0] == "sample" else str(Path(os.environ["MLIPKIT_DATA"]) / text)


def run(study: Study, encoder: str, arm: str, seed: int) -> None:
    """Train in this process, or go on; keep a line when it has just ended."""
    from mlipkit.runs import build

    spec, files = study.spec(encoder, arm, seed), RunFolder(study.folder(encoder, arm, seed))
    done = files.path / "facts.json"
    if done.is_file():
        return
    files.path.mkdir(parents=True, exist_ok=True)
    write_text(files.spec, spec.to_yaml())
    begin, cpu = time.perf_counter(), time.process_time()
    finished = build.execute(spec, files, Path.cwd(), told(f"{encoder} {arm} {seed}"), always_run)
    facts = dict(finished.facts)
    facts |= {"wall_s": time.perf_counter() - begin, "cpu_s": time.process_time() - cpu, "reason": finished.reason}
    write_text(done, json.dumps(facts))
    kept = ("stages", "evaluations", "training_s", "validation_s", "wall_s", "cpu_s", "held_at", "chosen",
            "test_rollouts", "frames", "runs")  # fmt: skip
    errors = {split: figures.get("forces_mae") for split, figures in facts["metrics"].items()}
    keep(f"dynamic_{study.name}", {
        "study": study.name, "plan": study.plan, "encoder": encoder, "arm": arm, "seed": seed, "command": command(),
        "forces_mae": errors, **{name: facts.get(name) for name in kept},
    })  # fmt: skip


def rollouts_of(study: Study, encoder: str, arm: str) -> dict[int, Any]:
    """Seed -> roll-outs on the test part, of the seeds that are finished."""
    from mlipkit.runs.building_dynamic import read_rollouts

    found = {}
    for seed in study.seeds:
        folder = study.folder(encoder, arm, seed)
        if (folder / "facts.json").is_file():
            found[seed] = read_rollouts(folder / "test_rollouts.npz")
    return found


def compare(study: Study) -> None:
    """Tables and verdicts of what is finished."""
    from dataclasses import asdict

    from mlipkit.errors import MlipkitError
    from mlipkit.strategies.dynamic.comparing import arm_row, common_starts, error_curve, judge_rollouts

    out: dict[str, Any] = {"command": command(), "study": study.name, "plan": study.plan, "encoders": {}}
    for encoder in study.encoders:
        names = [f"{FIRST}_mepa", *study.arms]
        arms = {name: arm for name in names if (arm := rollouts_of(study, encoder, name))}
        if not arms:
            continue
        rows = common_starts(arms)
        verdicts = {}
        for title, (cure, controls) in study.verdicts.items():
            seeds = set.intersection(*(set(arms.get(name, ())) for name in (cure, *controls)))
            if not seeds:
                continue
            pick = {name: {seed: arms[name][seed] for seed in sorted(seeds)} for name in (cure, *controls)}
            try:
                verdict = judge_rollouts(pick.pop(cure), pick)
            except MlipkitError as error:
                print(f"{encoder}, {title}: {error}")
                continue
            verdicts[title] = {**asdict(verdict), "seeds": sorted(seeds)}
            print(f"{encoder}, {title}: {verdict.sentence}")
        table = [asdict(arm_row(name, arm, rows)) for name, arm in arms.items()]
        print(f"{encoder}: {len(rows)} starts; eV/Å on the own path, at equal frames; parted; drift meV/atom/ps")
        for row in table:
            parts = ", ".join(f"{name} {value:.3f}" for name, value in row["per_element"].items())
            found = f"{row['mepa']:.4f} ± {row['spread']:.4f}  {row['equal_frames']:.4f}"
            ends = f"{row['diverged']}/{row['rollouts']}  {row['drift']:.1f}"
            print(f"  {row['name']:14} {len(row['seeds'])} seeds  {found}  {ends}  ({parts})")
        first = next(iter(next(iter(arms.values())).values()))
        curves = {name: np.round(error_curve(arm, rows), 5).tolist() for name, arm in arms.items()}
        out["encoders"][encoder] = {
            "verdicts": verdicts, "arms": table, "starts": len(rows), "structures": first.error.shape[1],
            "timestep_fs": float(first.timestep[0]), "error_curves": curves,
        }  # fmt: skip
    text = json.dumps(out, indent=1, default=float)
    write_text(RESULTS / f"dynamic_{study.name}.json", text.replace("Infinity", "null").replace("NaN", "null") + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", nargs="*", help="names in the plan; none: all")
    parser.add_argument("--plan", default="dynamic_small.yaml", help="file of the plan, beside this script")
    parser.add_argument("--only", metavar="ENCODER:ARM:SEED")
    parser.add_argument("--encoder", help="trainings of this one; tables hold what there is of all")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    names = given.study or list(yaml.safe_load((HERE / given.plan).read_text())["studies"])
    for name in names:
        study = Study(given.plan, name)
        if given.dry_run:
            trainings = list(study.trainings())
            print(f"{name}: {len(trainings)} trainings; encoders {study.encoders}, seeds {study.seeds}")
            for encoder, arm, seed in trainings[: 1 + len(study.arms) + 2]:
                spec = study.spec(encoder, arm, seed)
                curriculum = spec.curriculum
                each = (curriculum.stage_epochs or 0) * (curriculum.evaluations_per_epoch or 0)
                print(f"  {encoder} {arm} {seed}: structures {curriculum.n_structures}, "
                      f"{each * len(curriculum.n_structures) or 'until converged:'} force evaluations")  # fmt: skip
            continue
        if not given.table:
            for encoder, arm, seed in study.trainings():
                if given.only in (None, f"{encoder}:{arm}:{seed}") and given.encoder in (None, encoder):
                    run(study, encoder, arm, seed)
        compare(study)


if __name__ == "__main__":
    main()
