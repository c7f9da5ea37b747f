"""A recording in a browser: on screen at once, and "Run here" puts a run of one's own in its place."""

from __future__ import annotations

import logging
import time

import pytest
from browser_lab import Lab

from mlipkit.runs import Run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

CELL = "from mlipkit_widgets import Recorded\nRecorded('00_start_here/ethanol_1000_900K', root='recorded_here')"


def test_a_recording_is_seen_and_run_here(lab: Lab):
    lab.write("recording.ipynb", ["from mlipkit_widgets import kernel_check\nkernel_check()", CELL])
    with lab.open("recording.ipynb", width=1000, height=1100) as page:
        # As in a notebook, where the cell before has imported the package.
        page.js("() => { window.jupyterapp.commands.execute('notebook:run-cell-and-select-next'); }")
        page.page.wait_for_timeout(300)
        page.page.wait_for_function(
            "() => document.querySelector('.jp-InputArea-prompt')?.textContent.includes('[1]')", timeout=60_000
        )
        begin = time.monotonic()
        page.js("() => { window.jupyterapp.commands.execute('notebook:run-cell'); }")
        page.wait_text("Recorded on ")
        page.wait_text("Failed at step")
        page.page.wait_for_selector(".mlipkit-scene canvas")
        page.wait_traces(4)
        took = time.monotonic() - begin
        logging.getLogger(__name__).info("on screen after %.1f s", took)
        assert any(trace and max(trace) > 100 for trace in page.points())
        page.shot("recorded")
        page.set_theme("JupyterLab Dark")
        page.shot("recorded_dark")
        page.set_theme("JupyterLab Light")

        page.click("Run here")
        page.wait_text("computed on this machine", timeout=60)
        own = Run(lab.work / "recorded_here" / "ethanol_1000_900K")
        assert own.wait(150).state == "failed", own.reason
        page.wait_text("FAILED")
        page.shot("recorded_run_here")
        page.click("Show the recording")
        page.wait_text("Recorded on ")
        # Once it was run here, the cell shows that run.
        page.restart_kernel()
        page.run_all()
        page.wait_text("computed on this machine")
        assert page.cell_errors() == []
        page.healthy()
    # Three seconds of work at most (a test without a browser counts them); this machine may be doing other things.
    assert took < 30
