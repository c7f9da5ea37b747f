"""A folder of calculations: which frames are in it, under which names, made from which template.

jobs.json             the manifest: code, template and its hash, what its inputs ask for, jobs by folder and uid
frames/               the structures bit for bit, with their uids (`FrameSet.open`)
0001_5f3a9c21/        a job: the user's files, the structure, and mlipkit_job.json (uid, order of the atoms)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from mlipkit.data.frameset import FrameSet
from mlipkit.data.jobs.vasp_input import Settings
from mlipkit.errors import DataError

MANIFEST: Final = "jobs.json"
JOB: Final = "mlipkit_job.json"
FRAMES: Final = "frames"
FORMAT: Final = "mlipkit-jobs"
JOB_FORMAT: Final = "mlipkit-job"
VERSION: Final = 1


@dataclass(frozen=True)
class Manifest:
    """What a folder of calculations holds.

    Attributes:
        code: "vasp" or "cp2k".
        template: name of the template folder, for people.
        hash: of all its files.
        expected: settings that its inputs ask for in so many words.
        species: order of elements in the POSCAR; empty for CP2K.
        box: Å, edges of the box that molecules without a cell are put in; empty for none.
        jobs: folder -> uid, in the order of export.
    """

    code: str
    template: str
    hash: str
    expected: Settings = field(default_factory=dict)
    species: tuple[str, ...] = ()
    box: tuple[float, ...] = ()
    jobs: dict[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The file's content."""
        record = {
            "format": FORMAT, "version": VERSION, "code": self.code,
            "template": {"name": self.template, "hash": self.hash}, "expected": self.expected,
            "species": list(self.species), "box": list(self.box),
            "jobs": [{"folder": f, "uid": u} for f, u in self.jobs.items()],
        }  # fmt: skip
        return (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where there is none.

    Raises:
        DataError: it cannot be read, is of another kind, or was written by a newer version.
    """
    path = folder / MANIFEST
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from None
    _check_format(record, FORMAT, path)
    try:
        return Manifest(
            str(record["code"]), str(record["template"]["name"]), str(record["template"]["hash"]),
            dict(record["expected"]), tuple(record["species"]), tuple(map(float, record["box"])),
            {str(job["folder"]): str(job["uid"]) for job in record["jobs"]},
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"is damaged ({error!r})", where=str(path)) from None


def exported_frames(folder: Path) -> FrameSet:
    """Structures of a folder of calculations, without labels.

    Raises:
        DataError: they are not there, or damaged.
    """
    return FrameSet.open(folder / FRAMES, mmap=False)


def boxed(frame: dict[str, Any], box: tuple[float, ...]) -> dict[str, Any]:
    """A frame as it is computed: without any cell in the middle of the box, else as it is. The frame itself stays."""
    if not box or np.asarray(frame["cell"]).any():
        return frame
    positions = np.asarray(frame["positions"])
    middle = (positions.min(0) + positions.max(0)) / 2
    return {**frame, "cell": np.diag(box), "positions": positions - middle + np.array(box) / 2}


def job_record(frame: Mapping[str, Any], manifest: Manifest, order: np.ndarray) -> bytes:
    """Content of `mlipkit_job.json` for a frame."""
    record = {
        "format": JOB_FORMAT, "version": VERSION, "uid": frame["uid"], "code": manifest.code,
        "template": manifest.hash, "atoms": len(order), "permutation": order.tolist(),
        "permutation_means": "atom k of the input is atom permutation[k] of the frame, from 0",
    }  # fmt: skip
    return (json.dumps(record, indent=None, ensure_ascii=False) + "\n").encode()


def read_order(path: Path, uid: str, manifest: Manifest, n_atoms: int) -> np.ndarray:
    """int64 [n] of a job: atom k of its input is atom ``order[k]`` of the frame.

    Raises:
        DataError: no record, that of another frame or template, or no permutation.
    """
    try:
        record = json.loads((path / JOB).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("is not there", where=JOB, hint="Atoms cannot be put in order without it") from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", where=JOB) from None
    _check_format(record, JOB_FORMAT, Path(JOB))
    for name, expected in (("uid", uid), ("template", manifest.hash), ("atoms", n_atoms)):
        if record.get(name) != expected:
            raise DataError("belongs to another job", where=(JOB, name), expected=expected, found=record.get(name))
    order = np.asarray(record.get("permutation"))
    if order.shape != (n_atoms,) or not np.array_equal(np.sort(order), np.arange(n_atoms)):
        raise DataError("is no permutation of the atoms", where=(JOB, "permutation"))
    return order.astype(np.int64)


def _check_format(record: Any, expected: str, path: Path) -> None:
    name = (record.get("format"), record.get("version")) if isinstance(record, dict) else None
    if name != (expected, VERSION):
        raise DataError("unknown format", where=str(path), expected=f"{expected} version {VERSION}",
                        found=" version ".join(map(str, name)) if name else type(record).__name__)  # fmt: skip


def hash_of(files: Mapping[str, Path]) -> str:
    """SHA-256 over names and contents, in the order of the names."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(name.encode() + b"\0" + hashlib.sha256(files[name].read_bytes()).digest())
    return whole.hexdigest()
