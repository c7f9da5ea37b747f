"""An ASE trajectory that is appended to while others read it, and that a crash cannot spoil.

The file is ASE's own ULM format: `ase.io.read(path, ":")` opens it at any time, also while it grows. Each frame is
written behind the last one; the number of frames in the file's head is written last, so a frame cut short by a crash is
not counted. Frames hold positions, momenta, cell, energy, forces, stress, and in `info` the step and `time_fs`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import __version__ as ase_version
from ase.data import atomic_masses
from ase.io import ulm
from ase.io.jsonio import encode

from mlipkit import units
from mlipkit.errors import RunError
from mlipkit.md.state import voigt

_ITEMS_AT = 32  # bytes of an ULM head that hold the number of frames, and where the table of their places begins
_HEAD = b"- of Ulm" + b"ASE-Trajectory".ljust(16) + struct.pack("<4q", ulm.VERSION, 0, 48, -1)


class TrajectoryWriter:
    """Appends frames of one system to `path`.

    Args:
        path: the `.traj` file. A file that is there is replaced, unless `keep` says how many of its frames stay.
        numbers, masses, pbc: int [n], u [n], bool [3]; the same in every frame.
        keep: frames that stay of an existing file (as `truncate`).

    Raises:
        RunError: the existing file holds fewer frames than `keep`, or is no trajectory.
    """

    def __init__(
        self, path: Path | str, numbers: np.ndarray, masses: np.ndarray, pbc: np.ndarray, *, keep: int | None = None
    ) -> None:
        self.path = Path(path)
        self._numbers, self._masses = np.asarray(numbers), np.asarray(masses, dtype=float)
        self._pbc = [bool(axis) for axis in pbc]
        self._momentum_unit = self._masses[:, None] * units.ASE_TIME
        self._own_masses = not np.allclose(self._masses, atomic_masses[self._numbers], rtol=1e-12, atol=0)
        if keep is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        else:
            truncate(self.path, keep)
        # Unbuffered: a frame, its place in the table and the new count are one call of the operating system each.
        self._file = self.path.open("wb" if keep is None else "r+b", buffering=0)
        self._frames_at: list[int] = []
        self._table_at, self._room, self._end = 48, 1, 0
        self._on_disk = False
        if keep is not None:
            _, _, _, self._table_at, offsets = ulm.read_header(self._file)
            self._frames_at = offsets.tolist()
            while self._room < self.n_frames:
                self._room *= ulm.N1
            self._end = self._file.seek(0, os.SEEK_END)

    @property
    def n_frames(self) -> int:
        return len(self._frames_at)

    def append(
        self,
        positions: np.ndarray,
        velocities: np.ndarray,
        cell: np.ndarray,
        *,
        energy: float | None = None,
        forces: np.ndarray | None = None,
        stress: np.ndarray | None = None,
        info: Mapping[str, float] | None = None,
    ) -> None:
        """One frame: positions [n,3] Å, velocities [n,3] Å/fs, cell [3,3], energy eV, forces [n,3], stress [3,3]."""
        parts: list[Any] = [b"" if self._end else _HEAD]
        at = len(_HEAD) if not self._end else self._end
        if at % 8:
            parts.append(b"#" * (-at % 8))
            at += -at % 8

        def place(values: np.ndarray, kind: str = "float64") -> dict[str, Any]:
            nonlocal at
            block = np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<"))
            parts.append(block.data)
            at += block.nbytes
            return {"ndarray": (block.shape, kind, at - block.nbytes)}

        frame: dict[str, Any] = {}
        if self.n_frames == 0:
            frame.update(version=1, ase_version=ase_version, pbc=self._pbc)
            frame["numbers."] = place(self._numbers, "int64")
            if self._own_masses:
                frame["masses."] = place(self._masses)
        frame["positions."] = place(positions)
        frame["cell"] = cell.tolist()
        frame["momenta."] = place(velocities * self._momentum_unit)
        if energy is not None:
            results = frame["calculator."] = {"name": "mlipkit", "energy": float(energy)}
            if forces is not None:
                results["forces."] = place(forces)
            if stress is not None:
                results["stress"] = voigt(stress).tolist()
        if info:
            frame["info"] = dict(info)
        text = encode(frame).encode()
        parts += [struct.pack("<q", len(text)), text]
        self._frames_at.append(at)
        self._write(parts, at + 8 + len(text))

    def _write(self, parts: list[Any], end: int) -> None:
        """The latest frame, which ends there, then where it is, then how many there are."""
        if self.n_frames > self._room:
            self._room *= ulm.N1
            parts.append(b"#" * (-end % 8))
            self._table_at = end + -end % 8
            parts.append(np.array(self._frames_at + [0] * (self._room - self.n_frames), "<i8").data)
            end = self._table_at + 8 * self._room
        self._put(b"".join(parts), self._end)
        self._end = end
        self._put(struct.pack("<q", self._frames_at[-1]), self._table_at + 8 * (self.n_frames - 1))
        self._put(struct.pack("<qq", self.n_frames, self._table_at), _ITEMS_AT)

    def _put(self, data: bytes, at: int) -> None:
        self._on_disk = False
        self._file.seek(at)
        written = self._file.write(data)
        while written < len(data):  # a disk that is full takes a part, and then raises
            written += self._file.write(data[written:])

    def flush(self) -> None:
        """Bring every frame to the disk itself: what a checkpoint counts must survive a power cut."""
        if not self._on_disk:
            os.fsync(self._file.fileno())
            self._on_disk = True

    def close(self) -> None:
        if not self._file.closed:
            if not self._end:
                self._put(_HEAD, 0)
            self._file.close()


def truncate(path: Path | str, n_frames: int) -> None:
    """Keep the first `n_frames` frames of a trajectory; later ones, and a frame cut short, are removed.

    Raises:
        RunError: fewer frames are there, or the file is no trajectory.
    """
    path = Path(path)
    try:
        with path.open("r+b") as file:
            _, _, n_items, table_at, offsets = ulm.read_header(file)
            if n_items < n_frames:
                raise RunError("the trajectory is shorter than its checkpoint says", where=str(path),
                               expected=f"{n_frames} frames", found=f"{n_items}")  # fmt: skip
            end = 48 + 8  # head and first offset table
            if n_frames:
                file.seek(int(offsets[n_frames - 1]))
                (size,) = struct.unpack("<q", file.read(8))
                end = int(offsets[n_frames - 1]) + 8 + size
            # The offset table in use may lie behind the last frame that stays (ASE moves it when it is full). Its first
            # entries are still right; it must keep the room that ASE expects for so many frames.
            room = 1
            while room < n_frames:
                room *= ulm.N1
            end = max(end, int(table_at) + 8 * room)
            # First the count, then the end of the file: in between the file is longer than needed, never shorter.
            file.seek(_ITEMS_AT)
            file.write(struct.pack("<q", n_frames))
            file.flush()
            file.truncate(end)
    except FileNotFoundError:
        raise RunError("the trajectory is missing", where=str(path), expected=f"{n_frames} frames") from None
    except (OSError, struct.error, ValueError, IndexError) as error:
        raise RunError(f"not a readable trajectory ({error})", where=str(path)) from None
