"""Notebooks as a user meets them: Run All in JupyterLab, live views, a training whose curves grow, failure, maps."""

from __future__ import annotations

import os
import time
from pathlib import Path

import nbformat
import pytest
from browser_lab import KERNEL, STATUS, Lab, LabPage

from mlipkit.data import Tray
from mlipkit.runs import Run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(420)]

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
START, SHIFT = NOTEBOOKS / "00_start_here.ipynb", NOTEBOOKS / "03_explore_a_shift.ipynb"
ARMS, LOOP = NOTEBOOKS / "04_naive_vs_iterative.ipynb", NOTEBOOKS / "05_close_the_loop.ipynb"
# The whole notebook in its full length, for the slow tier and for pictures.
FULL = bool(os.environ.get("MLIPKIT_FULL_NOTEBOOKS"))
PATIENCE_S = 400 if FULL else 150


def placed(lab: Lab, folder: str, source: Path = START) -> tuple[str, Path]:
    """The notebook in a folder of the server, on the test's kernel."""
    notebook = nbformat.read(source, as_version=4)
    notebook.metadata["kernelspec"] = {"name": KERNEL, "display_name": "mlipkit test", "language": "python"}
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []) and not FULL:
            cell.source = cell.source.replace("quick = False", "quick = True")
    work = lab.work / folder
    work.mkdir()
    nbformat.write(notebook, work / source.name)
    return f"{folder}/{source.name}", work


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


# The code cell that holds `source`, as scroll_to finds it.
IN_CELL = """const notebook = window.jupyterapp.shell.currentWidget.content;
    const cell = notebook.widgets.find(
        one => one.model.type === 'code' && one.model.sharedModel.source.includes(source));
    const output = cell.outputArea.node;"""


def wait_in(page: LabPage, source: str, words: tuple[str, ...], condition: str = "true", timeout: float = 90) -> None:
    """Wait until the output of a cell holds these words and `condition` holds, a JavaScript expression of `output`."""
    page.page.wait_for_function(
        f"([source, words]) => {{ {IN_CELL} "
        f"return words.every(word => output.innerText.includes(word)) && ({condition}); }}",
        arg=[source, list(words)],
        timeout=timeout * 1000,
    )


def pictures(page: LabPage, source: Path, name: str) -> None:
    """The whole notebook as it was placed, one picture per code cell, for people to look at."""
    for number, cell in enumerate(nbformat.read(source, as_version=4).cells):
        if cell.cell_type == "code":
            scroll_to(page, cell.source)
            page.page.wait_for_timeout(1500)
            page.shot(f"{name}_{number:02d}", ".jp-NotebookPanel")


def pictures_in_the_dark(page: LabPage, source: Path, name: str) -> None:
    """The same in the dark theme."""
    page.set_theme("JupyterLab Dark")
    pictures(page, source, f"{name}_dark")
    page.set_theme("JupyterLab Light")


def test_start_here_runs_without_clicks(lab: Lab):
    address, work = placed(lab, "start")
    with lab.open(address, width=1000) as page:
        end = time.monotonic() + PATIENCE_S
        page.run_all(wait=False)
        # Cells return at once; the views follow the runs. On a quick machine all is over when the page is at rest.
        seen: set[int] = set()
        runs: list[Run] = []
        while (len(runs) < 6 or any(run.active for run in runs)) and time.monotonic() < end:
            page.page.wait_for_timeout(250)
            runs = runs_of(work)
            for training in (run for run in runs if run.kind == "train"):
                seen |= {len(training.series("training")) if "training" in training.series_names() else 0}
        page.wait_idle(PATIENCE_S)
        assert page.cell_errors() == []
        scroll_to(page, "MDView(first)")
        page.page.wait_for_selector(".mlipkit-scene canvas", timeout=20000)
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
            pictures_in_the_dark(page, work / START.name, "start")

        # Again, in a new kernel: nothing starts, everything is back on screen.
        before = {run.name: run.entries()[-1].seq for run in runs}
        page.restart_kernel()
        page.run_all()
        assert page.cell_errors() == []
        scroll_to(page, "RunList(runs)")
        page.wait_text("ethanol_50_300K")
        assert {run.name: run.entries()[-1].seq for run in runs_of(work)} == before
        page.healthy()


@pytest.mark.timeout(900)
def test_a_shift_is_seen_without_clicks(lab: Lab):
    address, work = placed(lab, "shift", SHIFT)
    with lab.open(address, width=1100, height=1300) as page:
        page.run_all(timeout=2 * PATIENCE_S)
        assert page.cell_errors() == []
        assert {run.name: run.state for run in runs_of(work) if run.state not in ("completed", "failed")} == {}
        for source, sets in (
            ('fit_on="all"', ("liquid", "ice")),
            ('"new, 300 K": new_cold', ("training", "600 K")),
            ("explorer = ShiftExplorer(", ("training", "hot_run")),
        ):
            scroll_to(page, source)
            fitted = f"fit-on set: {sets[0]}" if sets[0] == "liquid" else "atoms"
            shown = """output.querySelector('.mlipkit-pane-map .js-plotly-plot')?._fullData?.length
                && output.querySelector('.mlipkit-explorer .mlipkit-scene canvas')"""
            wait_in(page, source, (fitted, *sets), shown, timeout=150)
        page.wait_text("in the tray")
        frames = Tray(work / "selections" / "outside").selection
        assert len(frames) > 0
        assert (work / "selections" / "to_label.extxyz").is_file()
        for source in ("coverage_grid(", "bond_distributions(one.edges", "force_parity(", "Plot(roc_curves("):
            scroll_to(page, source)
            page.page.wait_for_function(
                """() => [...document.querySelectorAll('.jp-OutputArea .mlipkit-plot .js-plotly-plot')].some(plot => {
                    const { top, bottom } = plot.getBoundingClientRect();
                    return plot._fullData?.length && !plot.closest('.mlipkit-view') && top < innerHeight && bottom > 0;
                })"""
            )
        page.healthy()
        if os.environ.get("MLIPKIT_SCREENSHOTS"):
            pictures(page, work / SHIFT.name, "shift")
            pictures_in_the_dark(page, work / SHIFT.name, "shift")


@pytest.mark.timeout(900)
def test_arms_are_compared_without_clicks(lab: Lab):
    address, work = placed(lab, "arms", ARMS)
    with lab.open(address, width=1100, height=1300) as page:
        page.run_all(wait=False)
        # A cell waits for the runs; the view goes on all the while.
        page.page.wait_for_selector(".mlipkit-view")
        scroll_to(page, "StrategyComparison(runs)")
        wait_in(page, "StrategyComparison(runs)", ("stages, now ",), timeout=60)
        assert page.js(f"() => {STATUS}") == "busy"
        page.wait_idle(2 * PATIENCE_S)
        assert page.cell_errors() == []
        assert {run.state for run in runs_of(work)} == {"completed"}
        scroll_to(page, "StrategyComparison(runs)")
        wait_in(
            page, "StrategyComparison(runs)", ("Iterative sampling, energies on independent frames",),
            "[...output.querySelectorAll('.annotation-text')].some(one => one.textContent.includes('bins'))",
        )  # fmt: skip
        page.healthy()
        if os.environ.get("MLIPKIT_SCREENSHOTS"):
            pictures(page, work / ARMS.name, "naive_vs_iterative")
            pictures_in_the_dark(page, work / ARMS.name, "naive_vs_iterative")


@pytest.mark.timeout(900)
def test_the_loop_is_closed_without_clicks(lab: Lab):
    address, work = placed(lab, "loop", LOOP)
    with lab.open(address, width=1100, height=1300) as page:
        page.run_all(wait=False)
        page.page.wait_for_selector(".mlipkit-view")
        scroll_to(page, 'Workbench("runs")')
        # The next cell waits for the simulations, and the Workbench shows them meanwhile.
        wait_in(page, 'Workbench("runs")', ("RUNNING", "hot"), timeout=60)
        page.wait_idle(2 * PATIENCE_S)
        assert page.cell_errors() == []
        runs = {run.name: run for run in runs_of(work)}
        assert set(runs) == {"hot", "label_hot", "train_on_label_hot", "control", "hot_round2", "hot_control"}
        assert {run.state for run in runs.values()} <= {"completed", "failed"}
        scroll_to(page, 'Workbench("runs")')
        # All are in the list, and the step that follows is named. Which one depends on the ends of the simulations.
        wait_in(page, 'Workbench("runs")', (*runs, "NEXT"), "!output.innerText.includes('RUNNING')")
        wait_in(page, 'Workbench("runs")', (), "output.querySelector('.mlipkit-next button').innerText.length > 5")
        drawn = "output.querySelector('.js-plotly-plot')?._fullData?.length"
        wait_in(page, "survival_curves({", ("log-rank p",), drawn)
        scroll_to(page, 'Workbench("runs")')
        page.shot("loop_workbench", ".jp-NotebookPanel")
        page.healthy()
        if os.environ.get("MLIPKIT_SCREENSHOTS"):
            pictures(page, work / LOOP.name, "loop")
            pictures_in_the_dark(page, work / LOOP.name, "loop")
