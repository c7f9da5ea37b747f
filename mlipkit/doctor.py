"""`mlipkit doctor`: is this installation fit to work? One line per item: ok, a note, or what to do."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from mlipkit import machine
from mlipkit.errors import torch_is_there
from mlipkit.runs.hub import hub_warning
from mlipkit.runs.queue import cores

MIN_PYTHON = (3, 11)
MIN_FREE_GB = 2.0
EXTRAS = ("compute", "view", "lab")
"""Whose packages are looked for; the others bring single abilities."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Item:
    """One finding. `fix`: it must be repaired; `note`: only something optional is missing."""

    name: str
    state: Literal["ok", "note", "fix"]
    found: str
    cure: str = ""

    @property
    def line(self) -> str:
        """The finding as one line."""
        return f"{self.state:<5} {self.name}: {self.found}" + (f". {self.cure}" if self.cure else "")


def examine(folder: Path) -> list[Item]:
    """All findings; `folder` is where runs shall be written. A check that itself breaks is a finding too."""
    items: list[Item] = []
    for check in CHECKS:
        try:
            items += check(folder)
        except Exception as error:
            items.append(Item(check.__name__.strip("_"), "fix", f"{type(error).__name__}: {error}"))
    return items


def _python(_: Path) -> Iterator[Item]:
    found = f"{platform.python_version()} at {sys.executable}"
    good = sys.version_info >= MIN_PYTHON
    yield Item("Python", "ok" if good else "fix", found, "" if good else "Install Python 3.11 or newer")


def _packages(_: Path) -> Iterator[Item]:
    from packaging.requirements import Requirement

    for text in metadata.requires("mlipkit") or []:
        requirement = Requirement(text)
        marker, name = requirement.marker, requirement.name
        optional = marker is not None and not marker.evaluate({"extra": ""})
        extras = [one for one in EXTRAS if marker is not None and marker.evaluate({"extra": one})]
        if name == "mlipkit" or (optional and not extras):  # an extra that names others
            continue
        extra = f"[{extras[0]}]" if optional else ""
        cure = f'pip install --upgrade "mlipkit{extra}"'
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Item(name, "note" if optional else "fix", "not installed", cure)
            continue
        good = requirement.specifier.contains(version, prereleases=True)
        found = version if good else f"{version}, needed {requirement.specifier}"
        yield Item(name, "ok" if good else "fix", found, "" if good else cure)


def _torch(_: Path) -> Iterator[Item]:
    if not torch_is_there():
        yield Item("computing", "note", "no torch: runs and views open, nothing is computed",
                   'pip install "mlipkit[compute]"')  # fmt: skip
        return
    import torch

    yield Item("computing", "ok", f"torch {torch.__version__} on {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        yield Item("GPU", "ok", f"{torch.cuda.get_device_name(0)} (CUDA {torch.version.cuda})")
    elif torch.backends.mps.is_available():
        yield Item("GPU", "note", "an Apple GPU, which has no float64: runs use the CPU")
    else:
        yield Item("GPU", "note", "none found, runs use the CPU")


def _threads(_: Path) -> Iterator[Item]:
    limit = os.environ.get("OMP_NUM_THREADS")
    quota, memory = machine.cpu_limit(), machine.memory_limit()
    limit_of = f", of {quota:g} CPUs that the control group allows" if quota is not None else ""
    yield Item("threads", "ok", f"runs share {cores()} cores{limit_of} (MLIPKIT_CORES changes that)")
    free = f"{machine.memory_available() / 1e9:.1f} GB free"
    yield Item("memory", "ok", free + (f" of {memory / 1e9:.1f} GB that the control group allows" if memory else ""))
    if hub_warning():
        yield Item("JupyterHub", "note", hub_warning())
    if limit is not None and not (limit.isdigit() and int(limit) >= 1):
        yield Item("OMP_NUM_THREADS", "fix", f"'{limit}' is no number", "unset OMP_NUM_THREADS")


def _nglview(_: Path) -> Iterator[Item]:
    """nglview's Python asks the browser for a front-end version; its wheel may ship another (issues 1172, 1181)."""
    spec = find_spec("nglview")
    if spec is None or spec.origin is None:
        yield Item("nglview front end", "note", "nglview is not installed", 'pip install "mlipkit[lab]"')
        return
    package = Path(sys.prefix) / "share/jupyter/labextensions/nglview-js-widgets/package.json"
    if not package.is_file():
        yield Item("nglview front end", "fix", f"no {package}", "pip install --force-reinstall nglview")
        return
    shipped = json.loads(package.read_text())["version"]
    asked = _front_end_asked(Path(spec.origin).parent / "_frontend.py")
    python = metadata.version("nglview")
    if asked is None or shipped == asked:
        yield Item("nglview front end", "ok", f"{shipped} with nglview {python}")
    elif find_spec("mlipkit_widgets") is not None:
        yield Item(
            "nglview front end",
            "ok",
            f"nglview {python} asks for {asked} and ships {shipped}; mlipkit_widgets bridges it",
        )
    else:
        yield Item(
            "nglview front end",
            "fix",
            f"nglview {python} asks for {asked}, ships {shipped}",
            'pip install "nglview==3.1.4"',
        )


def _front_end_asked(path: Path) -> str | None:
    if not path.is_file():
        return None
    match = re.search(r"__frontend_version__\s*=\s*['\"]([^'\"]+)", path.read_text())
    return match[1] if match else None


def _widgets(_: Path) -> Iterator[Item]:
    spec = find_spec("mlipkit_widgets")
    good = spec is not None and spec.origin is not None
    yield Item(
        "mlipkit_widgets",
        "ok" if good else "fix",
        "found" if good else "missing",
        "" if good else "Install mlipkit again",
    )


def _notebooks(_: Path) -> Iterator[Item]:
    from mlipkit import lab

    yield Item("notebooks", "ok", f"{len(lab.shipped())} in the package")
    kernel = Path(sys.prefix) / "share/jupyter/kernels" / lab.KERNEL / "kernel.json"
    if not kernel.is_file():
        yield Item("kernel", "note", f"'{lab.KERNEL}' is not registered yet", "mlipkit lab does it")
        return
    python = json.loads(kernel.read_text())["argv"][0]
    good = Path(python) == Path(sys.executable)
    yield Item(
        "kernel", "ok" if good else "fix", f"'{lab.KERNEL}' runs {python}", "" if good else "Run mlipkit lab once"
    )


def _samples(_: Path) -> Iterator[Item]:
    from mlipkit.data import samples

    yield Item("sample data", "ok", ", ".join(samples.names()))


def _universal(_: Path) -> Iterator[Item]:
    from mlipkit.runs.places import UNIVERSAL_FILES, UNIVERSAL_PACKAGES, installed_universal

    found = installed_universal()
    missing = sorted(set(UNIVERSAL_PACKAGES) - set(UNIVERSAL_FILES) - {name.partition(":")[2] for name in found})
    cure = f'Without {", ".join(missing)}: pip install "mlipkit[universal]"' if missing else ""
    yield Item("universal potentials", "note" if missing else "ok", ", ".join(found) or "none", cure)
    if find_spec("mace") is not None:
        yield Item("MACE", "ok", f"mace-torch {metadata.version('mace-torch')}, universal:mace:FILE")
    else:
        yield Item(
            "MACE", "note", "not here, as it needs an environment of its own",
            "Install mlipkit and mace-torch in another one and name its Python in the field python of a run",
        )  # fmt: skip


def _disk(folder: Path) -> Iterator[Item]:
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free / 1e9
    good = free >= MIN_FREE_GB
    yield Item(
        "disk", "ok" if good else "fix", f"{free:.1f} GB free at {place}", "" if good else f"Free {MIN_FREE_GB:g} GB"
    )


def _write_access(folder: Path) -> Iterator[Item]:
    places = {"folder for runs": folder, "temporary folder": Path(tempfile.gettempdir())}
    for name, wanted in places.items():
        place = next(parent for parent in (wanted, *wanted.parents) if parent.exists())
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            yield Item(name, "fix", f"cannot write to {place} ({error.strerror})", "Choose another folder")
        else:
            yield Item(name, "ok", f"can write to {place}")


def _chromium(_: Path) -> Iterator[Item]:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found:
        yield Item("Chromium", "ok", found)
    else:
        yield Item("Chromium", "note", "none; only the browser tests need it", "Debian: apt-get install chromium")


CHECKS: tuple[Callable[[Path], Iterator[Item]], ...] = (
    _python, _packages, _torch, _threads, _widgets, _nglview, _notebooks, _samples, _universal, _disk, _write_access,
    _chromium,
)  # fmt: skip
