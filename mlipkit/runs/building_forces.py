"""Potentials and calculators that a specification names, on their device and in their precision."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mlipkit.errors import SpecError
from mlipkit.events import EventSink, Message, ignore
from mlipkit.runs.places import absolute, factory_of, load_factory, universal_of
from mlipkit.runs.spec import MDSpec, RelaxSpec

if TYPE_CHECKING:
    from ase import Atoms

    from mlipkit.md.forces import ForceFunction, PotentialForces
    from mlipkit.models import BasePotential

SKIN = 0.5


def build_forces(
    spec: MDSpec | RelaxSpec, base: Path, folder: Path | None = None, sink: EventSink = ignore
) -> ForceFunction:
    """Force provider of a specification: a trained potential or a calculator from a factory.

    Args:
        folder: of the run, where a potential that adapts keeps its series; None: it keeps none.
        sink: told what a potential that adapts found out by itself.
    """
    from mlipkit.md.forces import CalculatorForces
    from mlipkit.models import BasePotential, load

    stress = spec.cell if isinstance(spec, RelaxSpec) else spec.ensemble == "npt"
    if factory_of(spec.potential) is not None:
        made: Any = load_factory(spec.potential, base)()
        if isinstance(made, BasePotential):
            return _forces(_placed(made, spec), spec, stress, base, folder, sink)
        if isinstance(spec, MDSpec) and spec.adaptation.strategy != "none":
            raise SpecError("only a trained potential with self-supervised tasks adapts", where="adaptation",
                            found=spec.potential)  # fmt: skip
        if not hasattr(made, "get_property"):
            raise SpecError(
                "the factory gives no calculator", where=("potential", spec.potential),
                expected="an ASE calculator or a Potential", found=type(made).__name__,
            )  # fmt: skip
        return CalculatorForces(made, stress=stress)
    return _forces(_placed(load(source_of(spec.potential, base)), spec), spec, stress, base, folder, sink)


def _forces(
    potential: BasePotential, spec: MDSpec | RelaxSpec, stress: bool, base: Path, folder: Path | None, sink: EventSink
) -> PotentialForces:
    from mlipkit.md.forces import PotentialForces

    if isinstance(spec, RelaxSpec) or spec.adaptation.strategy == "none":
        return PotentialForces(potential, skin=SKIN, stress=stress)
    from mlipkit.models import Potential
    from mlipkit.runs.building_adaptation import adaptation_of
    from mlipkit.strategies.taip import AdaptedForces, heads_of

    heads_of(potential, spec.potential)
    assert isinstance(potential, Potential)
    return AdaptedForces(
        potential, adaptation_of(spec, potential, base, folder, sink),
        skin=SKIN, stress=stress,
        folders=None if folder is None else [folder / row["folder"] for row in spec.table()],
    )  # fmt: skip


def check_starts(forces: ForceFunction, starts: Iterable[tuple[str, Atoms]]) -> None:
    """Raise `ModelError` naming the first start with an element that the potential does not know."""
    from mlipkit.md.forces import PotentialForces

    known = set[int]()
    for place, atoms in starts:
        found = set(atoms.numbers.tolist())
        if isinstance(forces, PotentialForces) and not found <= known:
            forces.potential.check_elements(sorted(found), place)
            known |= found


def source_of(text: str, base: Path) -> str | Path:
    """What `mlipkit.models.load` takes for a potential named in a specification."""
    path, universal = absolute(text, base), universal_of(text)
    if path is None:
        return text
    return path if universal is None else f"universal:{universal[0]}:{path}"


def _placed(potential: BasePotential, spec: MDSpec | RelaxSpec) -> BasePotential:
    from mlipkit.models import UniversalPotential

    device = device_of(spec.device)
    potential, wanted = potential.to(device), getattr(torch, spec.dtype)
    # Also as a part of a sum or a committee.
    if any(isinstance(part, UniversalPotential) and wanted not in part.PRECISIONS for part in potential.modules()):
        return potential
    return potential.double() if spec.dtype == "float64" else potential.float()


def device_of(name: str) -> str:
    """ "auto" as the best device here; others are checked.

    Raises:
        SpecError: no such device on this machine.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise SpecError("no such device here", where="device", found=name, hint=str(error).splitlines()[0]) from None
    return name


def say_precision(spec: MDSpec | RelaxSpec, forces: ForceFunction, sink: EventSink) -> None:
    """Say when a potential does not compute in the precision that was asked for."""
    from mlipkit.models import BasePotential

    potential = getattr(forces, "potential", None)
    if potential is None:
        return
    parts = (part for part in potential.modules() if isinstance(part, BasePotential))
    used = {str(part.dtype).removeprefix("torch.") for part in parts}
    if others := sorted(used - {spec.dtype}):
        partly = "partly " if spec.dtype in used else ""
        sink(Message(f"{spec.potential} computes {partly}in {', '.join(others)}, not in {spec.dtype}"))
