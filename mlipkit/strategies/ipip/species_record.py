"""Species of simulations over time as they are kept: ``species.npz`` in the folder of a test; views need no torch."""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula

NAME = "species.npz"


@dataclass(frozen=True, eq=False)
class RunSpecies:
    """One simulation.

    Attributes:
        time: fs [T] of the stored frames before any failure.
        formulas: [S], the most frequent first.
        counts: int [T, S] of each in every frame.
        bonds: "Mo-O" -> int [T].
        totals: atomic number -> atoms, which the species of every frame must add up to.
        changes: of the tracked clusters, those that last: time (fs), before, after (formulas), kind. None: nothing was
            tracked, or the run is shorter than what a change must last.
        checkpoints: of the mechanism -> fs or None; None where it says nothing of this system.
    """

    time: np.ndarray
    formulas: tuple[str, ...]
    counts: np.ndarray
    bonds: Mapping[str, np.ndarray]
    totals: Mapping[int, int]
    changes: list[dict[str, Any]] | None = None
    checkpoints: dict[str, float | None] | None = None

    def count(self, formula: str) -> np.ndarray:
        """int [T]; zeros for a formula that never occurs."""
        return self.counts[:, self.formulas.index(formula)] if formula in self.formulas else 0 * self.time.astype(int)

    def tracked(self, element: str) -> tuple[str, ...]:
        """Formulas with an element, all for ""."""
        return tuple(one for one in self.formulas if not element or element in elements_of(one))

    @property
    def balanced(self) -> np.ndarray:
        """bool [T]: the species hold every atom."""
        held = [[elements_of(one).get(chemical_symbols[z], 0) for z in self.totals] for one in self.formulas]
        table = np.array(held, int).reshape(len(self.formulas), len(self.totals))
        return (self.counts @ table == np.array(list(self.totals.values()), int)).all(1)


def save(folder: Path, runs: Sequence[RunSpecies]) -> None:
    """Write the simulations of a test, whole or not at all."""
    arrays: dict[str, np.ndarray] = {"n_runs": np.array(len(runs))}
    for k, one in enumerate(runs):
        told = {"formulas": list(one.formulas), "bonds": list(one.bonds), "changes": one.changes,
                "checkpoints": one.checkpoints, "totals": {str(z): n for z, n in one.totals.items()}}  # fmt: skip
        bonds = np.stack(list(one.bonds.values()), 1) if one.bonds else np.zeros((len(one.time), 0))
        arrays |= {f"{k:03d}/time": one.time, f"{k:03d}/counts": one.counts.astype(np.int32),
                   f"{k:03d}/bonds": bonds.astype(np.int32), f"{k:03d}/told": np.array(json.dumps(told))}  # fmt: skip
    partial = folder / f".{NAME}.part.npz"
    np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
    os.replace(partial, folder / NAME)


def load(folder: Path) -> list[RunSpecies] | None:
    """The simulations of a test, None where no species were followed."""
    if not (folder / NAME).is_file():
        return None
    runs = []
    with np.load(folder / NAME, allow_pickle=False) as arrays:
        for k in range(int(arrays["n_runs"])):
            told, bonds = json.loads(str(arrays[f"{k:03d}/told"])), arrays[f"{k:03d}/bonds"]
            runs.append(RunSpecies(
                arrays[f"{k:03d}/time"], tuple(told["formulas"]), arrays[f"{k:03d}/counts"],
                {name: bonds[:, column] for column, name in enumerate(told["bonds"])},
                {int(z): n for z, n in told["totals"].items()}, told["changes"], told["checkpoints"],
            ))  # fmt: skip
    return runs


def summary(runs: Sequence[RunSpecies], element: str, lifetime: float) -> dict[str, Any]:
    """Facts of a test, JSON-ready.

    Keys: element, lifetime (fs), runs, too_short (to tell a change that lasts), frames, balanced (of these), formulas
    (of the tracked clusters -> how often, over all frames), mean_clusters (per frame), last_formulas, last_clusters (of
    the last frames), events (kind -> how many), checkpoints (name -> runs that passed it; None: not of this system).
    """
    every, last, events, passed = Counter(), Counter(), Counter(), Counter()
    frames = balanced = 0
    for one in runs:
        names = one.tracked(element)
        frames, balanced = frames + len(one.time), balanced + int(one.balanced.sum())
        every.update({name: int(one.count(name).sum()) for name in names})
        last.update({name: int(one.count(name)[-1]) for name in names if len(one.time)})
        events.update(change["kind"] for change in one.changes or ())
        passed.update({name: int(time is not None) for name, time in (one.checkpoints or {}).items()})
    ended = sum(len(one.time) > 0 for one in runs)
    return {
        "element": element, "lifetime": lifetime, "runs": len(runs),
        "too_short": sum(one.changes is None for one in runs) if element else 0, "frames": frames,
        "balanced": balanced, "formulas": _most(every),
        "mean_clusters": sum(every.values()) / frames if frames else None,
        "last_formulas": _most(last), "last_clusters": sum(last.values()) / ended if ended else None,
        "events": _most(events),
        "checkpoints": dict(passed) if any(one.checkpoints is not None for one in runs) else None,
    }  # fmt: skip


def together(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`summary` of the simulations of several seeds."""

    def added(name: str) -> dict[str, int]:
        counted: Counter[str] = Counter()
        for one in found:
            counted.update(one.get(name) or {})
        return dict(counted.most_common())

    def mean(name: str, weight: str) -> float | None:
        known = [(one[name], one[weight]) for one in found if one.get(name) is not None]
        return sum(value * n for value, n in known) / sum(n for _, n in known) if known else None

    numbers = {name: sum(one.get(name, 0) for one in found) for name in ("runs", "too_short", "frames", "balanced")}
    return {
        "element": found[0]["element"], "lifetime": found[0].get("lifetime"), **numbers, "formulas": added("formulas"),
        "mean_clusters": mean("mean_clusters", "frames"), "last_formulas": added("last_formulas"),
        "last_clusters": mean("last_clusters", "runs"), "events": added("events"),
        "checkpoints": added("checkpoints") if any(one.get("checkpoints") for one in found) else None,
    }  # fmt: skip


def over_time(runs: Sequence[RunSpecies], element: str, times: Sequence[float]) -> list[dict[str, Any]]:
    """Clusters with an element at moments of several simulations; those that have failed before are no longer counted.

    Args:
        element: "": all species. times: fs.

    Returns:
        per moment: time, runs (that reach it), clusters (per run, None: no run), formulas (-> how many, in all runs).
    """
    found = []
    for time in times:
        # Times are steps times a time step: equal ones differ by rounding.
        there = [one for one in runs if len(one.time) and one.time[-1] >= time * (1 - 1e-9)]
        counted: Counter[str] = Counter()
        for one in there:
            row = int(np.searchsorted(one.time, time * (1 + 1e-9), side="right")) - 1
            counted.update({name: int(one.count(name)[row]) for name in one.tracked(element)})
        clusters = sum(counted.values()) / len(there) if there else None
        found.append({"time": float(time), "runs": len(there), "clusters": clusters, "formulas": _most(counted)})
    return found


def sentence(found: Mapping[str, Any]) -> str:
    """``Mo: 1.2 clusters at the end, mostly Mo3O9; 3 changes that last: insertion 2, split 1``."""
    who = f"{found['element']}: " if found["element"] else ""
    if not found.get("last_formulas"):
        return f"{who}no frame"
    noun = ("cluster" if found["element"] else "molecule") + "s" * (found["last_clusters"] != 1)
    text = f"{who}{found['last_clusters']:.3g} {noun} at the end, mostly {next(iter(found['last_formulas']))}"
    if not found["element"]:
        return text
    if found["too_short"] == found["runs"]:
        return f"{text}; too short for changes that last {found['lifetime']:g} fs"
    each = ", ".join(f"{kind} {n}" for kind, n in found["events"].items())
    return f"{text}; {sum(found['events'].values())} changes that last" + (f": {each}" if each else "")


@functools.cache
def elements_of(formula: str) -> dict[str, int]:
    """Atoms of a formula by element."""
    return Formula(formula).count()


def _most(counted: Counter[str]) -> dict[str, int]:
    return {name: n for name, n in counted.most_common() if n}
