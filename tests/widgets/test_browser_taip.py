"""Test-time adaptation in a real browser: its page, its strip in MD, losses of its tasks, its forms, its recording."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from adapting import RecordedAdaptation, RecordedEvaluation, recorded_tasks
from browser_lab import Lab, LabPage
from test_browser import both_themes, drawn, nothing_cut
from test_browser import work as work

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

STRIP = "Self-supervised loss, gradient and change of the weights over simulated time"
WIDE = {"width": 1600, "height": 2600}


def both_widths(page: LabPage, name: str) -> None:
    """Pictures at 1000 and at 1600 px in both themes; nothing sticks out at any width."""
    for width in (1000, 1600, 680):
        page.page.set_viewport_size({**WIDE, "width": width})
        page.page.wait_for_timeout(1500)
        nothing_cut(page)
        if width > 680:
            both_themes(page, f"{name}_{width}")
        else:
            page.shot(f"{name}_narrow")


def pixels(page: LabPage, label: str) -> float:
    """Share of a picture that is drawn upon."""
    return drawn(page.pixels(f".mlipkit-plot [aria-label^='{label}']"))


def test_the_page_before_and_after(lab: Lab, work: Path) -> None:
    made = RecordedEvaluation(work / "runs" / "adapted", maps=True)
    made.finish()
    name = f"{work.name}/page.ipynb"
    lab.write(name, ["from mlipkit_widgets import StrategyComparison\nStrategyComparison('runs/adapted')"])
    with lab.open(name, width=1000, height=2600) as page:
        page.run_all()
        page.wait_text("Adaptation: Does not work")
        page.wait_text("1 evaluation of adaptation")
        page.page.wait_for_function(
            "() => [...document.querySelectorAll('.annotation-text')].some(one => one.textContent.includes('AUC'))"
        )
        for label in ("Errors of every potential", "Error over the adaptation step", "Features of training and test"):
            assert pixels(page, label) > 0.005, label
        both_widths(page, "adaptation_page")
        page.page.locator(".mlipkit-view select:visible").first.select_option("ice")
        page.wait_text("force error on 'ice'")
        page.page.locator(".mlipkit-view select:visible").nth(1).select_option("energy")
        page.wait_text("energy error on 'ice'")
        page.page.locator(".mlipkit-view button:visible", has_text="Code").first.click()
        page.wait_text("StrategyComparison(['runs/adapted'])")
        assert page.cell_errors() == []
        page.healthy()


def test_the_strip_of_a_simulation_that_adapts_is_linked_to_its_frame(lab: Lab, work: Path) -> None:
    made = RecordedAdaptation(work / "runs" / "adapts", strategy="threshold", threshold=4.8)
    made.advance(600)
    made.close()
    recorded_tasks(work / "runs" / "tasks")
    name = f"{work.name}/strip.ipynb"
    lab.write(
        name,
        [
            "from mlipkit_widgets import MDView, TrainingMonitor\nMDView('runs/adapts', viewer='still')",
            "TrainingMonitor('runs/tasks')",
        ],
    )  # fmt: skip
    with lab.open(name, width=1000, height=2600) as page:
        page.run_all()
        page.wait_text("steps have adapted")
        page.wait_text("noise level separates")
        page.page.wait_for_function(
            f"""() => {{ const one = document.querySelector(".mlipkit-plot [aria-label^='{STRIP}']");
                const plot = one?.closest('.js-plotly-plot') || one?.querySelector('.js-plotly-plot') || one;
                return plot?._fullData?.[0]?.x.length > 500; }}"""
        )
        assert pixels(page, "Self-supervised loss, gradient") > 0.005
        assert pixels(page, "Loss of each self-supervised task") > 0.005
        both_widths(page, "adaptation_strip")
        page.page.set_viewport_size(WIDE)
        page.page.wait_for_timeout(1500)
        # A click in the strip shows the frame of that time.
        place = page.page.locator(f".mlipkit-plot [aria-label^='{STRIP}']").bounding_box()
        assert place is not None
        before = frame_on_show(page)
        page.page.mouse.move(place["x"] + 0.4 * place["width"], place["y"] + 0.3 * place["height"])
        page.page.wait_for_timeout(500)
        page.page.mouse.click(place["x"] + 0.4 * place["width"], place["y"] + 0.3 * place["height"])
        page.page.wait_for_function(f"before => ({FRAME})() !== before", arg=before, timeout=10_000)
        assert page.cell_errors() == []
        page.healthy()


FRAME = """() => [...document.querySelectorAll('.widget-html-content')].map(one => one.innerText)
    .find(text => text.includes('· step')) || ''"""


def frame_on_show(page: LabPage) -> str:
    """What the bar says of the frame."""
    return page.js(FRAME)


def test_forms_offer_tasks_and_adaptation_behind_more_settings(lab: Lab, work: Path) -> None:
    name = f"{work.name}/forms.ipynb"
    lab.write(
        name,
        [
            "from mlipkit_widgets import AdaptationView, Launcher\nLauncher('taip', automatic=False)",
            "Launcher('md', automatic=False)", "AdaptationView()",
        ],
    )  # fmt: skip
    with lab.open(name, width=1000, height=2600) as page:
        page.run_all()
        page.wait_text("test frames out of distribution")
        page.wait_text("No evaluation is open yet")
        assert "test-time adaptation (TAIP)" not in page.js("() => document.body.innerText")
        for _ in range(2):  # each is called otherwise once it is open
            page.page.locator(".mlipkit-view button:visible", has_text="More settings").first.click()
            page.page.wait_for_timeout(700)
        page.wait_text("test-time adaptation (TAIP)")
        page.wait_text("threshold: self-supervised loss above")
        page.page.wait_for_timeout(700)
        nothing_cut(page)
        both_themes(page, "adaptation_form")
        assert page.cell_errors() == []
        page.healthy()


def test_the_recorded_evaluations_are_on_screen_soon(lab: Lab) -> None:
    name = "recorded_taip.ipynb"
    lab.write(name, ["from mlipkit_widgets import Recorded, kernel_check\nkernel_check()", "Recorded('07_taip')"])
    with lab.open(name, width=1000, height=4200) as page:
        page.page.wait_for_timeout(1000)
        begin = time.perf_counter()
        page.run_all()
        page.wait_text("Recorded on ")
        page.wait_text("2 evaluations of adaptation")
        page.wait_text("water_to_ice")
        logging.info("on screen after %.1f s", time.perf_counter() - begin)
        page.page.wait_for_function(
            "() => [...document.querySelectorAll('.annotation-text')].some(one => one.textContent.includes('AUC'))",
            timeout=30_000,
        )
        nothing_cut(page)
        both_themes(page, "recorded_taip")
        page.page.set_viewport_size({"width": 1600, "height": 4200})
        page.page.wait_for_timeout(2000)
        both_themes(page, "recorded_taip_1600")
        nothing_cut(page)
        assert page.cell_errors() == []
        page.healthy()
