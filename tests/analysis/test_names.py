"""Names of `mlipkit.analysis` that are imported on first use."""

from __future__ import annotations

import importlib.machinery
import sys
import threading
import types

import pytest

import mlipkit.analysis


def test_a_file_that_another_thread_is_importing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is found is kept as a global: it must not be there before, nor the made-up one afterwards.
    monkeypatch.setattr(mlipkit.analysis, "bond_lengths", None, raising=False)
    del mlipkit.analysis.bond_lengths
    name = "mlipkit.analysis.bonds"
    half = types.ModuleType(name)
    half.__spec__ = importlib.machinery.ModuleSpec(name, None)
    half.__spec__._initializing = True  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, half)

    def fill() -> None:
        half.bond_lengths = len  # type: ignore[attr-defined]
        half.__spec__._initializing = False  # type: ignore[union-attr]

    late = threading.Timer(0.2, fill)
    late.start()
    assert mlipkit.analysis.__getattr__("bond_lengths") is len
    late.join()
    half.__spec__._initializing = False  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="summarise_bonds"):
        mlipkit.analysis.__getattr__("summarise_bonds")
