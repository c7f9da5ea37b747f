"""Roll-outs of potentials along AIMD runs that none of them has seen, arms of several seeds side by side, as a finding.

    finding = rollouts_finding({"rolled": ["runs/dt_0", "runs/dt_1"], "single": ["runs/s_0", "runs/s_1"]})
    print(finding.sentences[0])

The first arm is judged against the best of the others (`mlipkit.analysis.cures`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.analysis.plain import plain
from mlipkit.errors import DataError
from mlipkit.plots.dynamic import rollout_error_figure, rollout_path_figure
from mlipkit.runs.building_data import _read, read_frames
from mlipkit.runs.findings import Finding, Picture, Table, number
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.places import idle_at, run_of
from mlipkit.runs.run import spec_in
from mlipkit.runs.spec import DynamicSpec, FittingSpec
from mlipkit.runs.spec_train import places_in

if TYPE_CHECKING:
    from mlipkit.analysis.cures import CureVerdict
    from mlipkit.data import FrameSet
    from mlipkit.strategies.dynamic import Rollouts
    from mlipkit.strategies.dynamic.comparing import ArmRow

STRUCTURES, POINTS = 120, 64


def rollouts_finding(
    arms: Mapping[str, Sequence[str]], on: str | FrameSet | None = None, *, structures: int = STRUCTURES,
    points: int = POINTS, velocities: str = "auto", effect: float = 0.1, base: Path | None = None, python: str = "",
) -> Finding:  # fmt: skip
    """Roll every potential of every arm out from the same starts, and compare.

    Args:
        arms: name -> potentials of several seeds: runs, files, samples, universal ones. The first arm is judged against
            the others.
        on: AIMD runs, in order of time; None: the test part of the first run.
        structures: of a roll-out, the start included; fewer where the runs are shorter.
        points: starts, evenly spread.
        velocities: as `mlipkit.strategies.dynamic.aimd_runs`.
        effect: smallest gain worth having.

    Raises:
        DataError: frames that are no AIMD runs; frames on which one of the runs was trained; no potential;
            trainings in which other atoms were frozen.
    """
    from mlipkit.models import load
    from mlipkit.runs.building_forces import source_of
    from mlipkit.strategies.dynamic import aimd_runs, nve_rollouts, validation_starts
    from mlipkit.strategies.dynamic.comparing import arm_row, common_starts, error_curve, judge_rollouts

    base = base or Path.cwd()
    places = {name: list(potentials) for name, potentials in arms.items()}
    if not places or not all(places.values()):
        raise DataError("no potential", where="roll-outs", expected="arms of at least one potential each")
    frames = _frames(on, next(iter(places.values()))[0], base)
    _check_unseen(frames, [place for several in places.values() for place in several], base)
    runs = aimd_runs(frames, velocities)  # type: ignore[arg-type]
    structures = max(1, min(structures, runs.longest))
    starts = validation_starts(runs, structures, points)
    frozen = _frozen([place for several in places.values() for place in several], int(frames.n_atoms[0]), base)
    found: dict[str, dict[int, Rollouts]] = {}
    for name, several in places.items():
        seeds = _seeds(several, base)
        found[name] = {
            seed: nve_rollouts(load(source_of(place, base)).eval(), runs, starts, structures, frozen=frozen)
            for seed, place in zip(seeds, several, strict=True)
        }
    rows = common_starts(found)
    first, *controls = found
    verdict = None
    if controls and len(rows):
        verdict = judge_rollouts(found[first], {name: found[name] for name in controls}, effect=effect)
    table = [arm_row(name, arm, rows) for name, arm in found.items()]
    timestep = float(next(iter(found[first].values())).timestep[0])
    curves = {name: error_curve(arm, rows) for name, arm in found.items()}
    said = (f"{len(starts)} starts of {len(np.unique(runs.run_of[starts]))} runs, {structures} structures "
            f"({timestep * (structures - 1):g} fs), without a thermostat; {runs.said}.")  # fmt: skip
    kind = "warning" if verdict is not None and verdict.answer != "works" else ""
    return Finding(
        title="Roll-outs along unseen AIMD runs", sentences=tuple(_sentences(table, verdict, said)),
        parts=(_table(table), *_pictures(found, rows, timestep, curves)),
        figures={f"mepa_{row.name}": (row.mepa, "eV/Å") for row in table},
        data=plain({
            "verdict": None if verdict is None else asdict(verdict), "arms": [asdict(row) for row in table],
            "error_curves": {name: curve.tolist() for name, curve in curves.items()}, "timestep_fs": timestep,
            "structures": structures, "starts": starts.tolist(), "runs_hash": frames.hash,
        }),
        python=python, kind=kind, sources={name: ", ".join(several) for name, several in places.items()},
    )  # fmt: skip


def test_part(place: str, base: Path) -> FrameSet:
    """The test part of a training run, as its own record says.

    Raises:
        DataError: no training run, or one without a test part.
    """
    folder = run_of(place, base)
    spec = spec_in(RunFolder(folder)) if folder is not None else None
    record = folder / "split.json" if folder is not None else None
    if folder is None or record is None or not isinstance(spec, FittingSpec) or not record.is_file():
        raise DataError("no test part", where=place, expected="a training run", hint="Name frames: on=...")
    uids = json.loads(record.read_text())["uids"]["test"]
    if not uids:
        raise DataError("the run kept no test part", where=place, hint="Name frames: on=...")
    home = Path(RunFolder(folder).read("launch.json").get("cwd", base))
    reading = {"keys": spec.keys, "units": spec.units, "allow_partial": True}
    data = places_in(spec.test) or places_in(spec.data)
    return _read(data, home, None, reading, idle_at(spec.frame_places, home, reading)).select_uids(uids)


def _frames(on: str | FrameSet | None, first: str, base: Path) -> FrameSet:
    if on is None:
        return test_part(first, base)
    return read_frames(on, base) if isinstance(on, str) else on


def _check_unseen(frames: FrameSet, places: Sequence[str], base: Path) -> None:
    """Refuse frames that one of the runs learned from or chose its best epoch by."""
    mine = {f"{int(uid):016x}" for uid in frames.uids}
    for place in places:
        folder = run_of(place, base)
        if folder is None or not (folder / "split.json").is_file():
            continue
        uids = json.loads((folder / "split.json").read_text())["uids"]
        for part in ("train", "validation"):
            seen = mine & set(uids[part])
            if seen:
                raise DataError(
                    f"{len(seen)} of the frames are among the {part} frames", where=place,
                    hint="Roll out along runs that no potential has seen",
                )  # fmt: skip


def _frozen(places: Sequence[str], n_atoms: int, base: Path) -> np.ndarray | None:
    """Mask [n] of the atoms that did not move in the trainings, the same in all arms; None: all move."""
    from mlipkit.strategies.dynamic.beside import still_atoms

    folders = [folder for place in places if (folder := run_of(place, base)) is not None]
    specs = [spec for folder in folders if isinstance(spec := spec_in(RunFolder(folder)), DynamicSpec)]
    found = {tuple(sorted(spec.rollout.frozen)) for spec in specs}
    if len(found) > 1:
        raise DataError("trained with different frozen atoms", where="roll-outs", found=sorted(found))
    return still_atoms(chosen, n_atoms) if (chosen := next(iter(found), ())) else None


def _seeds(places: Sequence[str], base: Path) -> list[int]:
    """Seeds of the runs, by which arms are paired; numbers where they are not known or not different."""
    found = [getattr(spec_in(RunFolder(folder)), "seed", None) if (folder := run_of(place, base)) else None
             for place in places]  # fmt: skip
    if None in found or len(set(found)) < len(found):
        return list(range(len(places)))
    return [int(seed) for seed in found if seed is not None]


def _sentences(table: Sequence[ArmRow], verdict: CureVerdict | None, said: str) -> list[str]:
    first = table[0]
    found = [verdict.sentence] if verdict is not None else []
    found.append(
        f"{first.name}: error per atom type and step {1000 * first.mepa:.4g} meV/Å on its own path, "
        f"{1000 * first.equal_frames:.4g} meV/Å at equal frames; {first.diverged} of {first.rollouts} roll-outs parted "
        f"from the reference."
    )
    if verdict is None:
        found.append("One arm alone: whether roll-outs helped shows beside a control of equal compute.")
    lost = {row.name: row.lost for row in table if row.lost}
    if lost:
        named = ", ".join(f"{count} of {name}" for name, count in lost.items())
        found.append(f"Roll-outs without finite positions ({named}) and their starts are left out of all means.")
    return [*found, said]


def _table(table: Sequence[ArmRow]) -> Table:
    elements = list(table[0].per_element)
    head = ("arm", "seeds", "own path, meV/Å", "± seeds", "equal frames", *elements, "drift, meV/atom/ps", "parted",
            "parted at, fs", "lost")  # fmt: skip
    rows = tuple(
        (row.name, str(len(row.seeds)), number(1000 * row.mepa), number(1000 * row.spread),
         number(1000 * row.equal_frames), *(number(1000 * row.per_element[name]) for name in elements),
         number(row.drift), f"{row.diverged}/{row.rollouts}", number(row.divergence_fs), str(row.lost))
        for row in table
    )  # fmt: skip
    note = "Errors of forces are sums over elements, means over steps; of one element, means over its atoms."
    return Table("Errors along roll-outs", head, rows, note=note)


def _pictures(
    found: Mapping[str, Mapping[int, Rollouts]], rows: np.ndarray, timestep: float, curves: Mapping[str, Any]
) -> list[Picture]:
    if not len(rows):
        return []
    time = timestep * np.arange(len(next(iter(curves.values()))))
    apart = {
        name: np.mean([one.apart[rows, :, 0].mean(axis=0) for one in arm.values()], axis=0)
        for name, arm in found.items()
    }
    return [
        Picture("Error along roll-outs", rollout_error_figure(time, curves)),
        Picture("Distance from the reference", rollout_path_figure(time, apart),
                "After a while any potential leaves the reference: neighbouring paths part."),
    ]  # fmt: skip
