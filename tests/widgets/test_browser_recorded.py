"""A recording in a browser: on screen at once, and "Run here" puts a run of one's own in its place."""

from __future__ import annotations

import logging
import time

import pytest
from browser_lab import Lab

from mlipkit.runs import Run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

CELL = "from mlipkit_widgets import Recorded\nRecorded('00_start_here/ethanol_1000_900K', root='recorded_here')"


def opened(lab: Lab, name: str, file: str):
    """A page with a notebook of two cells: the first was run, the second shows the recording."""
    lab.write(file, ["from mlipkit_widgets import Recorded, kernel_check\nkernel_check()", f"Recorded({name!r})"])
    return lab.open(file, width=1100, height=1300)


def test_the_recorded_explorer_is_seen_and_run_here(lab: Lab):
    with opened(lab, "03_explore_a_shift", "recorded_explorer.ipynb") as page:
        page.run_all()
        page.wait_text("Recorded on ")
        page.wait_text("3 105 atoms")
        page.page.wait_for_selector(".mlipkit-explorer .mlipkit-scene canvas")
        page.page.wait_for_function(
            "() => document.querySelector('.mlipkit-pane-map .js-plotly-plot')?._fullData?.length > 3"
        )
        page.wait_text("34 of 294")
        page.shot("recorded_explorer")
        page.set_theme("JupyterLab Dark")
        page.shot("recorded_explorer_dark")
        page.set_theme("JupyterLab Light")
        assert not (lab.work / "runs" / "hot_run").exists()

        page.click("Run here")
        page.wait_text("computed on this machine", timeout=60)
        own = Run(lab.work / "runs" / "hot_run")
        assert own.wait(150).state == "failed", own.reason
        # The map of one's own run is computed, in the view that took the place of the recorded one.
        assert page.page.locator(".mlipkit-explorer:visible").count() == 1
        page.page.wait_for_function(
            "() => [...document.querySelectorAll('.mlipkit-explorer')].filter(view => view.offsetParent)"
            ".some(view => view.innerText.includes('READY') && view.innerText.includes('3 105 atoms'))",
            timeout=90_000,
        )
        page.shot("recorded_explorer_run_here")
        page.click("Show the recording")
        page.wait_text("Recorded on ")
        assert page.page.locator(".mlipkit-explorer:visible").count() == 1
        assert page.cell_errors() == []
        page.healthy()


def test_recorded_arms_are_seen(lab: Lab):
    with opened(lab, "04_naive_vs_iterative", "recorded_arms.ipynb") as page:
        page.run_all()
        page.wait_text("Recorded on ")
        page.wait_text("2 arms, 4 workflows")
        page.wait_text("Iterative sampling, energies on independent frames", timeout=60)
        page.page.wait_for_function(
            "() => [...document.querySelectorAll('.annotation-text')].some(one => one.textContent.includes('bins'))",
            timeout=60_000,
        )
        page.shot("recorded_arms", ".jp-NotebookPanel")
        page.set_theme("JupyterLab Dark")
        page.shot("recorded_arms_dark", ".jp-NotebookPanel")
        page.set_theme("JupyterLab Light")
        assert page.cell_errors() == []
        page.healthy()


def test_the_recorded_loop_is_clicked_through(lab: Lab):
    with opened(lab, "05_close_the_loop", "recorded_loop.ipynb") as page:
        page.run_all()
        page.wait_text("Recorded on ")
        page.wait_text("3 of 16 held [4%, 46%] before, 12 of 16 held [48%, 93%] after: simulations hold longer")
        page.page.wait_for_selector(".mlipkit-scene canvas")
        page.shot("recorded_loop")
        for name, told in (
            ("train_on_label_hot", "Best epoch"), ("label_hot", "10 of 10 frames labelled"),
            ("hot_round2", "4 of 16 failed"),
        ):  # fmt: skip
            page.page.locator(".mlipkit-pane-runs").get_by_text(name, exact=True).first.click()
            page.wait_text(told)
            page.page.wait_for_timeout(700)
            page.shot(f"recorded_loop_{name}")
        # What the retrained potential learned from is known here, although its frames came out of another run.
        page.click("Show the map")
        drawn = "document.querySelector('.mlipkit-workbench .mlipkit-pane-side .js-plotly-plot')?._fullData?.length > 1"
        page.page.wait_for_function(f"() => {drawn}", timeout=90_000)
        page.shot("recorded_loop_map")
        assert page.page.locator(".mlipkit-next button:visible").count() == 0
        assert page.cell_errors() == []
        page.healthy()


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
