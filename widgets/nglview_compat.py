"""Makes nglview's Python half ask for the front end that is really installed.

The nglview 4.0 wheel asks the page for front end "4.0" and ships 3.1.5, so that JupyterLab shows "Error displaying
widget" (its issues 1172 and 1181). The cure is to state the version found beside it before nglview is imported. A
browser test checks that the 3D view draws; `needed` says whether the cure still has anything to do.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from functools import cache
from pathlib import Path

from mlipkit.errors import MissingPackageError

FRONT_END = Path("labextensions", "nglview-js-widgets", "package.json")


def front_end_version() -> str | None:
    """Version of the installed JupyterLab half of nglview, or None when it is not installed."""
    from jupyter_core.paths import jupyter_path

    for folder in jupyter_path():
        try:
            return json.loads((Path(folder) / FRONT_END).read_text(encoding="utf-8"))["version"]
        except (OSError, KeyError, ValueError):
            continue
    return None


def asked_version() -> str | None:
    """Front-end version that the installed nglview asks for, read without importing it; None without nglview."""
    spec = importlib.util.find_spec("nglview")
    if spec is None or not spec.submodule_search_locations:
        return None
    source = Path(next(iter(spec.submodule_search_locations))) / "_frontend.py"
    try:
        text = source.read_text(encoding="utf-8")
    except OSError:
        return None
    return text.split("=", 1)[1].strip().strip("'\"") if "=" in text else None


def needed() -> bool:
    """True when the two halves of nglview disagree on the version."""
    found, asked = front_end_version(), asked_version()
    return bool(found and asked) and found != asked


def available() -> bool:
    """True when nglview and its front end are installed."""
    return asked_version() is not None and front_end_version() is not None


@cache
def load():
    """Import nglview with the cure applied when it is needed.

    Raises:
        MissingPackageError: nglview or its front end is not installed.
    """
    if not available():
        raise MissingPackageError(
            "3D views need nglview and its JupyterLab front end", hint='Install them with: pip install "mlipkit[lab]"'
        )
    if needed() and "nglview" not in sys.modules:
        stand_in = types.ModuleType("nglview._frontend")
        stand_in.__frontend_version__ = front_end_version()  # type: ignore[attr-defined]
        sys.modules["nglview._frontend"] = stand_in
    import nglview

    return nglview
