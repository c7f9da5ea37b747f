"""A notebook in a wrong kernel says so in one sentence; importing the widgets stays light."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from mlipkit.errors import MissingPackageError
from mlipkit_widgets import kernel_check
from mlipkit_widgets.first_cell import FIRST_CELL


def test_first_cell_in_a_python_without_mlipkit() -> None:
    done = subprocess.run([sys.executable, "-I", "-S", "-c", FIRST_CELL], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Change Kernel" in done.stderr
    assert sys.executable in done.stderr


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_check()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "anywidget" else find(name))
    with pytest.raises(MissingPackageError, match=r"no package 'anywidget'.*Change Kernel"):
        kernel_check()


def test_widgets_import_neither_torch_nor_nglview() -> None:
    code = "import sys, mlipkit_widgets; print([m for m in ('torch', 'nglview', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
