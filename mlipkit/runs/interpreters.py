"""Another Python for a run: a universal potential may live in an environment that suits nothing else.

mlipkit must be installed there too; run folder, events and views are the same.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from mlipkit.errors import SpecError

PATIENCE_S = 60
PROBE = "import mlipkit.runs.worker, importlib.util as u; raise SystemExit(u.find_spec('torch') is None)"


def interpreter(name: str | None, base: Path) -> str:
    """Executable of the Python that computes a run; this one when `name` is None.

    Args:
        name: a command, or a path that is meant against `base`. A link is kept as it is: environments are links.
    """
    if not name:
        return sys.executable
    if os.sep not in name:
        return shutil.which(name) or name
    return os.path.abspath(base / Path(name).expanduser())


def check_python(name: str, base: Path) -> None:
    """Refuse a Python that cannot compute a run.

    Raises:
        SpecError: no such executable, or one without mlipkit and torch.
    """
    path = interpreter(name, base)
    where = ("python", name)
    if shutil.which(path) is None:
        raise SpecError("no such executable", where=where, found=path)
    try:
        probe = subprocess.run(
            [path, "-c", PROBE], cwd=base, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SpecError(f"cannot be run ({error})", where=where) from None
    if probe.returncode:
        said = probe.stderr.strip().splitlines()
        raise SpecError(
            "this Python cannot compute a run", where=where,
            found=said[-1] if said else f"exit code {probe.returncode}",
            hint=f"Install mlipkit there: {path} -m pip install \"mlipkit[compute]\"",
        )  # fmt: skip
