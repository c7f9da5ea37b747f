"""Says in one sentence when a notebook was opened with a kernel in which mlipkit cannot work, and what to do.

A wrong kernel cannot import mlipkit, so the first cell of a notebook carries its own check (`FIRST_CELL`); the rest,
which an importable mlipkit can tell, is here.
"""

from __future__ import annotations

import importlib.util
import sys
from types import TracebackType

from mlipkit.errors import MissingPackageError, MlipkitError

from .plot import preload

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
    """Check that this kernel can show the widgets and start runs; from then on errors raised on purpose are one line.

    The page gets ready to draw, so that the first picture comes sooner.

    Raises:
        MissingPackageError: one sentence with what is missing and the cure.
    """
    for package, purpose in NEEDED.items():
        if importlib.util.find_spec(package) is None:
            what = f"this kernel ({sys.executable}) has no package '{package}', which {purpose}"
            raise MissingPackageError(what, hint=CURE)
    _short_errors()
    preload()


def _short_errors() -> None:
    """An `MlipkitError` says where and what to do; forty lines of traceback above it would hide that."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return

    def one_line(
        shell, kind: type[BaseException], error: BaseException, trace: TracebackType, tb_offset: int | None = None
    ) -> None:
        shell._showtraceback(kind, error, [f"{kind.__name__}: {error}"])

    shell.set_custom_exc((MlipkitError,), one_line)
