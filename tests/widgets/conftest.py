"""One JupyterLab server and one browser for all browser tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("browser_lab")
from browser_lab import Lab  # noqa: E402


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Iterator[Lab]:
    """A server of our own; skips without Chromium."""
    made = Lab(tmp_path_factory.mktemp("lab"), chromium)
    yield made
    made.close()
