"""`mlipkit lab`: put the notebooks into a folder of the user's, register the kernel, open JupyterLab.

Notebooks are never overwritten. What was delivered is remembered in a small file beside them, so that a notebook of a
newer mlipkit lands beside a changed one only when the delivered notebook itself is new.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from mlipkit import __version__
from mlipkit.errors import MissingPackageError, MlipkitError

KERNEL = "mlipkit"
START = "00_start_here.ipynb"
DELIVERED = ".mlipkit-delivered.json"


@dataclass(frozen=True)
class Copied:
    """What happened to one notebook. `path` is the file that holds the delivered content, or the user's kept one."""

    name: str
    path: Path
    what: Literal["new", "unchanged", "kept", "beside"]

    @property
    def sentence(self) -> str:
        """For the user; "" when there is nothing to say."""
        if self.what == "beside":
            return f"{self.name} has changes of yours and was kept; the new version is {self.path.name}"
        return ""


def shipped() -> dict[str, bytes]:
    """Notebooks inside the installed package: file name -> content.

    Raises:
        MlipkitError: the installation lacks them.
    """
    try:
        root = resources.files("mlipkit_notebooks")
    except ModuleNotFoundError:
        root = None
    found = {item.name: item.read_bytes() for item in root.iterdir() if item.name.endswith(".ipynb")} if root else {}
    if START not in found:
        raise MlipkitError(f"this installation holds no {START}", hint="Install mlipkit again")
    return dict(sorted(found.items()))


def copy_notebooks(folder: Path, notebooks: dict[str, bytes]) -> list[Copied]:
    """Copy notebooks into a folder without ever overwriting a file.

    Raises:
        MlipkitError: the folder cannot be made or written.
    """
    record, result = folder / DELIVERED, []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        delivered = _delivered(record)
        for name, content in notebooks.items():
            digest = hashlib.sha256(content).hexdigest()
            result.append(_copy(folder, name, content, known=delivered.get(name) == digest))
            delivered[name] = digest
        record.write_text(json.dumps(delivered, indent=1))
    except OSError as error:
        raise MlipkitError(
            f"notebooks cannot be kept here ({error.strerror})", where=str(folder), hint="Name another folder"
        ) from None
    return result


def _delivered(record: Path) -> dict[str, str]:
    """Name -> hash of what was delivered before; an unreadable record only means a notebook laid beside once more."""
    try:
        known = json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _copy(folder: Path, name: str, content: bytes, known: bool) -> Copied:
    path = folder / name
    if _create(path, content):
        return Copied(name, path, "new")
    if path.read_bytes() == content:
        return Copied(name, path, "unchanged")
    if known:
        return Copied(name, path, "kept")
    number = 1
    while True:
        suffix = "" if number == 1 else f"-{number}"
        beside = path.with_name(f"{path.stem}.{__version__}{suffix}{path.suffix}")
        if _create(beside, content) or beside.read_bytes() == content:
            return Copied(name, beside, "beside")
        number += 1


def _create(path: Path, content: bytes) -> bool:
    """Write a file that does not exist yet; False when it does."""
    try:
        with open(path, "xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def register_kernel() -> Path:
    """Write the kernel 'mlipkit' that runs this Python; its folder.

    It goes into this Python's own environment, where its JupyterLab looks first; where that cannot be written, into the
    user's Jupyter folder.

    Raises:
        MissingPackageError: no ipykernel here.
    """
    if find_spec("ipykernel") is None:
        raise MissingPackageError("the notebook kernel needs ipykernel", hint='pip install "mlipkit[lab]"')
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": f"mlipkit {__version__}",
        "language": "python",
        "metadata": {"debugger": True},
    }
    problem: OSError | None = None
    for share in (Path(sys.prefix) / "share" / "jupyter", _user_jupyter()):
        folder = share / "kernels" / KERNEL
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "kernel.json").write_text(json.dumps(spec, indent=1))
        except OSError as error:
            problem = error
            continue
        return folder
    raise MlipkitError(f"cannot write the kernel '{KERNEL}': {problem}")


def lab_command(folder: Path, arguments: list[str] | None = None) -> list[str]:
    """Command line that opens JupyterLab on the start notebook; it asks no server outside this machine for anything.

    Raises:
        MissingPackageError: no JupyterLab here.
    """
    if find_spec("jupyterlab") is None:
        raise MissingPackageError("opening the notebooks needs jupyterlab", hint='pip install "mlipkit[lab]"')
    command = [
        sys.executable, "-m", "jupyterlab", str(folder / START), f"--ServerApp.root_dir={folder}",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    if hasattr(os, "getuid") and os.getuid() == 0:
        command.append("--ServerApp.allow_root=True")
    return [*command, *(arguments or [])]


def _user_jupyter() -> Path:
    if os.environ.get("JUPYTER_DATA_DIR"):
        return Path(os.environ["JUPYTER_DATA_DIR"])
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Jupyter"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "jupyter"
