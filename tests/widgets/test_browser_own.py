"""01_your_own_potential in a browser: three lines are changed in the page, Run All, and the atoms move."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from browser_lab import Lab, LabPage
from test_browser_notebooks import NOTEBOOKS, pictures, placed, runs_of, scroll_to

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import own_data

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

OWN = NOTEBOOKS / "01_your_own_potential.ipynb"


def change(page: LabPage, mark: str, line: str) -> None:
    """Replace the line with this mark in the open notebook."""
    found = page.js(
        """([mark, line]) => {
            for (const cell of window.jupyterapp.shell.currentWidget.content.widgets) {
                const lines = cell.model.sharedModel.source.split('\\n');
                const row = lines.findIndex(one => one.includes(mark));
                if (cell.model.type === 'code' && row >= 0) {
                    lines[row] = line;
                    cell.model.sharedModel.source = lines.join('\\n');
                    return true;
                }
            }
            return false;
        }""",
        [mark, line],
    )
    assert found, mark


def seen(page: LabPage, name: str) -> np.ndarray:
    """The 3D picture of the view of a run as grey values [rows, columns]."""
    from PIL import Image

    scene = page.page.locator(".mlipkit-view", has_text=name).locator(".mlipkit-scene canvas").last
    return np.asarray(Image.open(io.BytesIO(scene.screenshot())).convert("L"), dtype=float)


@pytest.mark.parametrize("kind", ["extxyz", "outcar"])
def test_three_lines_lead_to_moving_atoms(lab: Lab, kind: str):
    address, work = placed(lab, f"own_{kind}", OWN)
    source = (work / OWN.name).read_text()
    # As long as it takes to look twice; it is stopped then.
    (work / OWN.name).write_text(source.replace("0.3 if quick", "200 if quick"))
    (work / "calc.py").write_text(own_data.CALCULATOR)
    if kind == "extxyz":
        own_data.extxyz(work / "mine.extxyz")
        lines = ('data = "mine.extxyz"', "calculator = None", "temperature = 250")
    else:
        own_data.outcar(work / "OUTCAR")
        lines = ('data = "OUTCAR"', 'calculator = "calc.py:make"', "temperature = 300")
    with lab.open(address, width=1000) as page:
        for number, line in enumerate(lines, start=1):
            change(page, f"← {number}:", line)
        page.run_all(timeout=300)
        assert page.cell_errors() == []
        scroll_to(page, "Recorded(")
        page.wait_text("Recorded on ")
        scroll_to(page, "TrainingMonitor(training)")
        scroll_to(page, "MDView(md)")
        md = next(run for run in runs_of(work) if run.name == "own_md")
        page.page.wait_for_function(
            "() => document.querySelectorAll('.mlipkit-scene canvas').length > 0", timeout=150_000
        )
        while md.state in ("waiting", "queued"):
            page.page.wait_for_timeout(300)
        page.page.wait_for_timeout(4000)
        first = seen(page, "own_md")
        page.page.wait_for_timeout(2500)
        second = seen(page, "own_md")
        assert first.std() > 1, "the picture is empty"
        assert (np.abs(first - second) > 20).mean() > 0.001, "nothing has moved"
        page.shot(f"own_{kind}_md", ".jp-NotebookPanel")
        md.stop()
        assert md.wait(60).state in ("stopped", "failed"), md.reason
        scroll_to(page, "TrainingMonitor(training)")
        page.page.wait_for_function(
            "() => document.querySelectorAll('.mlipkit-pane-parity .js-plotly-plot .scatterlayer .trace').length >= 4"
        )
        page.healthy()
        if os.environ.get("MLIPKIT_SCREENSHOTS"):
            page.save()
            pictures(page, work / OWN.name, f"own_{kind}")
            if kind == "outcar":
                page.set_theme("JupyterLab Dark")
                pictures(page, work / OWN.name, "own_dark")
