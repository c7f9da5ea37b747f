"""What a process says of itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlipkit.runs import process


def test_peak_memory_is_that_of_this_program_alone():
    """A child of a large process is not large."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux carries the parent's memory over")
    ballast = np.ones(60_000_000)
    command = [sys.executable, "-c", "from mlipkit.runs.process import peak_memory; print(peak_memory())"]
    child = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert ballast.nbytes > 4e8
    assert 5e6 < child < 2e8
    assert process.peak_memory() > ballast.nbytes


def test_a_worker_comes_up_behind_the_notebook_and_computes_beside_it():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        process.lower_priority(child.pid)
        process.session_niceness(process.NICENESS, child.pid)
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == process.NICENESS
        group = Path(f"/proc/{child.pid}/autogroup")
        if group.exists():
            assert group.read_text().split()[-1] == str(process.NICENESS)
            process.session_niceness(0, child.pid)
            assert group.read_text().split()[-1] == "0"
    finally:
        child.kill()
        child.wait()
