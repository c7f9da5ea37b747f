"""The test by MD: minimise, heat, simulate many times, and count what fails; where asked, what the atoms became."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit.events import Control, EventSink
from mlipkit.strategies.workflows.tools import Stopped

if TYPE_CHECKING:
    from ase import Atoms

    from mlipkit.models import BasePotential


def stability_test(
    potential: BasePotential, starts: Sequence[Atoms], options: Mapping[str, Any], seeds: Mapping[str, int], cap: float,
    folder: Path, sink: EventSink, control: Control, skin: float = 0.5,
) -> dict[str, Any]:  # fmt: skip
    """Facts: runs, failed, fraction, interval (Wilson), reasons, times_fs (of the failures); species when tracked.

    Args:
        starts: one per run.
        options: as of a "stability" stage (`settings.Stability` and the limits of `settings.Instability`).

    Raises:
        Stopped: by the user.
    """
    from mlipkit.strategies.ipip.sampling import ended, run_md

    images = relaxed(potential, starts, options, folder / "relax", sink, control, skin)
    md = {
        "steps": options["steps"], "timestep": options["timestep"], "stride": options["stride"],
        "temperature": options["temperature"], "ensemble": "langevin", "friction": options["friction"],
        "instability": options["instability"],
    }  # fmt: skip
    found = run_md(potential, images, md, seeds, cap, folder / "md", sink, control, skin)
    facts = {**ended(found), "times_fs": [one.time for one in found if one.failed], "n": len(found)}
    if options["track"]:
        facts["species"] = tracked(folder / "md", len(found), options["track"])
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


def tracked(folder: Path, n_runs: int, element: str) -> dict[str, Any]:
    """Clusters with an element in every stored frame of all runs: how often each formula, and whether mass balances."""
    from collections import Counter

    from mlipkit.strategies.ipip.reaction import clusters
    from mlipkit.strategies.ipip.sampling import _frames

    formulas: Counter[str] = Counter()
    frames = balanced = 0
    numbers = []
    for index in range(n_runs):
        place = folder if n_runs == 1 else folder / f"replica_{index:03d}"
        found, _ = _frames(place / "trajectory.traj", before=None, every=1)
        for k in range(len(found)):
            one = clusters(found, k, element)
            frames, balanced = frames + 1, balanced + one.balanced
            formulas.update(one.tracked)
            numbers.append(len(one.tracked))
    return {
        "element": element, "frames": frames, "balanced": balanced, "formulas": dict(formulas.most_common()),
        "mean_clusters": sum(numbers) / frames if frames else None,
    }  # fmt: skip
