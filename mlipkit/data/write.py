"""Writing extended XYZ and ASE trajectories so that reading gives back every bit.

Floats are written with as many digits as it takes to get the same float64 back. Labels go under ASE's own names, so
that other programs find them; what ASE has no exact place for is written beside:

- velocities in Å/fs (``velocities``) next to ASE's ``momenta``;
- ``source``, ``tag``, ``time_fs``, ``trajectory`` (-1 = none) and ``uid`` of the frame table.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase.data import atomic_masses, chemical_symbols

from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError, LabelError, nearest
from mlipkit.units import velocities_to_ase

_SUFFIXES = {".extxyz": "extxyz", ".xyz": "extxyz", ".traj": "traj"}
_PACKERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BARE = re.compile(r"[A-Za-z0-9_./@+:-]+")


def write(path: str | Path, frames: FrameSet, format: str | None = None) -> Path:
    """Write frames to a file; it appears whole or not at all.

    Args:
        path: ``.extxyz`` or ``.xyz`` (also with ``.gz``, ``.bz2``, ``.xz``) or ``.traj``.
        format: "extxyz" or "traj", where the name does not say it.

    Raises:
        DataError: no frames, an unknown format, or a folder that is not there.
        LabelError: forces or velocities on some atoms of a frame only: no format can say that.
    """
    path = Path(path)
    packer = _PACKERS.get(path.suffix)
    plain = path.with_suffix("") if packer else path
    chosen = format or _SUFFIXES.get(plain.suffix)
    if chosen not in ("extxyz", "traj"):
        raise DataError(
            f"cannot write the format '{chosen or plain.suffix or 'none'}'",
            where=path.name,
            hint=f"{nearest(str(chosen or plain.suffix), ('extxyz', 'traj'))}; frames.save(folder) keeps a whole set",
        )
    if not len(frames):
        raise DataError("no frames to write", where=path.name)
    if not path.parent.is_dir():
        raise DataError(f"there is no folder '{path.parent}'", where=path.name)
    if chosen == "traj" and packer:
        raise DataError("an ASE trajectory is never compressed", where=path.name, hint="Write .traj or .extxyz.gz")
    _check_complete(frames, path.name)
    with _atomic(path) as draft:
        if chosen == "traj":
            _write_traj(draft, frames)
        else:
            opened: IO[bytes] = packer(draft, "wb") if packer else draft.open("wb")
            with io.TextIOWrapper(opened, encoding="utf-8", newline="\n") as stream:
                for i in range(len(frames)):
                    stream.write(_extxyz(frames.frame(i)))
    return path


@contextmanager
def _atomic(path: Path) -> Iterator[Path]:
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield draft
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _check_complete(frames: FrameSet, name: str) -> None:
    for label in ("forces", "velocities", "stress"):
        values = getattr(frames, label)
        if values is None or not len(values):
            continue
        finite = np.isfinite(values.reshape(len(values), -1))
        if label != "stress":
            some = np.logical_or.reduceat(finite.any(1), frames.offsets[:-1])
            every = np.logical_and.reduceat(finite.all(1), frames.offsets[:-1])
        else:
            some, every = finite.any(1), finite.all(1)
        if (some & ~every).any():
            frame = int(np.argmax(some & ~every))
            raise LabelError(
                f"{label} is there for a part of the frame only",
                where=(name, f"frame {frame}", label),
                hint=f"Drop it with frames.with_labels({label}=float('nan')), or fill the gaps",
            )


def _extxyz(frame: dict[str, Any]) -> str:
    """One frame as text. The format wants matrices in Fortran order; ``Lattice`` holds the transposed cell."""
    numbers, cell, pbc = frame["numbers"], frame["cell"], frame["pbc"]
    columns = [frame["positions"]]
    properties = "species:S:1:pos:R:3"
    velocities = frame["velocities"]
    if velocities is not None and np.isfinite(velocities).all():
        momenta = velocities_to_ase(velocities) * atomic_masses[numbers][:, None]
        columns += [velocities, momenta]
        properties += ":velocities:R:3:momenta:R:3"
    if np.isfinite(frame["forces"]).all():
        columns.append(frame["forces"])
        properties += ":forces:R:3"
    pairs = [f'Lattice="{_numbers(cell.reshape(-1))}"'] if cell.any() else []
    pairs.append(f"Properties={properties}")
    if np.isfinite(frame["energy"]):
        pairs.append(f"energy={float(frame['energy'])!r}")
    if np.isfinite(frame["stress"]).all():
        pairs.append(f'stress="{_numbers(frame["stress"].reshape(-1, order="F"))}"')
    pairs.append(f'pbc="{" ".join("T" if axis else "F" for axis in pbc)}"')
    pairs.append(f"source={_text(frame['source'])}")
    if frame["tag"]:
        pairs.append(f"tag={_text(frame['tag'])}")
    if np.isfinite(frame["time"]):
        pairs.append(f"time_fs={float(frame['time'])!r}")
    pairs.append(f"trajectory={int(frame['trajectory'])}")
    pairs.append(f"uid={frame['uid']}")
    rows = np.concatenate(columns, axis=1).tolist()
    lines = [str(len(numbers)), " ".join(pairs)]
    lines.extend(
        f"{chemical_symbols[z]} {' '.join(map(repr, row))}" for z, row in zip(numbers.tolist(), rows, strict=True)
    )
    return "\n".join(lines) + "\n"


def _numbers(values: np.ndarray) -> str:
    return " ".join(map(repr, values.tolist()))


def _text(value: str) -> str:
    if _BARE.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\r", " ").replace("\n", "\\n")
    return f'"{escaped}"'


def _write_traj(path: Path, frames: FrameSet) -> None:
    from ase.io.trajectory import TrajectoryWriter

    with TrajectoryWriter(str(path)) as writer:
        for i, atoms in enumerate(frames):
            frame = frames.frame(i)
            atoms.info["trajectory"] = int(frame["trajectory"])
            velocities = frame["velocities"]
            if velocities is not None and np.isfinite(velocities).all():
                # Momenta alone would lose the last bit.
                atoms.info["velocities"] = np.array(velocities)
            stress = frame["stress"]
            if atoms.calc is not None and np.isfinite(stress).all() and not np.array_equal(stress, stress.T):
                atoms.calc.results["stress"] = np.array(stress)
            writer.write(atoms)
