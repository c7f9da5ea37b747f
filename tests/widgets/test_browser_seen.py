"""Every view for those who hear it, see it badly, or have no mouse, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser_lab import Lab, LabPage
from dft_text import vasp_template
from recorded import RecordedMD, recorded_training
from seen import faint, nameless, unseen_focus
from test_browser import work as work
from test_browser_explorer import MADE_UP
from test_browser_workbench import BENCH, OPEN, failed, step
from workflow_folders import arms, waiting

pytestmark = [pytest.mark.browser, pytest.mark.timeout(420)]


# The part of the page that tells why NEXT is what it is: it must be there before its news.
REGION = """() => {
    const regions = [...document.querySelectorAll('.mlipkit-next [aria-live]')];
    window.__region = regions.find(n => n.innerText.includes('failed'));
}"""
SAID = """() => [...document.querySelectorAll('.mlipkit-plot [role=figure]')].filter(n => n.offsetParent)
    .map(n => document.getElementById(n.getAttribute('aria-describedby')).textContent)"""
ATOMS = "() => document.querySelector('.mlipkit-scene[role=img]')?.getAttribute('aria-label') ?? ''"


def place(work: Path) -> str:
    return f"{work.name}/seen.ipynb"


def heard_and_read(page: LabPage) -> None:
    """Names and contrast, light and dark."""
    found = {"names": nameless(page)}
    for theme in ("Light", "Dark"):
        page.set_theme(f"JupyterLab {theme}")
        page.page.wait_for_timeout(1500)
        found[theme] = faint(page)
    page.set_theme("JupyterLab Light")
    assert found == {"names": [], "Light": [], "Dark": []}, "\n".join(
        str(one) for some in found.values() for one in some
    )


def test_the_workbench(lab: Lab, work: Path) -> None:
    failed(work)
    vasp_template(work / "inputs", ("C", "O", "H"))
    lab.write(place(work), [OPEN])
    with lab.open(place(work), width=1600, height=1500) as page:
        page.run_all()
        page.wait_text("Go to failure")
        page.js(REGION)
        step(page, "Go to failure")
        page.wait_text("before failure")
        page.wait_traces(5)
        page.wait_text("At most ten sound ones")
        assert page.js("() => window.__region.isConnected && window.__region.innerText").startswith("At most ten")
        page.page.wait_for_function(f"() => ({SAID})().length >= 3 && ({SAID})().every(text => text.length > 10)")
        said = " ".join(page.js(SAID))
        assert "temperature" in said
        assert "points from" in said
        assert "broken bonds: 2" in said
        # What a picture takes from the mouse is there for the keys: an atom by its number, the frame on show.
        page.page.locator(f"{BENCH} input[placeholder='no.']").focus()
        page.page.keyboard.type("4")
        page.page.wait_for_function(f"() => ({ATOMS})().includes('marked: H 4')")
        page.page.locator(f"{BENCH} button", has_text="+ Tray").focus()
        page.page.keyboard.press("Enter")
        page.wait_text("TRAY 1 frame")
        page.page.locator(f"{BENCH} button:visible", has_text="Clear").focus()
        page.page.keyboard.press("Enter")
        step(page, "Select frames")
        page.wait_text("Label 10 frames")
        page.click("My own DFT")
        page.wait_text("A folder with your own inputs")
        page.click("Code")
        page.page.wait_for_timeout(1000)
        heard_and_read(page)
        page.page.locator(f"{BENCH} .mk-run[aria-selected=true]").focus()
        reached, hidden = unseen_focus(page)
        assert hidden == []
        for name in ("+ New run", "My own DFT", "Export 10 jobs", "Clear"):
            assert any(name in one for one in reached), (name, reached)


def test_views_of_runs(lab: Lab, work: Path) -> None:
    RecordedMD(work / "runs" / "hot", fails_at=900).fail()
    recorded_training(work / "runs" / "first")
    lab.write(place(work), [
        "from mlipkit_widgets import *\nMDView('runs/hot')", "TrainingMonitor('runs/first')", "RunList('runs')",
        "AppliesPanel('sample:ethanol_600K', 'sample:ethanol_50', measure=False)", "Launcher('md')",
        "Launcher('workflow')",
    ])  # fmt: skip
    with lab.open(place(work), width=1200, height=5000) as page:
        page.run_all()
        page.wait_traces(5)
        page.wait_text("ready", timeout=60)
        for button in page.page.locator(".mlipkit-view button", has_text="More settings").element_handles():
            button.click()
        page.page.wait_for_timeout(1500)
        heard_and_read(page)
        page.page.locator(".mlipkit-view button:visible").first.focus()
        reached, hidden = unseen_focus(page, most=60)
        assert len(reached) > 10
        assert hidden == []


def test_explorer_and_comparison(lab: Lab, work: Path) -> None:
    arms(work / "runs")
    waiting(work / "runs" / "looked_at")
    lab.write(place(work), [
        f"{MADE_UP}view = ShiftExplorer(made_up.two_sets(), viewer='still')\nview",
        "from mlipkit_widgets import StrategyComparison\nStrategyComparison('runs')",
    ])  # fmt: skip
    with lab.open(place(work), width=1200, height=5000) as page:
        page.run_all()
        page.wait_text("wait for you before they are labelled", timeout=90)
        page.page.wait_for_timeout(4000)
        heard_and_read(page)
