"""Tests by MD: minimise, heat, simulate many times, and count what fails; where asked, what the atoms became."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit.events import Control, Ending, EventSink
from mlipkit.strategies.ipip import species_record
from mlipkit.strategies.workflows.tools import Stopped

if TYPE_CHECKING:
    from ase import Atoms

    from mlipkit.models import BasePotential


def stability_test(
    potential: BasePotential, starts: Sequence[Atoms], options: Mapping[str, Any], seeds: Mapping[str, int], cap: float,
    folder: Path, sink: EventSink, control: Control, skin: float = 0.5,
) -> dict[str, Any]:  # fmt: skip
    """Facts: runs, n, failed, fraction, interval (Wilson), reasons, times_fs (of the failures); species when tracked.

    Args:
        starts: one per run.
        options: as of a "stability" or "reaction" stage (`settings.Stability` or `settings.Reaction`, and the limits of
            `settings.Instability`).

    Raises:
        Stopped: by the user.
    """
    from mlipkit.strategies.ipip.sampling import OPTIONS, ended, run_md

    images = relaxed(potential, starts, options, folder / "relax", sink, control, skin)
    ensemble = options.get("ensemble", "langevin")
    names = ("steps", "timestep", "stride", "temperature", "instability", *OPTIONS[ensemble])
    md = {name: options[name] for name in names} | {"ensemble": ensemble}
    found = run_md(potential, images, md, seeds, cap, folder / "md", sink, control, skin)
    facts = {**ended(found), "times_fs": [one.time for one in found if one.failed], "n": len(found)}
    if options["track"] or "lifetime" in options:
        facts["species"] = followed(folder, found, options)
        if "lifetime" in options:
            facts["sentence"] += f"; {species_record.sentence(facts['species'])}"
    return facts


def relaxed(
    potential: BasePotential, starts: Sequence[Atoms], options: Mapping[str, Any], folder: Path, sink: EventSink,
    control: Control, skin: float,
) -> list[Atoms]:  # fmt: skip
    """The starts minimised with the model that is tested, as far as it gets; a start that it breaks stays as it was."""
    import numpy as np
    from ase.io import read

    from mlipkit.md import PotentialForces, relax, state_from_atoms

    if not options["relax_steps"]:
        return list(starts)
    verdicts = relax(
        state_from_atoms(list(starts), device=potential.device), PotentialForces(potential, skin=skin), folder=folder,
        fmax=options["fmax"], steps=options["relax_steps"], stride=options["relax_steps"], sink=sink, control=control,
    )  # fmt: skip
    if len(verdicts) < len(starts):
        raise Stopped
    places = [folder] if len(starts) == 1 else [folder / f"replica_{i:03d}" for i in range(len(starts))]
    images = []
    for start, place in zip(starts, places, strict=True):
        last: Any = read(place / "trajectory.traj", -1)
        image = start.copy()
        if np.isfinite(last.positions).all():
            image.positions = last.positions
        images.append(image)
    return images


def followed(folder: Path, found: Sequence[Ending], options: Mapping[str, Any]) -> dict[str, Any]:
    """Species in the stored frames of all runs, up to their failure: kept as series, summed up as facts."""
    from mlipkit.analysis.bond_states import LIFETIME
    from mlipkit.strategies.ipip.reaction import species_of_run
    from mlipkit.strategies.ipip.sampling import _frames

    lifetime, runs = options.get("lifetime", LIFETIME), []
    for index, one in enumerate(found):
        place = folder / "md" if len(found) == 1 else folder / "md" / f"replica_{index:03d}"
        before = one.step if one.failed else None
        frames, steps = _frames(place / "trajectory.traj", before, every=1, start=True)
        frames = frames.with_table(time=steps * float(options["timestep"]), trajectory=0)
        runs.append(species_of_run(frames, options["track"], lifetime))
    species_record.save(folder, runs)
    return species_record.summary(runs, options["track"], lifetime)
