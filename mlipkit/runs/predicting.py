"""Labels that a potential, named as in a specification, gives for frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlipkit.data import FrameSet
from mlipkit.errors import SpecError
from mlipkit.runs.building_forces import device_of, source_of
from mlipkit.runs.places import factory_of, load_factory


def predict_with(text: str, frames: FrameSet, base: Path, device: str = "auto", batch_size: int = 64) -> FrameSet:
    """The same frames with predicted labels in place of theirs; stress where all frames are periodic.

    Args:
        text: run, sample, file, universal potential, or factory of a potential or of an ASE calculator.
        base: folder that relative paths are meant against.

    Raises:
        SpecError: no such potential or device. ModelError: an element outside its domain.
    """
    from mlipkit.models import BasePotential, load, predict

    made: Any = load_factory(text, base)() if factory_of(text) is not None else load(source_of(text, base))
    # What is not predicted must not look as if it were: labels of the frames go first.
    n, n_atoms = len(frames), int(frames.offsets[-1])
    bare = frames.without_labels()
    stress = bool(np.asarray(frames.pbc).all())
    if isinstance(made, BasePotential):
        return predict(made.to(device_of(device)), bare, batch_size, stress=stress)
    if not hasattr(made, "get_property"):
        raise SpecError(
            "the factory gives no calculator", where=("potential", text),
            expected="an ASE calculator or a Potential", found=type(made).__name__,
        )  # fmt: skip
    energy, forces, tensors = np.empty(n), np.empty((n_atoms, 3)), np.full((n, 3, 3), np.nan)
    for i, atoms in enumerate(bare):
        atoms.calc = made
        energy[i] = atoms.get_potential_energy()
        forces[frames.offsets[i] : frames.offsets[i + 1]] = atoms.get_forces()
        if stress and "stress" in made.implemented_properties:
            tensors[i] = atoms.get_stress(voigt=False)
    return bare.with_labels(energy=energy, forces=forces, stress=tensors)
