"""Which sign warns of large force errors: SOAP Q, Hotelling T², nearest neighbour, or a committee of four?

    python benchmarks/studies/warning_signs.py train [nacl_water acac ethanol]
    python benchmarks/studies/warning_signs.py simulate
    python benchmarks/studies/warning_signs.py judge

needs the real data sets in MLIPKIT_DATA. Every part can be interrupted and called again; trainings and simulations are
runs under ``build/studies/warning_signs``. `judge` writes `results/warning_signs.json` and prints the verdict.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import mlipkit as mk
from mlipkit.analysis import OODModel, Soap
from mlipkit.analysis.ranking import rank_correlation, roc, warning_tradeoff, warnings_before_failure
from mlipkit.analysis.scores import MEASURES
from mlipkit.data import FrameSet, read_source
from mlipkit.models import load, predict
from mlipkit.runs import MDSpec, TrainSpec

HERE = Path(__file__).resolve().parent
PLAN: dict[str, Any] = yaml.safe_load((HERE / "warning_signs.yaml").read_text())
ROOT = HERE.parents[1] / "build" / "studies" / "warning_signs"
RESULT = HERE.parent / "results" / "warning_signs.json"


def command() -> str:
    """What was called."""
    return " ".join(["python", "benchmarks/studies/warning_signs.py", *sys.argv[1:]])


def place(text: str) -> str:
    """A place of the plan as a specification takes it."""
    return str(Path(os.environ["MLIPKIT_DATA"]) / text.removeprefix("data/")) if text.startswith("data/") else text


def train_spec(case: str, seed: int) -> TrainSpec:
    given = {name: value for name, value in PLAN["cases"][case].items() if name != "tests"}
    places = {name: place(given[name]) for name in ("data", "validation") if name in given}
    record = {**PLAN["template"], **given, **places, "name": f"{case}_{seed}", "seed": seed}
    return TrainSpec(**record)


def md_spec(kind: str) -> MDSpec:
    ours = ("case", "stable", "failing", "false_alarms_per_ps")
    given = {name: value for name, value in PLAN["simulations"].items() if name not in ours}
    potential = ROOT / f"{PLAN['simulations']['case']}_{PLAN['seeds'][0]}"
    return MDSpec(
        name=f"md_{kind}", potential=str(potential), temperature=PLAN["simulations"][kind], device="cpu", **given
    )


def finish(spec: TrainSpec | MDSpec) -> None:
    """Start, or let go on, and wait; a simulation may well fail, a training may not."""
    run = mk.launch(spec, root=ROOT, resume=True).wait()
    print(spec.name, run.state, run.sentence, flush=True)
    if run.state != "completed" and not (isinstance(spec, MDSpec) and run.state == "failed"):
        raise SystemExit(f"{spec.name}: {run.sentence}")


@dataclasses.dataclass
class Signs:
    """What each sign says of every atom of a set, and of what size the force error is.

    Attributes:
        values: sign -> [N]. relative: sign -> [N], as a multiple of the element's limit, learned where training was.
        error: norm of the force error [N], eV/Å; None without labels. frame: [N] frame of each atom.
    """

    values: dict[str, np.ndarray]
    relative: dict[str, np.ndarray]
    error: np.ndarray | None
    frame: np.ndarray

    def per_frame(self, name: str) -> np.ndarray:
        """Largest relative value of an atom in each frame."""
        top = np.full(self.frame.max() + 1, -np.inf)
        np.maximum.at(top, self.frame, self.relative[name])
        return top


class Case:
    """A committee, the space of its training frames, and the limits of each sign."""

    def __init__(self, name: str) -> None:
        self.plan = PLAN["cases"][name]
        folders = [ROOT / f"{name}_{seed}" for seed in PLAN["seeds"]]
        self.committee = [load(folder) for folder in folders]
        split = json.loads((folders[0] / "split.json").read_text())["uids"]
        frames = read_source(place(self.plan["data"]))
        training = frames.select_uids(split["train"])
        # Frames that the committee did not train on, from the same place.
        other = read_source(place(self.plan["validation"])) if "validation" in self.plan else frames
        self.known = other.select_uids(split["validation"])
        rows = np.linspace(0, len(training) - 1, min(PLAN["fit_on"], len(training))).round().astype(int)
        fit_on = training.select(np.unique(rows))
        tests = {key: read_source(place(text)) for key, text in self.plan["tests"].items()}
        self.sets = {"held out of training": self.known, **tests}
        self.model = OODModel.fit(
            fit_on, Soap.of(fit_on, *self.sets.values(), **PLAN["soap"]), components=PLAN["components"]
        )
        spread = disagreement(self.committee, self.known)[0]
        numbers = np.asarray(self.known.numbers)
        self.spread_limit = {
            int(z): float(spread[numbers == z].mean() + 2 * spread[numbers == z].std()) for z in np.unique(numbers)
        }

    def signs(self, frames: FrameSet) -> Signs:
        scores = self.model.score(frames)
        values = {name: np.asarray(getattr(scores, name), float) for name in MEASURES}
        relative = {name: values[name] / scores.limits[name].of(scores.numbers) for name in MEASURES}
        # The control: which element an atom is, and nothing of where it is.
        values["element alone"] = scores.limits["q"].of(scores.numbers)
        relative["element alone"] = np.ones(len(scores.numbers))
        spread, error = disagreement(self.committee, frames)
        values["committee"] = spread
        relative["committee"] = spread / np.array([self.spread_limit[int(z)] for z in np.asarray(frames.numbers)])
        return Signs(values, relative, error, np.repeat(np.arange(len(frames)), frames.n_atoms))


def disagreement(committee: list, frames: FrameSet) -> tuple[np.ndarray, np.ndarray | None]:
    """Spread of the members' forces about their mean [N], and the first member's force error [N], eV/Å."""
    forces = np.stack([np.asarray(predict(member, frames).forces) for member in committee])
    spread = np.sqrt(((forces - forces.mean(0)) ** 2).sum(-1).mean(0))
    known = frames.has("forces").all()
    return spread, np.linalg.norm(forces[0] - frames.forces, axis=1) if known else None


def estimate(found) -> dict[str, float | None]:
    """Value and interval; None where there is none (a sign that says the same of all)."""
    values = {"value": found.value, "low": found.low, "high": found.high}
    return {name: round(value, 4) if np.isfinite(value) else None for name, value in values.items()}


def of_errors(case: Case) -> dict[str, Any]:
    """Rank correlation with the force error and AUC for large ones, per set and sign; intervals over frames."""
    found: dict[str, Any] = {}
    for name, frames in case.sets.items():
        signs = case.signs(frames)
        assert signs.error is not None
        worst = np.zeros(len(frames))
        np.maximum.at(worst, signs.frame, signs.error)
        bad = signs.error > PLAN["large_error"]
        row: dict[str, Any] = {
            "frames": len(frames), "atoms": len(signs.error), "share_of_large_errors": round(float(bad.mean()), 4),
            "force_error_eV_per_A": round(float(signs.error.mean()), 4), "signs": {},
        }  # fmt: skip
        for sign, values in signs.values.items():
            options = {"replicas": PLAN["resamples"]}
            entry = {
                "rank_correlation": estimate(rank_correlation(values, signs.error, signs.frame, **options)),
                "rank_correlation_relative": estimate(
                    rank_correlation(signs.relative[sign], signs.error, signs.frame, **options)
                ),
                "rank_correlation_of_frames": estimate(
                    rank_correlation(signs.per_frame(sign), worst, **options)
                ),
            }  # fmt: skip
            if bad.any():
                entry["auc"] = estimate(roc(values, bad, signs.frame, **options).auc)
                entry["auc_relative"] = estimate(roc(signs.relative[sign], bad, signs.frame, **options).auc)
            row["signs"][sign] = entry
        found[name] = row
        print(name, json.dumps(row), flush=True)
    return found


def series_of(case: Case, kind: str) -> tuple[dict[str, list], list[float | None]]:
    """Of every simulation the times and, per sign, the largest relative value; when it failed, fs."""
    runs: dict[str, list] = {name: [] for name in (*MEASURES, "committee")}
    ends: list[float | None] = []
    for one in mk.open(ROOT / f"md_{kind}").replicas:
        frames = read_source(str(one.folder / "trajectory.traj"), allow_partial=True)
        signs = case.signs(frames)
        for name in runs:
            runs[name].append((np.asarray(frames.time), signs.per_frame(name)))
        ends.append(one.time if one.failed else None)
    return runs, ends


def of_warnings(case: Case) -> dict[str, Any]:
    """Lead times and false alarms at the default limits, and at limits set to one rate of false alarms."""
    hot, cold = series_of(case, "failing"), series_of(case, "stable")
    found: dict[str, Any] = {"failed": sum(e is not None for e in hot[1]), "of": len(hot[1])}
    found["stable_failed"] = sum(e is not None for e in cold[1])
    still = [index for index, end in enumerate(cold[1]) if end is None]
    tune, judge = still[::2], still[1::2]
    for name in hot[0]:
        quiet = [cold[0][name][index] for index in tune]
        limits = np.unique(np.concatenate([values for _, values in quiet]))
        # Alarms are rare: the largest values decide, one by one.
        limits = np.concatenate([limits[:-400:25], limits[-400:]])
        rates = warning_tradeoff(quiet, [None] * len(quiet), limits)[1]
        allowed = limits[rates <= PLAN["simulations"]["false_alarms_per_ps"]]
        entry = {}
        chosen = {"default_limit": 1.0} | ({"equal_false_alarms": float(allowed.min())} if len(allowed) else {})
        for title, limit in chosen.items():
            runs = hot[0][name] + [cold[0][name][index] for index in judge]
            said = warnings_before_failure(runs, [*hot[1], *[None] * len(judge)], limit)
            entry[title] = {
                "limit": round(limit, 4), "warned": said.warned, "median_lead_fs": estimate(said.median_lead),
                "lead_fs": [None if np.isnan(v) else round(v, 1) for v in said.lead.tolist()],
                "false_alarms_per_ps": said.per_ps, "stable_ps": said.stable_ps,
            }  # fmt: skip
        found[name] = entry
        print(name, json.dumps(entry), flush=True)
    return found


def ranking(record: dict[str, Any], quantity: str) -> dict[str, Any]:
    """Per set the signs in order of a quantity; the first one wins where its interval lies above all others' values."""
    found = {}
    for case, of in record.items():
        for name, row in of["errors"].items():
            values = {sign: entry[quantity] for sign, entry in row["signs"].items() if quantity in entry}
            values = {sign: value for sign, value in values.items() if value["value"] is not None}
            if not values:
                continue
            order = sorted(values, key=lambda sign: -values[sign]["value"])
            first, second = order[0], order[1]
            apart = values[first]["low"] > values[second]["high"]
            found[f"{case} {name}"] = {
                "order": {sign: [values[sign]["value"], values[sign]["low"], values[sign]["high"]] for sign in order},
                "winner": first if apart else f"undecided: {first} or {second}",
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("train", "simulate", "judge"))
    parser.add_argument("cases", nargs="*", default=list(PLAN["cases"]))
    args = parser.parse_args()
    if args.part == "train":
        for case in args.cases:
            for seed in PLAN["seeds"]:
                finish(train_spec(case, seed))
    elif args.part == "simulate":
        for kind in ("failing", "stable"):
            finish(md_spec(kind))
    else:
        record = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        for name in args.cases:
            case = Case(name)
            record[name] = {"command": command(), "errors": of_errors(case)}
            if name == PLAN["simulations"]["case"]:
                record[name]["warnings"] = of_warnings(case)
            record.pop("ranking", None)
            record["ranking"] = {name: ranking(record, name) for name in ("auc_relative", "rank_correlation_relative")}
            RESULT.write_text(json.dumps(record, indent=1) + "\n")
        for name, sets in record["ranking"].items():
            for of, row in sets.items():
                print(f"{name:26} {of:32} {row['winner']:36} {row['order']}")


if __name__ == "__main__":
    sys.exit(main())
