"""What `mlipkit.data` offers, and what importing it does not cost."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

import mlipkit.data


def test_every_public_name_resolves_and_functions_win_over_their_files():
    for name in mlipkit.data.__all__:
        value = getattr(mlipkit.data, name)
        assert isinstance(value, ModuleType) == (name in ("samples", "public")), name
    # In whichever order the file was imported.
    for name in ("read", "write", "resolve", "report"):
        importlib.import_module(f"mlipkit.data.{name}")
        assert callable(getattr(mlipkit.data, name))
    with pytest.raises(AttributeError, match="no attribute 'raed'"):
        mlipkit.data.raed  # noqa: B018


def test_a_file_imported_first_does_not_hide_its_function():
    code = "import mlipkit.data.resolve\nfrom mlipkit.data import resolve\nimport mlipkit\nassert callable(resolve)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reading_data_and_series_does_not_import_torch():
    code = (
        "import sys, mlipkit.data\n"
        "from mlipkit.data import FrameSet, Series, SeriesWriter, split, choose_atomic_energies, read, resolve\n"
        "from ase.build import molecule\n"
        "FrameSet.from_atoms([molecule('H2O')]).hash\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
