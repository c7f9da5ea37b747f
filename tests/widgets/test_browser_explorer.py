"""The shift explorer in a real browser: loops, clicks, pixels, how long an answer takes, restarts, themes."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from browser_lab import Lab, LabPage
from recorded import RecordedMD
from test_browser import CANVAS, both_themes, differ, drawn, measured, nothing_cut
from test_browser import work as work

from mlipkit.data import Tray, read
from mlipkit.runs import Run, TrainSpec, launch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

HERE = Path(__file__).parent
MAP = ".mlipkit-pane-map .js-plotly-plot"
MADE_UP = f"import sys\nsys.path.insert(0, {str(HERE)!r})\nimport made_up\nfrom mlipkit_widgets import ShiftExplorer\n"
# Remembers when the reader did something last, and when map and words beside the atoms were painted after it.
STOPWATCH = """() => {
    const clock = window.__clock = { start: 0, drawn: 0, told: 0 };
    for (const event of ['pointerup', 'change'])
        window.addEventListener(event, () => { clock.start = performance.now(); }, true);
    const painted = (what) => requestAnimationFrame(() => setTimeout(() => { clock[what] = performance.now(); }));
    new PerformanceObserver((list) => {
        if (list.getEntries().some((entry) => entry.detail === 'map')) painted('drawn');
    }).observe({ entryTypes: ['measure'] });
    new MutationObserver(() => painted('told'))
        .observe(document.querySelector('.mlipkit-pane-3d'), { subtree: true, childList: true, characterData: true });
}"""


def slower() -> float:
    """How much longer things may take because others use the machine, too."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def open_view(page: LabPage) -> None:
    page.run_all()
    page.page.wait_for_selector(f"{MAP} .nsewdrag", state="attached")
    page.page.wait_for_selector(CANVAS)
    page.page.wait_for_timeout(1500)


def pixel(page: LabPage, x: float, y: float) -> tuple[float, float]:
    """Where a place on the map is on the screen."""
    found = page.js(
        """([x, y]) => {
            const map = document.querySelector('.mlipkit-pane-map .js-plotly-plot');
            map.scrollIntoView({ block: 'nearest' });
            const { xaxis, yaxis, _size } = map._fullLayout, place = map.getBoundingClientRect();
            return [place.left + _size.l + xaxis.d2p(x), place.top + _size.t + yaxis.d2p(y)];
        }""",
        [x, y],
    )
    return found[0], found[1]


def lasso(page: LabPage, corners: list[tuple[float, float]]) -> None:
    """Draw around places on the map, with the mouse."""
    at = [pixel(page, *corner) for corner in corners]
    page.page.mouse.move(*at[0])
    page.page.mouse.down()
    for place in [*at[1:], at[0]]:
        page.page.mouse.move(*place, steps=6)
    page.page.mouse.up()


def answer(page: LabPage, action: Callable[[], object], which: str = "drawn") -> float:
    """Milliseconds from the end of an action to the picture that answers it, as the page measures."""
    page.js("() => { window.__clock.start = 0; window.__clock.drawn = 0; window.__clock.told = 0; }")
    action()
    page.page.wait_for_function(f"() => window.__clock.start && window.__clock.{which} > window.__clock.start")
    took = page.js(f"() => window.__clock.{which} - window.__clock.start")
    page.page.wait_for_timeout(350)
    return took


def test_lasso_to_training(lab: Lab, work: Path) -> None:
    """A loop around points, a tag, a file, and a training run whose record has the frames; then a kernel restart."""
    name = f"{work.name}/lasso.ipynb"
    lab.write(name, [MADE_UP + "view = ShiftExplorer(made_up.ethanol())\nview"])
    with lab.open(name, width=1250, height=1500) as page:
        open_view(page)
        page.wait_text("540 atoms")
        # Oxygen of the hot set: centre (3, 2) + 0.6, apart from all others.
        lasso(page, [(3.3, 2.0), (4.3, 2.0), (4.3, 3.4), (3.3, 3.4)])
        page.page.wait_for_selector(".mk-thumbnail svg")
        chosen = Tray(work / "selections" / "tray").selection
        assert 5 <= len(chosen) <= 30
        assert chosen.criterion["kind"] == "lasso"
        assert len(chosen.criterion["polygon"]) > 4
        assert {len(some) for some in chosen.atoms.values()} == {1}
        picked = f"() => document.querySelector('{MAP}')._fullData.some(t => t.name === 'picked')"
        assert not page.js(picked), "the end of a loop is no click"
        data = page.js(f"() => document.querySelector('{MAP}')._fullData.map(t => [t.name, t.x.length])")
        assert [count for what, count in data if what == "selected"] == [len(chosen)]
        assert page.page.locator(".mk-thumbnail svg").count() == min(12, len(chosen))
        tag = page.page.locator(".mlipkit-tray input[placeholder='a name for them']")
        tag.fill("far out")
        tag.press("Enter")
        page.page.wait_for_timeout(500)
        start = time.perf_counter()
        page.click("Export")
        page.wait_text("far_out.extxyz. Train on them")
        measured("export_ms", 1000 * (time.perf_counter() - start), frames=len(chosen))
        both_themes(page, "explorer_lasso")
        nothing_cut(page)
        path = work / "selections" / "far_out.extxyz"
        back = read(path)
        assert {back.frame(i)["tag"] for i in range(len(back))} == {"far out"}
        assert [int(uid) for uid in back.uids] == list(chosen.uids)
        run = launch(
            TrainSpec(
                data=["sample:ethanol_300K@:20", str(path)], model={"features": 8, "layers": 1}, max_epochs=1,  # type: ignore[arg-type]
                split={"validation": 4, "test": 0, "by": "random"},  # type: ignore[arg-type]
            ),
            folder=work / "runs" / "next",
        )  # fmt: skip
        assert run.wait(120).state == "completed", run.reason
        recorded = json.loads((run.folder / "split.json").read_text())["uids"]
        used = {int(uid, 16) for part in ("train", "validation", "test") for uid in recorded[part]}
        assert set(chosen.uids) <= used

        page.restart_kernel()
        page.wait_text("What lies in the tray is on disk")
        open_view(page)
        page.wait_text(f"{len(chosen)} frames in the tray")
        assert page.page.locator(".mk-thumbnail svg").count() == min(12, len(chosen))
        assert page.page.locator(".mlipkit-tray input[placeholder='a name for them']").input_value() == "far out"
        page.click("Undo")  # the tag
        page.click("Undo")  # the loop
        page.wait_text("Nothing is picked yet")
        assert len(Tray(work / "selections" / "tray").selection) == 0
        assert page.cell_errors() == []
        page.healthy()


def test_click_shows_the_atom(lab: Lab, work: Path) -> None:
    """A click on a point changes the 3D picture, the curve's line and the words; the slider changes the point."""
    name = f"{work.name}/click.ipynb"
    lab.write(name, [MADE_UP + "view = ShiftExplorer(made_up.two_sets())\nview"])
    with lab.open(name, width=1250, height=1500) as page:
        open_view(page)
        import made_up

        data = made_up.two_sets()
        index = data.index("hot", 17, 2)
        x, y = (float(values[index]) for values in data.coordinates("PC1, PC2"))
        before = page.pixels(CANVAS)
        assert drawn(before) > 0.005, "no atoms are drawn"
        page.page.mouse.click(*pixel(page, x, y))
        page.wait_text("O 2 · Q / limit")
        page.wait_text("17 of 39")
        page.page.wait_for_timeout(800)
        assert differ(before, page.pixels(CANVAS)) > 0.002, "the frame and its mark are not drawn"
        lines = page.js(
            "() => [...document.querySelectorAll('.mlipkit-cursor')].map(n => [n.style.display, n.style.left])"
        )
        assert [shown for shown, _ in lines if shown == "block"] == ["block"]
        picked = page.js(f"() => document.querySelector('{MAP}')._fullData.filter(t => t.name === 'picked')[0].x[0]")
        assert picked == pytest.approx(x, abs=1e-4)
        page.shot("explorer_click")
        # A toggled element takes its colour out of the picture, and the atoms stay.
        colour = page.page.locator(".mlipkit-pane-3d select")
        with_q = page.pixels(CANVAS)
        colour.select_option("element")
        page.page.wait_for_timeout(800)
        assert differ(with_q, page.pixels(CANVAS)) > 0.002, "colours of elements look like Q"
        page.click("Code")
        page.wait_text("plots.score_map(")
        page.page.set_viewport_size({"width": 700, "height": 1500})
        page.page.wait_for_timeout(900)
        nothing_cut(page)
        page.shot("explorer_narrow")
        assert page.cell_errors() == []
        page.healthy()


def test_large_map_answers_at_once(lab: Lab, work: Path) -> None:
    """A hundred thousand atoms in 500 frames of 200: from what the reader does to the picture below 300 ms."""
    name = f"{work.name}/large.ipynb"
    lab.write(name, [MADE_UP + "view = ShiftExplorer(made_up.large_set())\nview"])
    with lab.open(name, width=1250, height=1500) as page:
        open_view(page)
        page.wait_text("100 000 atoms")
        page.js(STOPWATCH)
        assert page.page.locator(f"{MAP} image").count() == 1, "an image of bins"
        points = page.js(f"() => document.querySelectorAll('{MAP} .scatterlayer path.point').length")
        assert points < 500
        random = np.random.default_rng(0)
        times: dict[str, list[float]] = {}
        load = slower()
        for turn in range(6):
            place = pixel(page, *(float(v) for v in (1.0, 0.0) + 0.2 * random.normal(size=2)))
            times.setdefault("click_to_map", []).append(answer(page, lambda at=place: page.page.mouse.click(*at)))
            place = pixel(page, *(float(v) for v in (3.0, 2.0) + 0.2 * random.normal(size=2)))
            times.setdefault("click_to_3d", []).append(
                answer(page, lambda at=place: page.page.mouse.click(*at), "told")
            )
            colour = page.page.locator(".mlipkit-shift-controls select").nth(1)
            option = ("Q / limit", "time", "element")[turn % 3]
            times.setdefault("colour", []).append(answer(page, lambda c=colour, o=option: c.select_option(o)))
            toggle = page.page.locator(".mlipkit-toggles button", has_text="H")
            times.setdefault("element", []).append(answer(page, lambda t=toggle: t.click()))
            arrow = page.page.locator("button[title='One frame on']")
            times.setdefault("frame", []).append(answer(page, lambda a=arrow: a.click()))
            corners = [(0.9 + 0.02 * turn, 0.0), (1.2, 0.1), (1.1, 0.3), (0.8, 0.25)]
            times.setdefault("lasso", []).append(answer(page, lambda c=corners: lasso(page, c)))
        for what, took in times.items():
            measured(
                f"explorer_100k_{what}_ms", statistics.median(took), worst=round(max(took), 1), load=round(load, 1)
            )
        page.shot("explorer_100k")
        medians = {what: statistics.median(took) for what, took in times.items()}
        assert max(medians.values()) < 300 * load, medians
        # Zoomed in, each point is drawn.
        page.js("() => document.querySelector(\".modebar-btn[data-val=zoom]\").dispatchEvent(new MouseEvent('click'))")
        page.page.wait_for_timeout(300)
        a, b = pixel(page, 2.0, 2.6), pixel(page, 2.4, 2.0)
        page.page.mouse.move(*a)
        page.page.mouse.down()
        page.page.mouse.move(*b, steps=8)
        page.page.mouse.up()
        page.page.wait_for_function(f"() => document.querySelectorAll('{MAP} .scatterlayer path.point').length > 50")
        assert page.page.locator(f"{MAP} image").count() == 0
        page.shot("explorer_100k_zoomed")
        page.page.locator(f"{MAP} .modebar-btn[data-title='Whole map']").click()
        page.page.wait_for_selector(f"{MAP} image")
        assert page.cell_errors() == []
        page.healthy()


def test_a_running_simulation_is_followed(lab: Lab, work: Path) -> None:
    """Real descriptors, a real run: its frames are on the map within a second."""
    name = f"{work.name}/live.ipynb"
    lab.write(
        name,
        [
            "import mlipkit as mk\nfrom mlipkit_widgets import ShiftExplorer\n"
            "run = mk.launch(mk.MDSpec(potential='calc.py:stable', start='sample:ethanol_300K@0', steps=10_000_000,\n"
            "                          stride=400, temperature=500, name='live'))\n"
            "view = ShiftExplorer(['sample:ethanol_300K@:60', run], options={'n_max': 4, 'l_max': 3})\nview"
        ],
    )
    with lab.open(name, width=1250, height=1500) as page:
        page.run_all()
        page.wait_text("fit-on set: ethanol_300K", timeout=90)
        page.page.wait_for_function(
            f"() => document.querySelector('{MAP}')?._fullData?.some(t => t.name === 'trail' && t.x.length > 3)",
            timeout=90_000,
        )
        run = Run(work / "runs" / "live")
        label = "() => +(/(\\d+) of \\d+ ·/.exec(document.querySelector('.mlipkit-explorer').innerText) ?? [0, -1])[1]"
        delays, load = [], slower()
        for _ in range(6):
            stored = len(run.trajectory())
            start = time.perf_counter()
            page.page.wait_for_function(f"wanted => ({label})() >= wanted - 1", arg=stored)
            delays.append(time.perf_counter() - start)
            page.page.wait_for_timeout(700)
        measured(
            "explorer_live_delay_ms", 1000 * statistics.median(delays), worst=round(1000 * max(delays), 1), load=load
        )
        assert statistics.median(delays) < 1.0 * load
        before = page.js(f"() => document.querySelector('{MAP}')._fullData.find(t => t.name === 'trail').x.at(-1)")
        page.page.wait_for_timeout(2500)
        after = page.js(f"() => document.querySelector('{MAP}')._fullData.find(t => t.name === 'trail').x.at(-1)")
        assert before != after, "the trail does not move"
        both_themes(page, "explorer_live")
        run.stop()
        assert page.cell_errors() == []
        page.healthy()


def test_failure_is_marked_everywhere(lab: Lab, work: Path) -> None:
    """First warning and failure on the map, the curves and the slider."""
    recorded = RecordedMD(work / "runs" / "failed", steps=20000, fails_at=3000)
    recorded.fail()
    name = f"{work.name}/failed.ipynb"
    lab.write(
        name,
        [
            "from mlipkit_widgets import ShiftExplorer\nfrom mlipkit.data import FrameSet\nimport mlipkit as mk\n"
            "run = mk.open('runs/failed')\ntrain = FrameSet.from_atoms(list(run.trajectory())[:40], source='train')\n"
            "view = ShiftExplorer([train, run], options={'n_max': 4, 'l_max': 3}, viewer='still')\nview"
        ],
    )
    with lab.open(name, width=1250, height=1500) as page:
        page.run_all()
        page.page.wait_for_function(
            f"() => document.querySelector('{MAP}')?._fullData?.some(t => t.name === 'failure')", timeout=90_000
        )
        page.page.locator(".mlipkit-explorer select").last.select_option("failed")
        page.page.wait_for_selector(".mk-marks span")
        page.page.wait_for_function(
            "() => [...document.querySelectorAll('.annotation-text')].some(n => n.textContent.includes('✖'))"
        )
        signs = page.js("() => [...document.querySelectorAll('.mk-marks span')].map(n => n.textContent)")
        assert sorted(signs) == sorted(["▼", "✖"])
        assert page.page.locator(".mlipkit-pane-3d svg circle").count() >= 9
        both_themes(page, "explorer_failed")
        nothing_cut(page)
        assert page.cell_errors() == []
        page.healthy()
