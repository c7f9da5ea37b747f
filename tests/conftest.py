"""Shared fixtures. Real DFT data are known only as the folder in MLIPKIT_DATA."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
# A waiting line of its own: what else this user computes must not hold up a test. Other processes of pytest inherit it.
if "MLIPKIT_QUEUE" not in os.environ:
    QUEUE = tempfile.TemporaryDirectory(prefix="mlipkit-queue-")
    os.environ["MLIPKIT_QUEUE"] = QUEUE.name

if "MLIPKIT_DATA" not in os.environ:
    beside = ROOT.parent / "shared" / "data"
    if beside.is_dir():
        os.environ["MLIPKIT_DATA"] = str(beside)


@pytest.fixture
def study_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Name -> that script of `benchmarks/studies` as a module, its parts beside it; all are read anew for each test."""
    for folder in (BENCHMARKS / "studies", BENCHMARKS):
        monkeypatch.syspath_prepend(str(folder))

    def forget() -> None:
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "/").is_relative_to(BENCHMARKS):
                del sys.modules[name]

    def load(name: str) -> Any:
        forget()
        return importlib.import_module(name)

    yield load
    forget()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real DFT data sets; skips where there is none."""
    folder = os.environ.get("MLIPKIT_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the real data sets: set MLIPKIT_DATA to their folder")
    return Path(folder)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium browser; skips where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("needs Chromium (Debian: apt-get install chromium)")


@pytest.fixture(autouse=True)
def _unchanged_torch_globals():
    """No test, and so no library code it calls, may leave torch's process-wide dtype changed."""
    import sys

    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        assert torch.get_default_dtype() is torch.float32, "the process-wide torch dtype was changed"
