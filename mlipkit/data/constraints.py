"""Constraints of ASE structures: a FrameSet has none, and what was meant to stand must not move in silence."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ase import Atoms

from mlipkit.data.reading import open_bytes
from mlipkit.errors import DataError

_WITHOUT = {"npz", "deepmd", "frameset"}
_READ_AS = {"outcar": "vasp-out", "vasprun": "vasp-xml"}


def refuse_constraints(images: Iterable[Atoms], where: str) -> None:
    """Raise `DataError` for the first structure with constraints."""
    for atoms in images:
        if atoms.constraints:
            kinds = ", ".join(sorted({type(constraint).__name__ for constraint in atoms.constraints}))
            raise DataError(
                "constraints are not supported: every atom would move", where=where, found=kinds,
                hint="Remove them: del atoms.constraints.",
            )  # fmt: skip


def refuse_constraints_in(path: str) -> None:
    """The same for the frames of a path with an optional ``@index``, as ASE reads them.

    Raises:
        DataError: a frame with constraints.
    """
    # ASE's readers are 45 MiB of modules, which a simulation that has its structure never needs.
    from mlipkit.data import format_ase
    from mlipkit.data.files import detect, expand

    for file, index in expand(path, slice(None)):
        kind = detect(file)
        if kind in _WITHOUT or (kind == "extxyz" and not _has_mask(file)):
            continue
        refuse_constraints(format_ase.frames(file, _READ_AS.get(kind, kind), index), str(path))


def _has_mask(file: Path) -> bool:
    """Whether a frame of an extended XYZ file says which atoms may move."""
    with open_bytes(file) as stream:
        return any(b"move_mask" in line for line in stream)
