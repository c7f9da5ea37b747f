"""Measurements of `what_applies` that came to their end, kept on disk: what loads slowly is known the next time.

A figure is given again only for the same thing, versions and machine, and for a frame of the same atoms, as dense.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit.errors import MlipkitError
from mlipkit.runs.folder import read_json

if TYPE_CHECKING:
    from ase import Atoms

PACKAGES = ("mlipkit", "torch", "numba", "sevenn", "chgnet", "so3krates-torch", "mace-torch", "tblite", "pyscf")
FORMAT = "mlipkit-probe-1"


def keep(key: str, figures: Mapping[str, Any]) -> None:
    """Remember figures; a disk that is full or not to be written to is no error."""
    from mlipkit.data.whole import write_whole

    record = {"format": FORMAT, "date": date.today().isoformat(), "figures": dict(figures)}
    try:
        path = _place(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(record).encode())
    except (OSError, MlipkitError, ImportError):
        return


def find(key: str) -> tuple[dict[str, Any], str] | None:
    """(figures, day on which they were measured), or None."""
    try:
        record = read_json(_place(key))
    except (OSError, MlipkitError, ImportError):
        return None
    if record.get("format") != FORMAT or not isinstance(record.get("figures"), dict):
        return None
    return record["figures"], str(record.get("date", ""))


def key_of(what: str, place: str, base: Path, atoms: Atoms) -> str:
    """What a measurement depends on, as text.

    Args:
        what: "potential" or "label". place: of the potential or label maker. base: folder that it is meant against.
        atoms: the frame that is measured on.
    """
    record = {
        "what": what, "place": place, "files": _stamps(place, base), "atoms": atoms.get_chemical_formula(),
        "pbc": atoms.pbc.tolist(), "density": _density(atoms), "machine": _machine(), "packages": _versions(),
    }  # fmt: skip
    return json.dumps(record, sort_keys=True)


def _place(key: str) -> Path:
    from mlipkit.data.public import cache_folder

    return cache_folder() / "probes" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def _density(atoms: Atoms) -> str:
    """Atoms per Å³ to two digits; pairs within the cutoff, and with them the cost, go with it."""
    return f"{len(atoms) / atoms.get_volume():.2g}" if atoms.pbc.all() and atoms.cell.rank == 3 else ""


def _stamps(place: str, base: Path) -> list[list[Any]]:
    """Size and time of the files that a place names: another file is another potential."""
    path = base / place.partition("@")[0].partition(":")[0]
    files = [path] if path.is_file() else sorted((path / "checkpoints").glob("*.safetensors")) if path.is_dir() else []
    return [[one.name, one.stat().st_size, one.stat().st_mtime_ns] for one in files]


@cache
def _machine() -> list[Any]:
    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:  # not Linux
        pass
    return [platform.node(), platform.machine(), model, os.cpu_count()]


@cache
def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
