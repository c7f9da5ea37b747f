"""How a specification names what a run reads, as text.

========================  =============================================================================
text                      meaning
========================  =============================================================================
``sample:ethanol_300K``   data or potential that comes with the package (``@0``: frame 0, ``@:100``: a slice)
``public:md17_ethanol``   a public data set
``train.xyz@-1``          a file, here its last frame
``runs/train``            another run: its best potential, or the frames of its trajectory
``universal:so3lr``       a universal potential (`UNIVERSAL_PACKAGES`); ``universal:mace:FILE`` for a model file of MACE
``file.py:make``          a function without arguments in a file; also ``package.module:make``
========================  =============================================================================

Relative paths are meant against the folder in which the run was launched.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlipkit.errors import MissingPackageError, SpecError, nearest

FACTORY = re.compile(r"^(?P<home>[^:]+\.py|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)$")
PREFIXES = ("sample", "public", "universal")

UNIVERSAL_PACKAGES = {"so3lr": "so3krates_torch", "sevennet-0": "sevenn", "chgnet": "chgnet", "mace": "mace"}
"""Universal potentials and what each imports: known here without torch; a test compares with `mlipkit.models`."""
POTENTIAL_FIELDS = ("potential", "maker", "teacher")
"""Fields of a specification that take a potential."""
UNIVERSAL_FILES = ("mace",)
"""Universal potentials behind whose name a file follows."""


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


def universal_of(text: str) -> tuple[str, str] | None:
    """``("mace", "x.model")`` from ``"universal:mace:x.model"`` (no file: ""), None when it names something else."""
    prefix, _, rest = text.partition(":")
    name, _, file = rest.partition(":")
    return (name, file) if prefix == "universal" else None


def check_universal(text: str, field: str, base: Path, elsewhere: bool = False) -> Path | None:
    """Refuse a universal potential that cannot be there, without importing it; the file it is in, if it is in one.

    Args:
        elsewhere: another Python will compute, whose packages are not known here.

    Raises:
        SpecError: unknown name; a file missing, or given where none belongs; a field that takes no potential.
        MissingPackageError: its package is not installed.
    """
    found = universal_of(text)
    assert found is not None
    name, file = found
    if name not in UNIVERSAL_PACKAGES:
        raise SpecError("unknown universal potential", where=(field, text), hint=nearest(name, UNIVERSAL_PACKAGES))
    if field not in POTENTIAL_FIELDS:
        raise SpecError("a potential, where frames are wanted", where=(field, text))
    if (name in UNIVERSAL_FILES) != bool(file):
        form = f"universal:{name}:FILE" if name in UNIVERSAL_FILES else f"universal:{name}"
        raise SpecError("a file is missing" if not file else "takes no file", where=(field, text), expected=form)
    path = absolute(text, base)
    if path is not None and not path.is_file():
        raise SpecError("no such file", where=(field, text, str(path)))
    package = UNIVERSAL_PACKAGES[name]
    if not elsewhere and not _is_installed(package):
        raise MissingPackageError(
            f"needs the package '{package}', which is not installed", where=(field, text),
            hint="mace-torch needs an environment of its own: name its Python in the field python"
            if name == "mace" else 'Install it with: pip install "mlipkit[universal]"',
        )  # fmt: skip
    return path


def check_package(package: str, extra: str, where: tuple[str, ...]) -> None:
    """Refuse what needs a package that is not installed, without importing it.

    Raises:
        MissingPackageError: with the extra that brings it.
    """
    if not _is_installed(package):
        raise MissingPackageError(
            f"needs the package '{package}', which is not installed", where=where,
            hint=f'Install it with: pip install "mlipkit[{extra}]"',
        )  # fmt: skip


def installed_universal() -> list[str]:
    """Universal potentials that can be computed here as they are."""
    return [
        f"universal:{name}"
        for name, package in UNIVERSAL_PACKAGES.items()
        if name not in UNIVERSAL_FILES and _is_installed(package)
    ]


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


def check_factory(text: str, base: Path, field: str = "") -> None:
    """Refuse a factory that cannot be there, without running its code; the rest shows when it is called.

    Raises:
        SpecError: no such file or package, a file that is no Python or does not define the name.
    """
    found = factory_of(text)
    assert found is not None
    home, name = found
    if not home.endswith(".py"):
        package = home.partition(".")[0]
        # A worker also finds what lies in the folder of the launch.
        if not any(path.exists() for path in (base / package, base / f"{package}.py")) and not _is_installed(package):
            raise SpecError(f"there is no module '{package}'", where=(field, text))
        return
    path = (base / Path(home).expanduser()).resolve()
    if not path.is_file():
        raise SpecError("no such file", where=(field, text, str(path)))
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise SpecError(
            f"not Python: {getattr(error, 'msg', error)}", where=(field, text, f"line {line}" if line else "")
        ) from None
    names = _defined(tree)
    if not {name, "*", "__getattr__"} & names:
        shown = [known for known in names if not known.startswith("_")]
        raise SpecError(f"{home} has no function '{name}'", where=(field, text), hint=nearest(name, shown))


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # a module that was put together by hand and has no specification
        return package in sys.modules


def _defined(tree: ast.AST) -> set[str]:
    """Names that a module binds at its top level, also within `if` and `try`; "*" when it imports everything."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(item.asname or item.name).partition(".")[0] for item in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif not isinstance(node, ast.Lambda):
            names |= _defined(node)
    return names


def absolute(text: str, base: Path) -> Path | None:
    """Path of the file or folder a place names (of the file of a factory), or None when it names none."""
    factory = factory_of(text)
    if factory is not None:
        return (base / Path(factory[0]).expanduser()).resolve() if factory[0].endswith(".py") else None
    universal = universal_of(text)
    if universal is not None and universal[1]:
        return (base / Path(universal[1]).expanduser()).resolve()
    if text.partition(":")[0] in PREFIXES:
        return None
    return (base / Path(split_place(text)[0]).expanduser()).resolve()


def run_of(text: str, base: Path) -> Path | None:
    """Folder of the run whose output a place names, or None when it names something else."""
    if factory_of(text) is not None or universal_of(text) is not None:
        return None
    path = absolute(text, base)
    return path if path is not None and (path / "spec.yaml").is_file() else None


def idle_at(texts: Iterable[str], base: Path, reading: Mapping[str, Any]) -> dict[str, set[str]]:
    """Per place, which of `keys`, `units` and `unconverged` it does not take (extended XYZ fixes the units).

    Raises:
        SpecError: one of them can act on none of the places: what was asked for must not go unheard.
    """
    from mlipkit.data.read import asked_options
    from mlipkit.data.sources import idle_options

    asked = asked_options(reading)
    reasons: dict[str, dict[str, str]] = {}
    for text in texts:
        if factory_of(text) is not None:
            reasons[text] = dict.fromkeys(asked, "a factory gives frames with labels and units as they are")
        elif run_of(text, base) is not None:
            reasons[text] = dict.fromkeys(asked, "a run has its labels and units already, and no electronic structure")
        else:
            reasons[text] = idle_options(absolute(text, base) or text, **{name: reading[name] for name in asked})
    for name in asked:
        if all(name in found for found in reasons.values()):
            first, found = next(iter(reasons.items()))
            more = f" (and at the {len(reasons) - 1} other places)" if len(reasons) > 1 else ""
            raise SpecError(
                f"{name}: no effect here{more}: {found[name]}", where=("data", first), hint=f"Leave out {name}"
            )
    return {text: set(found) for text, found in reasons.items()}


def short_place(path: str | os.PathLike[str]) -> str:
    """A file or folder as one would type it here: relative to the working folder where it lies in it."""
    whole, here = Path(path).resolve(), Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)


def file_name(text: str, otherwise: str = "run") -> str:
    """A text as part of the name of a file or run; `otherwise` where nothing of it is left."""
    return "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in text).strip("._-") or otherwise
