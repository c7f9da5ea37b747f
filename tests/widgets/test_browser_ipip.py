"""Iterative pretraining in a real browser: its form, its iterations by click, and what the notebook has recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser_lab import Lab, LabPage
from loop_folders import arms
from test_browser import both_themes, drawn, nothing_cut
from test_browser import work as work

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

FIND = """const plot = [...document.querySelectorAll('.js-plotly-plot')].find(
        one => one.offsetParent && one.closest('[aria-label^="Iterations"]'));"""
MARKED = f"() => {{ {FIND} const one = plot?._fullLayout?.shapes?.[0]; return one ? one.x0 + 0.48 : null; }}"
BAR = f"""round => {{ {FIND}
    plot.scrollIntoView({{ block: 'center' }});
    const {{ xaxis, yaxis, _size }} = plot._fullLayout, place = plot.getBoundingClientRect();
    return [place.left + xaxis._offset + xaxis.d2p(round), place.top + yaxis._offset + yaxis.d2p(2)];
}}"""
PICTURES = ("Test errors of every arm", "Test simulations of every arm", "Iterations")
CUT = """() => [...document.querySelectorAll('.mlipkit-view div')].filter(one => one.style.overflowX === 'auto'
    && one.offsetParent && one.scrollWidth > one.clientWidth + 1).length"""
LEGEND = f"""() => {{ {FIND}
    const legend = plot.querySelector('.legend .bg').getBoundingClientRect();
    return plot.querySelector('.subplot.xy .gridlayer, .xy .plot').getBoundingClientRect().top - legend.bottom; }}"""
WIDE = """() => [...document.querySelectorAll('.js-plotly-plot')].every(
    one => !one.offsetParent || Math.abs(one._fullLayout.width - one.parentElement.clientWidth) <= 2)"""


def all_drawn(page: LabPage) -> None:
    for label in PICTURES:
        page.page.wait_for_selector(f".mlipkit-plot [aria-label^='{label}'] .main-svg", timeout=60_000)
        assert drawn(page.pixels(f".mlipkit-plot [aria-label^='{label}']")) > 0.005, label


def resize(page: LabPage, width: int, height: int) -> None:
    page.page.set_viewport_size({"width": width, "height": height})
    page.page.wait_for_function(WIDE, timeout=30_000)
    page.page.wait_for_timeout(1500)


def test_an_iteration_is_chosen_by_a_click_and_another_run_by_its_name(lab: Lab, work: Path) -> None:
    arms(work / "runs", seeds=(0,))
    name = f"{work.name}/loops.ipynb"
    lab.write(name, ["from mlipkit_widgets import StrategyComparison\nview = StrategyComparison('runs')\nview"])
    with lab.open(name, width=1000, height=2300) as page:
        page.run_all()
        page.wait_text("Iterative pretraining, forces on test frames", timeout=90)
        all_drawn(page)
        assert page.js(MARKED) == pytest.approx(2)
        x, y = page.js(BAR, 1)
        page.page.mouse.move(x, y)
        page.page.wait_for_timeout(400)
        page.page.mouse.click(x, y)
        page.page.wait_for_function(f"() => Math.abs(({MARKED})() - 1) < 0.01")
        page.wait_text("3 runs")
        assert drawn(page.pixels(".mlipkit-plot [aria-label^='Species of one test simulation']")) > 0.005
        assert page.js(CUT) == 0, "a table that has to be scrolled"
        page.shot("ipip_species")
        page.page.locator(".mlipkit-view select:visible", has_text="scratch 0").select_option("scratch 0")
        # One round and nothing to choose among.
        page.page.wait_for_function(f"() => ({MARKED})() === null")
        page.click("Code")
        page.wait_text("from mlipkit.strategies.ipip.comparing import compare")
        nothing_cut(page)
        assert page.cell_errors() == []
        page.healthy()


def test_the_recorded_runs_of_the_notebook(lab: Lab, work: Path) -> None:
    name = f"{work.name}/recorded.ipynb"
    lab.write(name, ["from mlipkit_widgets import Recorded\nRecorded('08_ipip')"])
    with lab.open(name, width=1000, height=2300) as page:
        page.run_all()
        page.wait_text("Recorded on")
        page.wait_text("Iterative pretraining, forces on test frames", timeout=90)
        page.wait_text("4 arms, 12 runs")
        all_drawn(page)
        assert page.js(MARKED) == pytest.approx(3)
        both_themes(page, "ipip_1000")
        nothing_cut(page)
        assert page.js(CUT) == 0, "a table that has to be scrolled"
        resize(page, 1600, 2300)
        assert page.js(LEGEND) > -2, "names lie over the bars"
        both_themes(page, "ipip_1600")
        nothing_cut(page)
        resize(page, 680, 2800)
        nothing_cut(page)
        assert page.js(LEGEND) > -2, "names lie over the bars"
        page.shot("ipip_narrow")
        assert page.cell_errors() == []
        page.healthy()


def test_the_form_asks_for_six_things(lab: Lab, work: Path) -> None:
    name = f"{work.name}/form.ipynb"
    lab.write(
        name,
        [
            "from mlipkit_widgets import Launcher, PretrainingView\nLauncher('ipip', automatic=False)",
            "PretrainingView()",
        ],
    )
    with lab.open(name, width=1000, height=1900) as page:
        page.run_all()
        page.wait_text("universal teacher")
        page.wait_text("Nothing is open yet")
        fields = page.page.locator(".mlipkit-fields:visible").first.locator(".mlipkit-field")
        assert fields.count() == 6
        nothing_cut(page)
        page.page.wait_for_timeout(700)
        both_themes(page, "ipip_form")
        page.click("More settings")
        page.wait_text("frames before failures first")
        page.page.wait_for_timeout(700)
        nothing_cut(page)
        page.shot("ipip_form_all")
        assert page.cell_errors() == []
        page.healthy()
