"""One JupyterLab server and one browser for all browser tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("browser_lab")
from browser_lab import Lab  # noqa: E402


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Iterator[Lab]:
    """A server of our own; skips without Chromium."""
    made = Lab(tmp_path_factory.mktemp("lab"), chromium)
    yield made
    made.close()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a waiting line of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLIPKIT_QUEUE", str(tmp_path / "queue"))
    return tmp_path
