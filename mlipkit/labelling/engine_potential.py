"""Labels from a potential: a universal one or one of our own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlipkit.errors import ModelError
from mlipkit.labelling.protocol import LabelMakerError, Labels

if TYPE_CHECKING:
    from ase import Atoms

    from mlipkit.labelling.protocol import Recipe
    from mlipkit.models import BasePotential


class PotentialLabels:
    """A potential as a label maker.

    Args:
        potential: a `BasePotential`, or what `mlipkit.models.load` takes: "universal:so3lr", "sample:NAME", a file, the
            folder of a training run.
        device: cpu, cuda.
        dtype: precision; a potential that knows one only keeps that.
    """

    recipe: Recipe | None = None

    def __init__(
        self, potential: BasePotential | str, device: str = "cpu", dtype: Literal["float32", "float64"] = "float64"
    ) -> None:
        import torch

        from mlipkit import __version__
        from mlipkit.models import BasePotential, UniversalPotential, load

        self.source = potential if isinstance(potential, str) else type(potential).__name__
        loaded = load(potential) if isinstance(potential, str) else potential
        if not isinstance(loaded, BasePotential):
            raise ModelError("no potential", where="PotentialLabels", found=type(potential).__name__)
        loaded, wanted = loaded.to(device), getattr(torch, dtype)
        # Also as a part of a sum or a committee.
        if all(wanted in part.PRECISIONS for part in loaded.modules() if isinstance(part, UniversalPotential)):
            loaded = loaded.to(wanted)
        self.potential, self.device, self.version = loaded, device, __version__
        named = self.source if ":" in self.source else Path(self.source).name
        self.name = f"potential {named}"

    def describe(self) -> dict[str, Any]:
        domain = getattr(self.potential, "elements", None)
        return {
            "engine": "mlipkit", "version": self.version, "method": self.source, "level_of_theory": self.name,
            "settings": {"dtype": str(self.potential.dtype).removeprefix("torch."), "device": self.device},
            "elements": [int(z) for z in domain] if domain else None,
        }  # fmt: skip

    def label(self, atoms: Atoms) -> Labels:
        from mlipkit.data import FrameSet
        from mlipkit.models import predict

        bare = atoms.copy()
        bare.calc = None
        periodic = bool(atoms.pbc.all())
        try:
            frames = predict(self.potential, FrameSet.from_atoms([bare]), stress=periodic)
        except ModelError as error:
            raise LabelMakerError(str(error)) from None
        return Labels(float(frames.energy[0]), frames.forces.copy(), frames.stress[0].copy() if periodic else None)
