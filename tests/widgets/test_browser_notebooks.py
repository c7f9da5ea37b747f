"""The start notebook as a user meets it: Run All in JupyterLab, live views, a training whose curves grow, failure."""

from __future__ import annotations

import os
import time
from pathlib import Path

import nbformat
import pytest
from browser_lab import KERNEL, Lab, LabPage

from mlipkit.runs import Run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(420)]

START = Path(__file__).resolve().parents[2] / "notebooks" / "00_start_here.ipynb"
# The whole notebook in its full length, for the slow tier and for pictures.
FULL = bool(os.environ.get("MLIPKIT_FULL_NOTEBOOKS"))
PATIENCE_S = 400 if FULL else 150


def placed(lab: Lab, folder: str) -> tuple[str, Path]:
    """The notebook in a folder of the server, on the test's kernel."""
    notebook = nbformat.read(START, as_version=4)
    notebook.metadata["kernelspec"] = {"name": KERNEL, "display_name": "mlipkit test", "language": "python"}
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []) and not FULL:
            cell.source = cell.source.replace("quick = False", "quick = True")
    work = lab.work / folder
    work.mkdir()
    nbformat.write(notebook, work / START.name)
    return f"{folder}/{START.name}", work


def runs_of(work: Path) -> list[Run]:
    return [Run(spec.parent) for spec in sorted((work / "runs").glob("*/spec.yaml"))]


def scroll_to(page: LabPage, source: str) -> None:
    """Bring the output of the code cell that holds `source` onto the screen; JupyterLab only keeps what is near it."""
    page.js(
        """async source => {
            const notebook = window.jupyterapp.shell.currentWidget.content;
            const index = notebook.widgets.findIndex(
                cell => cell.model.type === 'code' && cell.model.sharedModel.source.includes(source));
            notebook.activeCellIndex = index;
            await notebook.scrollToItem(index, 'start');
            notebook.widgets[index].outputArea?.node.scrollIntoView({ block: 'start' });
        }""",
        source,
    )
    page.page.wait_for_timeout(700)


def pictures_in_the_dark(page: LabPage) -> None:
    """The whole notebook in the dark theme, one picture per code cell, for people to look at."""
    page.set_theme("JupyterLab Dark")
    for number, cell in enumerate(nbformat.read(START, as_version=4).cells):
        if cell.cell_type == "code":
            scroll_to(page, cell.source.splitlines()[0])
            page.page.wait_for_timeout(1500)
            page.shot(f"start_dark_{number:02d}", ".jp-NotebookPanel")
    page.set_theme("JupyterLab Light")


def test_start_here_runs_without_clicks(lab: Lab):
    address, work = placed(lab, "start")
    with lab.open(address, width=1000) as page:
        begin = time.monotonic()
        page.run_all()
        assert page.cell_errors() == []
        scroll_to(page, "MDView(first)")
        page.page.wait_for_selector(".mlipkit-scene canvas", timeout=20000)
        # Cells return at once; the views follow the runs.
        training = next(run for run in runs_of(work) if run.kind == "train")
        seen: set[int] = set()
        end = begin + PATIENCE_S
        while any(run.active for run in runs_of(work)) and time.monotonic() < end:
            page.page.wait_for_timeout(250)
            seen |= {len(training.series("training")) if "training" in training.series_names() else 0}
        runs = runs_of(work)
        assert len(runs) == 6
        assert {run.name: run.state for run in runs if run.state not in ("completed", "failed")} == {}
        assert len(seen) > 2, "the training series was never seen to grow"
        for name, source, shown in (
            ("first_md", "MDView(first)", "first_md"),
            ("training", "TrainingMonitor(mine)", "my_potential"),
            ("runs", "RunList(runs)", "ethanol_1000_900K"),
            ("failure", "MDView(runs[-1])", "ethanol_1000_900K"),
            ("launcher", "Launcher()", "New run"),
        ):
            scroll_to(page, source)
            page.wait_text(shown)
            page.shot(f"start_{name}", ".jp-NotebookPanel")
            if name == "first_md":
                assert any(trace and max(trace) > 10 for trace in page.points())
            if name == "runs":
                table = page.page.locator("table.mk-runs").inner_text()
                assert "RUNNING" not in table
                assert "FAILED" in table or not FULL
        page.healthy()
        if os.environ.get("MLIPKIT_SCREENSHOTS"):
            pictures_in_the_dark(page)

        # Again, in a new kernel: nothing starts, everything is back on screen.
        before = {run.name: run.entries()[-1].seq for run in runs}
        page.restart_kernel()
        page.run_all()
        assert page.cell_errors() == []
        scroll_to(page, "RunList(runs)")
        page.wait_text("ethanol_50_300K")
        assert {run.name: run.entries()[-1].seq for run in runs_of(work)} == before
        page.healthy()
