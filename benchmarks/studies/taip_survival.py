"""How long do simulations of 96 atoms of water last with each strategy of adaptation, from equal starts?

    python benchmarks/studies/taip_survival.py                    # train, find the temperature, simulate, judge
    python benchmarks/studies/taip_survival.py --dry-run          # the trainings; starts nothing
    python benchmarks/studies/taip_survival.py --table            # what is finished
    python benchmarks/studies/taip_survival.py --encoder schnet   # one of the plan's encoders
    python benchmarks/studies/taip_survival.py --plan taip_survival_paper.yaml

A baseline without tasks, and a potential with them that never adapts, adapts at every step and forgets (nonsaving) or
keeps (save_every), every k-th step, or where its loss exceeds what validation frames have (threshold); and, as a
control, nonsaving with steps of equal length and random signs. All begin from the same structures and velocities, at
300 K and at the lowest temperature of a ladder at which half of the baseline's simulations fail; baseline, never,
nonsaving and its control once more from other velocities, as that choice is made by the baseline's own runs and ten
simulations tell little apart. It can be killed at any moment and called again: runs lie
under ``build/studies/NAME``. Survival with intervals, by encoder, goes to ``results/NAME.json``. Simulations that hold
to the end are censored.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from records import RESULTS, command

import mlipkit as mk
from mlipkit.analysis.survival import Survival, kaplan_meier, log_rank, restricted_mean, stratified_log_rank
from mlipkit.data import read_source
from mlipkit.data.series import Series
from mlipkit.errors import RunError, SpecError
from mlipkit.runs.folder import write_text

HERE = Path(__file__).resolve().parent
BASELINE, TRAINED = "baseline", "taip"
STRATEGIES = (BASELINE, "none", "nonsaving", "save_every", "save_every_k", "threshold")
RANDOM = "_random"
"""Behind a strategy: the control that steps as far with random signs."""
AGAIN, BOTH = "_again", "_both"
"""Behind an arm: from other velocities, and both together."""
CONTROL = f"nonsaving{RANDOM}"
ARMS = (*STRATEGIES, *(f"{name}{AGAIN}" for name in STRATEGIES[:3]), CONTROL, f"{CONTROL}{AGAIN}")
PS, DEVIATIONS = 1000.0, 10.0


def energy_collapse(times: np.ndarray, energies: np.ndarray, window: float = PS) -> float:
    """First time, fs, at which the energy leaves its running median over `window` fs by more than ten standard
    deviations of the first window; infinite where it never does.

    Args:
        times: fs [n], ascending. energies: eV [n].
    """
    first = energies[times <= times[0] + window]
    if times[-1] <= times[0] + window or len(first) < 3:
        return np.inf
    limit = DEVIATIONS * float(np.std(first, ddof=1))
    begins = np.searchsorted(times, times - window)
    for index in range(len(first), len(times)):
        if not abs(energies[index] - np.median(energies[begins[index] : index])) <= limit:
            return float(times[index])
    return np.inf


def fates(runs: Sequence[tuple[float, str, float]], energy: bool = True) -> tuple[list[float], list[str]]:
    """Times, fs, and reasons ("" where it held) of simulations given as (time, reason, time of energy collapse).

    Args:
        energy: whether such a collapse counts. Steps of adaptation move energies too, so it is not the same for all.
    """
    times, reasons = [], []
    for ended, reason, leaves in runs:
        early = energy and (leaves < ended or (leaves <= ended and not reason))
        times.append(min(ended, leaves) if energy else ended)
        reasons.append("energy" if early else reason)
    return times, reasons


def hot_enough(failed: Mapping[float, Sequence[bool]]) -> float | None:
    """Lowest temperature at which half of the simulations failed."""
    return min((kelvin for kelvin, each in failed.items() if 2 * sum(each) >= len(each)), default=None)


def next_rung(ladder: Sequence[float], begin: float, failed: Mapping[float, Sequence[bool]]) -> float | None:
    """The temperature to try next: up from the first until half fail, down while half do; None: it is known."""
    if begin not in failed:
        return begin
    half = hot_enough(failed)
    if half is None:
        return next((kelvin for kelvin in ladder if kelvin > max(failed)), None)
    below = [kelvin for kelvin in ladder if kelvin < half and kelvin not in failed]
    return below[-1] if below and half == min(failed) else None


def curve_of(runs: Sequence[tuple[float, str, float]], energy: bool = True) -> Survival:
    """The estimate of survival of an arm; see `fates`."""
    times, reasons = fates(runs, energy)
    return kaplan_meier(times, [bool(reason) for reason in reasons], reasons=reasons)


def summary(curve: Survival, until: float, others: Mapping[str, Survival]) -> dict[str, Any]:
    """What is kept of an arm: share that holds, median and mean survival, p-values of equal rates."""

    def number(value: float) -> float | None:
        return round(float(value), 4) if np.isfinite(value) else None

    held = curve.survival[-1] if len(curve.survival) else 1.0
    low, high = (curve.lower[-1], curve.upper[-1]) if len(curve.survival) else curve.before
    return {
        "simulations": len(curve.ended), "failed": int(curve.failed.sum()), "reasons": curve.reasons,
        "held": number(held), "held_interval": [number(low), number(high)],
        "median_ps": number(curve.median / PS), "median_interval_ps": [number(t / PS) for t in curve.median_interval],
        "mean_ps": number(restricted_mean(curve, until) / PS), "interval": curve.interval,
        "ended_ps": [number(t / PS) for t in curve.ended],
        **{f"p_against_{name}": number(log_rank(curve, other)) for name, other in others.items()},
    }  # fmt: skip


def summaries(runs: Mapping[str, Sequence[tuple[float, str, float]]], until: float) -> dict[str, dict[str, Any]]:
    """Of every arm, against the potential without tasks, the one that never adapts, and that of random steps; those of
    the same velocities."""
    rows: dict[str, dict[str, Any]] = {}
    for energy in (True, False):
        curves = {arm: curve_of(each, energy) for arm, each in runs.items()}
        for arm, curve in curves.items():
            behind = next((one for one in (AGAIN, BOTH) if arm.endswith(one)), "")
            controls = {name: curves[name + behind] for name in (BASELINE, "none", CONTROL) if name + behind in curves}
            row = summary(curve, until, {name: one for name, one in controls.items() if name + behind != arm})
            if energy:
                rows[arm] = row
            else:
                rows[arm]["without_energy"] = row
    return rows


def together(groups: Sequence[Mapping[str, Sequence[tuple[float, str, float]]]], arm: str) -> dict[str, Any]:
    """An arm against each of its controls in all groups that have both.

    Args:
        groups: arm -> simulations; of an encoder at a temperature, from the same velocities.
    """
    found = {}
    for name in (BASELINE, "none", CONTROL):
        both = [group for group in groups if {arm, name} <= {*group}]
        if not both:
            continue
        pairs, physical = ([[curve_of(group[one], energy) for one in (arm, name)] for group in both]
                           for energy in (True, False))  # fmt: skip
        found[name] = {
            "groups": len(both), "simulations": [sum(len(pair[k].ended) for pair in pairs) for k in (0, 1)],
            "failed": [sum(int(pair[k].failed.sum()) for pair in pairs) for k in (0, 1)],
            "p": round(stratified_log_rank(pairs), 4), "p_without_energy": round(stratified_log_rank(physical), 4),
        }  # fmt: skip
    return found


class Study:
    """A plan with one of its encoders, and their folder."""

    def __init__(self, plan: str, encoder: str) -> None:
        self.plan: dict[str, Any] = yaml.safe_load((HERE / plan).read_text())
        self.encoder = encoder
        self.root = HERE.parents[1] / "build" / "studies" / Path(plan).stem / encoder

    def training(self, arm: str) -> mk.TrainSpec:
        more = {"taip": {"enabled": True}} if arm == TRAINED else {}
        record = {**self.plan["training"], **more, "data": self.plan["data"], "split": self.plan["split"]}
        record["model"] = {**record["model"], "encoder": self.encoder}
        return mk.TrainSpec(**record, name=arm, seed=self.plan["seed"])

    def starts(self) -> list[str]:
        """Places of the test frames that simulations begin from."""
        chosen = json.loads((self.root / BASELINE / "split.json").read_text())["uids"]["test"]
        uids = [f"{int(uid):016x}" for uid in np.asarray(read_source(self.plan["data"]).uids)]
        rows = sorted(uids.index(uid) for uid in chosen)
        take = np.unique(np.linspace(0, len(rows) - 1, min(self.plan["starts"], len(rows))).round().astype(int))
        return [f"{self.plan['data']}@{rows[index]}" for index in take]

    def simulation(self, arm: str, kelvin: float) -> mk.MDSpec:
        strategy = arm.removesuffix(AGAIN).removesuffix(RANDOM)
        adaptation: dict[str, Any] = {}
        if strategy not in (BASELINE, "none"):
            adaptation = {"strategy": strategy, "rate": self.plan["rate"]}
        if RANDOM in arm:
            adaptation["direction"] = "random"
        if strategy == "save_every_k":
            adaptation["every"] = self.plan["every"]
        settings = dict(self.plan["simulation"])
        settings["seed"] += arm.endswith(AGAIN)
        return mk.MDSpec(
            **settings, name=f"{arm}_{kelvin:g}K", temperature=kelvin, start=self.starts(),
            potential=str(self.root / (BASELINE if strategy == BASELINE else TRAINED)), adaptation=adaptation,
        )  # fmt: skip

    def finish(self, spec: mk.TrainSpec | mk.MDSpec) -> None:
        """Start, or let go on, and wait; a simulation may well fail, a training may not."""
        run = mk.launch(spec, root=self.root, resume=True).wait()
        print(spec.name, run.state, run.sentence, flush=True)
        if run.state != "completed" and not (isinstance(spec, mk.MDSpec) and run.state == "failed"):
            raise SystemExit(f"{spec.name}: {run.sentence}")

    def ends(self, arm: str, kelvin: float) -> list[tuple[float, str, float]] | None:
        """(time, reason, time of energy collapse) of the simulations of an arm, fs; None: not finished."""
        folder = self.root / f"{arm}_{kelvin:g}K"
        if not folder.is_dir() or mk.open(folder).state not in ("completed", "failed"):
            return None
        found = []
        for one in mk.open(folder).replicas:
            series = Series(one.folder / "series" / "md").read()
            leaves = energy_collapse(series["time_fs"], series["potential_energy"])
            found.append((one.time, one.why if one.failed else "", leaves))
        return found

    def failures(self, kelvin: float) -> list[bool] | None:
        runs = self.ends(BASELINE, kelvin)
        return None if runs is None else [bool(reason) for reason in fates(runs)[1]]

    @property
    def rungs(self) -> list[float]:
        """The ladder, with the temperature at which it is entered."""
        return sorted({*self.plan["ladder"], self.plan["cold"]})

    def seen(self) -> dict[float, list[bool]]:
        """Rungs of the ladder that the baseline has been on."""
        found = {kelvin: self.failures(kelvin) for kelvin in self.rungs}
        return {kelvin: each for kelvin, each in found.items() if each is not None}

    def temperatures(self) -> list[float]:
        """Room temperature, and the lowest at which half of the baselines fail; where none is, the hottest rung."""
        return sorted({self.plan["cold"], hot_enough(self.seen()) or self.rungs[-1]})

    def run(self) -> None:
        for arm in (BASELINE, TRAINED):
            self.finish(self.training(arm))
        while (kelvin := next_rung(self.rungs, self.plan["cold"], self.seen())) is not None:
            self.finish(self.simulation(BASELINE, kelvin))
        for kelvin in self.temperatures():
            for arm in ARMS:
                if self.ends(arm, kelvin) is None:
                    self.finish(self.simulation(arm, kelvin))

    def groups(self) -> list[dict[str, list[tuple[float, str, float]]]]:
        """Simulations of every strategy where half of the baselines fail, by set of velocities; empty without any."""
        kelvin = hot_enough(self.seen())
        if kelvin is None:
            return []
        runs = {arm: each for arm in ARMS if (each := self.ends(arm, kelvin)) is not None}
        first = {arm: each for arm, each in runs.items() if not arm.endswith(AGAIN)}
        return [first, {arm.removesuffix(AGAIN): each for arm, each in runs.items() if arm.endswith(AGAIN)}]

    def judge(self) -> dict[str, Any]:
        """Survival of what is finished, printed; empty where nothing is."""
        until = 1e3 * self.plan["simulation"]["time_ps"]
        found: dict[str, Any] = {}
        for kelvin in self.temperatures():
            runs = {arm: each for arm in ARMS if (each := self.ends(arm, kelvin)) is not None}
            runs |= {
                arm.replace(AGAIN, BOTH): runs[arm.removesuffix(AGAIN)] + again
                for arm, again in runs.items() if arm.endswith(AGAIN) and arm.removesuffix(AGAIN) in runs
            }  # fmt: skip
            rows = summaries(runs, until)
            if rows:
                found[f"{kelvin:g}"] = rows
            for arm, row in rows.items():
                low, high = row["held_interval"]
                print(
                    f"{self.encoder} {kelvin:6g} K {arm:16} failed {row['failed']} of {row['simulations']}, "
                    f"held {row['held']} ({low} to {high}), mean {row['mean_ps']} ps  {row['reasons'] or ''}"
                )
        return {"half_fail_at_K": hot_enough(self.seen()), "temperatures": found} if found else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plan", default="taip_survival.yaml", help="file of the study, beside this script")
    parser.add_argument("--encoder", help="one of those of the plan")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    studies = [Study(given.plan, one) for one in yaml.safe_load((HERE / given.plan).read_text())["encoders"]]
    chosen = [study for study in studies if given.encoder in (None, study.encoder)]
    if not chosen:
        raise SpecError(
            "not of this plan", where="--encoder", expected=", ".join(one.encoder for one in studies),
            found=given.encoder,
        )  # fmt: skip
    if given.dry_run:
        print(*(study.training(arm).to_yaml() for study in chosen for arm in (BASELINE, TRAINED)), sep="---\n")
        return
    for study in () if given.table else chosen:
        study.run()
    found = {study.encoder: one for study in studies if (one := study.judge())}
    if not found:
        raise RunError("nothing is finished yet", where=str(studies[0].root.parent))
    path = RESULTS / f"{Path(given.plan).stem}.json"
    # Encoders that were studied elsewhere stay.
    before = json.loads(path.read_text())["encoders"] if path.is_file() else {}
    record = {
        "command": command(), "encoders": {**before, **found},
        "nonsaving_together": together([one for study in studies for one in study.groups()], "nonsaving"),
    }  # fmt: skip
    write_text(path, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
