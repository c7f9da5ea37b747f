"""Relaxations: from the specification to structures, forces and FIRE; what came out, as one file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.events import Control, EventSink, Finished, Saved, Verdict
from mlipkit.runs.building_data import RELAXED, read_starts
from mlipkit.runs.building_forces import build_forces, check_starts, device_of, say_precision
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.places import factory_of, run_of, split_place
from mlipkit.runs.spec import RelaxSpec
from mlipkit.runs.spec_md import listed

if TYPE_CHECKING:
    from ase import Atoms


def structures_of(spec: RelaxSpec, base: Path) -> list[tuple[str, Atoms]]:
    """(place, structure) of all that shall be relaxed: every frame named, of a run without an index the last."""
    found = []
    for text in listed(spec.start):
        place = text
        if not split_place(text)[1] and factory_of(text) is None and run_of(text, base) is not None:
            place += "@-1"
        images = list(read_starts(place, base))
        for index, atoms in enumerate(images):
            atoms.calc = None
            found.append((text if len(images) == 1 else f"{text} ({index})", atoms))
    return found


def run_relaxation(spec: RelaxSpec, files: RunFolder, base: Path, sink: EventSink, control: Control) -> Finished:
    """Relax what the specification names, or go on where the folder stands."""
    from mlipkit.md import relax, state_from_atoms

    forces = build_forces(spec, base)
    say_precision(spec, forces, sink)
    named = structures_of(spec, base)
    check_starts(forces, named)
    if len(named) > 1:
        rows = [{"index": i, "start": text, "folder": f"replica_{i:03d}"} for i, (text, _) in enumerate(named)]
        files.write("replicas.json", {"replicas": rows})
    state = state_from_atoms([atoms for _, atoms in named], device=device_of(spec.device))
    begin = time.monotonic()
    verdicts = relax(
        state, forces, folder=files.path, fmax=spec.fmax, steps=spec.steps, cell=spec.cell,
        hydrostatic=spec.hydrostatic, pressure=spec.pressure, smax=spec.smax, stride=spec.stride, batch=spec.batch,
        sink=sink, control=control,
    )  # fmt: skip
    outcomes = {"converged": "ok", "not_converged": "warning", "failed": "failed"}
    counts = {name: sum(one.outcome == outcome for one in verdicts) for name, outcome in outcomes.items()}
    facts: dict[str, Any] = {
        "relaxed_s": round(time.monotonic() - begin, 3), "structures": len(named), **counts,
        "relaxation_steps": [one.step for one in verdicts],
    }  # fmt: skip
    if len(verdicts) < len(named):
        return Finished("stopped", f"stopped by the user, {counts['converged']} of {len(named)} converged", facts)
    path = _gather(files, len(named))
    sink(Saved(str(path), "last frames of all structures"))
    return _last_word(verdicts, counts, facts)


def _gather(files: RunFolder, number: int) -> Path:
    """Write the last frame of every structure into one file, in their order."""
    from ase.io import read

    from mlipkit.data import FrameSet, write

    folders = [files.path] if number == 1 else [files.path / f"replica_{index:03d}" for index in range(number)]
    images: list[Any] = [read(folder / "trajectory.traj", -1) for folder in folders]
    for image in images:
        # Nothing moves in a minimum: zero momenta would only look like a simulation that starts at 0 K.
        image.arrays.pop("momenta", None)
        if image.calc is not None and not np.isfinite(image.get_forces()).all():
            image.calc = None
    return write(files.path / RELAXED, FrameSet.from_atoms(images, source=files.path.name))


def _last_word(verdicts: Sequence[Verdict], counts: dict[str, int], facts: dict[str, Any]) -> Finished:
    first = next((one for one in verdicts if one.outcome == "failed"), None)
    if len(verdicts) == 1:
        return Finished("failed" if first else "completed", verdicts[0].sentence.rstrip("."), facts)
    parts = [f"{counts['converged']} of {len(verdicts)} structures converged"]
    if counts["not_converged"]:
        parts.append(f"{counts['not_converged']} not within the steps")
    if first is not None:
        parts.append(f"{counts['failed']} failed, the first: {first.sentence.rstrip('.')}")
    return Finished("failed" if first else "completed", "; ".join(parts), facts)
