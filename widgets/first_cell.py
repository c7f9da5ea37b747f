"""Says in one sentence when a notebook was opened with a kernel in which mlipkit cannot work, and what to do.

A wrong kernel cannot import mlipkit, so the first cell of a notebook carries its own check (`FIRST_CELL`); the rest,
which an importable mlipkit can tell, is here.
"""

from __future__ import annotations

import importlib.util
import sys

from mlipkit.errors import MissingPackageError

CURE = (
    "Choose the kernel 'mlipkit' (menu Kernel > Change Kernel; 'mlipkit lab' in a terminal adds it to the list) "
    "and run this cell again."
)

FIRST_CELL = f"""\
try:
    import mlipkit as mk
    from mlipkit_widgets import kernel_check

    kernel_check()
except ModuleNotFoundError as error:
    import sys

    raise SystemExit(f"{{sys.executable}} has no package '{{error.name}}'. {CURE}") from None
"""
"""Source of the first cell of every notebook."""

NEEDED = {"ipywidgets": "the widgets need", "anywidget": "the widgets need", "torch": "training and MD need"}


def kernel_check() -> None:
    """Check that this kernel can show the widgets and start runs.

    Raises:
        MissingPackageError: one sentence with what is missing and the cure.
    """
    for package, purpose in NEEDED.items():
        if importlib.util.find_spec(package) is None:
            what = f"this kernel ({sys.executable}) has no package '{package}', which {purpose}"
            raise MissingPackageError(what, hint=CURE)
