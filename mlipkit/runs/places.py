"""How a specification names what a run reads, as text.

========================  =============================================================================
text                      meaning
========================  =============================================================================
``sample:ethanol_300K``   data or potential that comes with the package (``@0``: frame 0, ``@:100``: a slice)
``public:md17_ethanol``   a public data set
``train.xyz@-1``          a file, here its last frame
``runs/train``            another run: its best potential, or the frames of its trajectory
``file.py:make``          a function without arguments in a file; also ``package.module:make``
========================  =============================================================================

Relative paths are meant against the folder in which the run was launched.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path

from mlipkit.errors import SpecError, nearest

FACTORY = re.compile(r"^(?P<home>[^:]+\.py|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)$")
PREFIXES = ("sample", "public")


def split_place(text: str) -> tuple[str, str]:
    """``("train.xyz", "-1")`` from ``"train.xyz@-1"``; the index is "" when there is none."""
    head, at, tail = text.rpartition("@")
    if at and re.fullmatch(r"-?\d*(:-?\d*){0,2}", tail) and tail:
        return head, tail
    return text, ""


def factory_of(text: str) -> tuple[str, str] | None:
    """``("file.py", "make")`` when the text names a factory, else None."""
    match = FACTORY.match(text)
    if match is None or match["home"] in PREFIXES:
        return None
    return match["home"], match["name"]


def load_factory(text: str, base: Path | None = None):
    """Import the function that ``file.py:make`` or ``package.module:make`` names.

    Args:
        base: folder against which a relative file is meant; the current one when omitted.

    Raises:
        SpecError: no such file, module or function.
    """
    found = factory_of(text)
    if found is None:
        raise SpecError("names no factory", where=text, expected="'file.py:make' or 'package.module:make'")
    home, name = found
    if home.endswith(".py"):
        path = (base or Path.cwd()) / Path(home).expanduser()
        if not path.is_file():
            raise SpecError("no such file", where=(text, str(path)))
        module_spec = importlib.util.spec_from_file_location(f"mlipkit_factory_{path.stem}", path)
        assert module_spec is not None
        assert module_spec.loader is not None
        module = importlib.util.module_from_spec(module_spec)
        # Classes defined in the file look their module up here.
        sys.modules[module_spec.name] = module
        module_spec.loader.exec_module(module)
    else:
        try:
            module = importlib.import_module(home)
        except ModuleNotFoundError as error:
            raise SpecError(f"cannot be imported: {error}", where=text) from None
    make = getattr(module, name, None)
    if not callable(make):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise SpecError(f"{home} has no function '{name}'", where=text, hint=nearest(name, names))
    return make


def absolute(text: str, base: Path) -> Path | None:
    """Path of the file or folder a place names (of the file of a factory), or None when it names none."""
    factory = factory_of(text)
    if factory is not None:
        return (base / Path(factory[0]).expanduser()).resolve() if factory[0].endswith(".py") else None
    if text.partition(":")[0] in PREFIXES:
        return None
    return (base / Path(split_place(text)[0]).expanduser()).resolve()


def run_of(text: str, base: Path) -> Path | None:
    """Folder of the run whose output a place names, or None when it names something else."""
    if factory_of(text) is not None:
        return None
    path = absolute(text, base)
    return path if path is not None and (path / "spec.yaml").is_file() else None
