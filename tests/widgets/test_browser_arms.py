"""Arms, candidate frames and the tray in a real browser: drawn, clicked, struck out, approved, labelled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browser_lab import Lab, LabPage
from test_browser import both_themes, drawn, nothing_cut
from test_browser import work as work
from test_browser_explorer import MADE_UP
from workflow_folders import arms, waiting

from mlipkit.data import read
from mlipkit.runs import Run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

# Names of the traces, x of the first bars and the round that is marked, of the plot whose y axis counts frames.
TIMELINE = """() => {
    const plot = [...document.querySelectorAll('.js-plotly-plot')].find(
        one => one._fullLayout?.xaxis?.title?.text?.startsWith('round'));
    return plot && plot._fullLayout.shapes.length ? plot._fullLayout.shapes[0].x0 + 0.48 : null;
}"""
BAR = """round => {
    const plot = [...document.querySelectorAll('.js-plotly-plot')].find(
        one => one._fullLayout?.xaxis?.title?.text?.startsWith('round'));
    plot.scrollIntoView({ block: 'center' });
    const { xaxis, yaxis, _size } = plot._fullLayout, place = plot.getBoundingClientRect();
    return [place.left + _size.l + xaxis.d2p(round + 0.2), place.top + _size.t + yaxis.d2p(1)];
}"""
NO_WIDER = """() => [...document.querySelectorAll('.js-plotly-plot')].every(
    one => !one.offsetParent || one._fullLayout.width <= one.parentElement.clientWidth + 1)"""
PLOTS = "() => [...document.querySelectorAll('.mlipkit-plot')].filter(one => one.offsetParent).length"
TITLES = "() => [...document.querySelectorAll('.annotation-text')].map(one => one.textContent)"


def click_round(page: LabPage, round: int) -> None:
    x, y = page.js(BAR, round)
    page.page.mouse.move(x, y)
    page.page.wait_for_timeout(400)
    page.page.mouse.click(x, y)


def test_arms_are_drawn_a_round_is_chosen_and_frames_are_approved(lab: Lab, work: Path) -> None:
    arms(work / "runs")
    waiting(work / "runs" / "looked_at")
    name = f"{work.name}/arms.ipynb"
    lab.write(name, ["from mlipkit_widgets import StrategyComparison\nview = StrategyComparison('runs')\nview"])
    with lab.open(name, width=1200, height=2800) as page:
        page.run_all()
        page.wait_text("Iterative sampling, energies on independent frames", timeout=90)
        page.wait_text("iterative 0 (looked_at)")
        page.page.wait_for_function(f"() => ({PLOTS})() >= 5", timeout=90_000)
        page.page.wait_for_function(f"() => ({TITLES})().some(text => text.includes('bins'))", timeout=90_000)
        assert page.js(TIMELINE) == pytest.approx(3)
        for label in ("Errors of every model", "What became of the frames", "Score space", "Energy residuals"):
            assert drawn(page.pixels(f".mlipkit-plot [aria-label^='{label}']")) > 0.005, label
        before = page.js(TITLES)
        click_round(page, 2)
        page.page.wait_for_function(f"() => Math.abs(({TIMELINE})() - 2) < 0.01")
        page.page.wait_for_function(f"before => ({TITLES})().join() !== before.join()", arg=before)
        pressed = "() => document.querySelector('.widget-toggle-buttons .mod-active').innerText"
        assert page.js(pressed).strip() == "2"
        # Candidate frames: look at one, strike two out, take one back, approve.
        page.wait_text("wait for you before they are labelled")
        assert page.page.locator(".mk-thumbnail svg").count() == 3
        page.page.locator(".mk-thumbnail").nth(1).click()
        page.page.wait_for_selector(".mlipkit-review .mlipkit-scene canvas", timeout=20_000)
        page.wait_text("sampled by untouched")
        page.page.locator(".mk-act").nth(0).click()
        page.wait_text("Approve and label 2 frames")
        page.page.locator(".mk-act").nth(2).click()
        page.wait_text("Approve and label 1 frame")
        page.click("Undo")
        page.wait_text("Approve and label 2 frames")
        assert page.page.locator(".mk-out").count() == 1
        page.page.wait_for_timeout(1000)
        both_themes(page, "arms")
        nothing_cut(page)
        page.click("Approve and label")
        page.wait_text("2 frames approved, 1 struck out and recorded")
        record = json.loads((work / "runs" / "looked_at" / "struck.json").read_text())
        first = read(work / "runs" / "looked_at" / "candidates" / "01.extxyz").uid(0)
        assert record == {"01": {"struck": [first]}}
        page.click("Code")
        page.wait_text("compare_arms(")
        page.page.set_viewport_size({"width": 680, "height": 2800})
        # Five plots are drawn anew, one after the other.
        page.page.wait_for_function(NO_WIDER, timeout=30_000)
        nothing_cut(page)
        page.shot("arms_narrow")
        assert page.cell_errors() == []
        page.healthy()


def test_frames_in_the_tray_are_labelled(lab: Lab, work: Path) -> None:
    name = f"{work.name}/tray.ipynb"
    lab.write(
        name,
        [
            MADE_UP + "import numpy as np\ndata = made_up.ethanol(12)\nview = ShiftExplorer(data, viewer='still')\n"
            "view.tray.next.maker.value = 'sample:ethanol_50'\n"
            "view.tray.take(data.select(np.arange(5 * 9), {}, 'five frames'))\nview"
        ],
    )  # fmt: skip
    with lab.open(name, width=1200, height=1900) as page:
        page.run_all()
        page.wait_text("5 frames in the tray")
        page.click("Label 5 frames")
        page.wait_text("5 of 5 frames labelled", timeout=90)
        page.wait_text("none failed")
        page.page.wait_for_timeout(700)
        both_themes(page, "tray_label")
        nothing_cut(page)
        run = Run(work / "runs" / "label_tray")
        assert run.wait(30).state == "completed"
        assert len(read(run.folder / "labelled.extxyz")) == 5
        # The run below the tray has a button of that name, too.
        page.page.locator(".mlipkit-view button:visible", has_text="Code").last.click()
        page.wait_text("labelling = mk.launch(mk.LabelSpec(")
        assert page.cell_errors() == []
        page.healthy()
