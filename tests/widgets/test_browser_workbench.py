"""The Workbench in a real browser: the loop closed by clicks alone, each state in two widths and themes, the keys."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from browser_lab import Lab, LabPage
from PIL import Image
from recorded import RecordedMD, RecordedReplicas, folder_of, log, recorded_training
from test_browser import CANVAS, nothing_cut
from test_browser import work as work

import mlipkit as mk
from mlipkit.events import Finished, Waiting
from mlipkit.runs import MDSpec, Run, process

pytestmark = [pytest.mark.browser, pytest.mark.timeout(420)]

BENCH = ".mlipkit-workbench"
NEXT = f"{BENCH} .mlipkit-next button.mod-primary:visible"
OPEN = "from mlipkit_widgets import Workbench\nbench = Workbench('runs')\nbench"
MAP = ".mlipkit-pane-side .js-plotly-plot"
WHERE = f"{BENCH} .widget-html-content:has-text('· step')"
# Where on the screen the point of the map with the largest x lies; null before there are points of the simulation.
FURTHEST = """() => {
    const map = document.querySelector('.mlipkit-pane-side .js-plotly-plot');
    const points = (map?._fullData ?? []).filter(t => t.type === 'scatter' && t.visible === true)
        .flatMap(t => [...t.x].map((x, i) => [x, t.y[i]])).filter(([x, y]) => x !== null && y !== null);
    if (points.length < 500) return null;
    const [x, y] = points.reduce((best, one) => one[0] > best[0] ? one : best);
    const { xaxis, yaxis, _size } = map._fullLayout, place = map.getBoundingClientRect();
    return [place.left + _size.l + xaxis.d2p(x), place.top + _size.t + yaxis.d2p(y)];
}"""


def place(work: Path) -> str:
    return f"{work.name}/bench.ipynb"


def step(page: LabPage, words: str, timeout: float = 90) -> None:
    """Wait until NEXT names this step, and press its button."""
    button = page.page.locator(NEXT, has_text=words).first
    button.wait_for(timeout=timeout * 1000)
    page.page.wait_for_function(
        "words => [...document.querySelectorAll('.mlipkit-next button')].some(n => !n.disabled && "
        "n.innerText.includes(words))",
        arg=words, timeout=timeout * 1000,
    )  # fmt: skip
    button.click()


def four_pictures(page: LabPage, name: str) -> None:
    """The Workbench at 1000 and 1600 px, light and dark; nothing sticks out."""
    for width in (1600, 1000):
        page.page.set_viewport_size({"width": width, "height": 1500})
        for theme in ("Light", "Dark"):
            page.set_theme(f"JupyterLab {theme}")
            page.page.wait_for_timeout(1200)
            nothing_cut(page)
            page.shot(f"{name}_{width}_{theme.lower()}", BENCH)
    page.set_theme("JupyterLab Light")


@contextlib.contextmanager
def home(folder: Path):
    """Launches happen where the notebook lies."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.mark.skipif(importlib.util.find_spec("tblite") is None, reason="needs tblite")
def test_the_loop_is_closed_by_clicks_alone(
    lab: Lab, work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLIPKIT_QUEUE", str(tmp_path / "queue"))
    with home(work):
        spec = MDSpec(potential="sample:ethanol_50", start="sample:ethanol_300K@0", temperature=900, replicas=3)
        hot = mk.launch(spec.changed(steps=900, stride=10, name="hot"))
    lab.write(place(work), [OPEN])
    with lab.open(place(work), width=1600, height=1700) as page:
        page.run_all()
        step(page, "Go to failure")
        page.wait_text("before failure")
        # The map is opened by a button and lives beside the atoms: one click moves all.
        page.page.wait_for_selector(CANVAS)
        page.click("Show the map")
        page.page.wait_for_selector(f"{MAP} .nsewdrag", state="attached", timeout=150_000)
        page.page.wait_for_timeout(1500)
        page.shot("loop_map", BENCH)
        before = page.page.locator(WHERE).inner_text()
        page.page.wait_for_function(f"() => ({FURTHEST})() !== null", timeout=60_000)
        page.page.mouse.click(*page.js(FURTHEST))
        page.page.wait_for_function(
            "before => [...document.querySelectorAll('.mlipkit-workbench .widget-html-content')]"
            ".some(n => n.innerText.includes('· step') && n.innerText !== before)", arg=before
        )  # fmt: skip
        page.click("✖ Map")
        step(page, "Select frames")
        page.page.wait_for_selector(f"{BENCH} .mk-thumbnail svg")
        page.wait_text("10 frames")
        page.page.wait_for_timeout(400)
        page.shot("loop_selected", BENCH)
        page.wait_text("(about", timeout=60)
        step(page, "Label 10 frames")
        page.wait_text("10 of 10 frames labelled", timeout=90)
        step(page, "Train ethanol_50 on")
        page.wait_text("latest 2", timeout=120)
        page.click("Stop")
        page.wait_text("STOPPED", timeout=60)
        step(page, "Run again")
        page.wait_text("hot_round2")
        step(page, "Compare survival", timeout=150)
        page.wait_text("of 3 held")
        page.wait_text("log-rank")
        page.page.wait_for_timeout(1500)
        page.shot("loop_compared", BENCH)
        nothing_cut(page)
        again = Run(work / "runs" / "hot_round2")
        assert again.spec.potential == "runs/train_on_label_hot"
        assert mk.survival_change(hot, again).sentence in page.output()
        tree = page.page.locator(f"{BENCH} .mk-run").all_inner_texts()
        assert [text.split("\n")[1] for text in tree] == ["hot", "label_hot", "train_on_label_hot", "hot_round2"]
        assert page.cell_errors() == []
        page.healthy()
        # After a kernel restart all is as it was; the widget manager of JupyterLab itself may complain meanwhile.
        page.restart_kernel()
        page.run_all()
        page.page.wait_for_selector(f"{BENCH} .mk-run[aria-selected=true][data-name=hot_round2]")
        assert "Compare survival" not in page.page.locator(f"{BENCH} .mlipkit-next").last.inner_text()
        assert page.cell_errors() == []


def test_from_an_empty_folder_and_own_data(lab: Lab, work: Path) -> None:
    from mlipkit.data import samples, write

    write(work / "mine.extxyz", samples.load("ethanol_300K")[:40])
    lab.write(place(work), [OPEN])
    with lab.open(place(work), width=1600, height=900) as page:
        page.run_all()
        page.wait_text("No run is open")
        page.page.wait_for_timeout(800)
        four_pictures(page, "empty")
        page.click("Open my data")
        field = page.page.locator(".mlipkit-begin input")
        field.fill("min.extxyz")
        page.wait_text("no such file")
        field.fill("mine.extxyz")
        page.wait_text("forces 40/40")
        page.shot("own_data", BENCH)
        page.click("Code")
        page.wait_text("mk.launch(mk.TrainSpec(")
        page.click("Train on it")
        page.wait_text("RUNNING", timeout=60)
        page.wait_text("train_mine is running")
        page.wait_text("latest 1", timeout=60)
        page.click("Stop")
        page.wait_text("Run MD", timeout=60)
        nothing_cut(page)
        assert page.cell_errors() == []
        page.healthy()


def waiting(work: Path) -> None:
    trained = recorded_training(work / "runs" / "first_potential")
    files = folder_of(work / "runs" / "md_later", MDSpec(potential=str(trained.folder)))
    log(files, Waiting("first_potential"))
    files.write("pid.json", {**process.describe(), "phase": "waiting", "after_seq": 0})
    files.beat()


def running(work: Path) -> None:
    recorded_training(work / "runs" / "first_potential")
    md = RecordedMD(work / "runs" / "md_600K", steps=4000)
    md.advance(1500)
    md.alive()


def failed(work: Path) -> None:
    recorded_training(work / "runs" / "first_potential")
    replicas = RecordedReplicas(work / "runs" / "hot", 6, {0: 500, 1: 700, 3: 640, 4: 820}, steps=1000)
    replicas.finish()


def lost(work: Path) -> None:
    md = RecordedMD(work / "runs" / "md_600K", steps=4000)
    md.advance(1500)
    md.lost()


def crashed(work: Path) -> None:
    md = RecordedMD(work / "runs" / "md_600K", steps=4000)
    md.advance(1500)
    log(md.files, Finished("crashed", "out of memory. A smaller batch_size or model needs less"))
    md.close()


@pytest.mark.parametrize(
    ("state", "word", "button"),
    [
        (waiting, "WAITING", "md_later is waiting"),
        (running, "RUNNING", "md_600K is running"),
        (failed, "FAILED", "Go to failure"),
        (lost, "LOST CONTACT", "Resume md_600K"),
        (crashed, "CRASHED", "Out of memory"),
    ],
    ids=["waiting", "running", "failed", "lost", "crashed"],
)
def test_each_state_is_designed(lab: Lab, work: Path, state, word: str, button: str) -> None:
    state(work)
    lab.write(place(work), [OPEN])
    with lab.open(place(work), width=1600, height=1500) as page:
        page.run_all()
        page.wait_text(word)
        page.wait_text(button)
        if state is not waiting:
            page.page.wait_for_selector(CANVAS)
        page.page.wait_for_timeout(1500)
        four_pictures(page, state.__name__)
        page.healthy()


def test_the_page_writes_what_it_shows(lab: Lab, work: Path) -> None:
    """One file of the whole Workbench, and each figure as SVG and PNG, light on a dark page too."""
    failed(work)
    lab.write(place(work), [OPEN])
    with lab.open(place(work), width=1600, height=1500, dark=True) as page:
        page.run_all()
        page.wait_text("Go to failure")
        page.wait_traces(5)
        page.click("Export")
        page.wait_text("Written: exports/workbench_hot.html")
        assert "FAILED" in (work / "exports" / "workbench_hot.html").read_text()
        page.click("Pictures")
        page.wait_text("Written: exports/workbench_hot.svg, exports/workbench_hot.png", timeout=60)
        drawings, pictures = sorted((work / "exports").glob("*.svg")), sorted((work / "exports").glob("*.png"))
        assert len(drawings) == len(pictures) >= 3
        for path in drawings:
            root = ElementTree.fromstring(path.read_text())
            assert root.tag.endswith("svg")
            assert float(root.attrib["width"]) > 200
            assert "rgb(255, 255, 255)" in path.read_text(), "paper is white"
        first = np.asarray(Image.open(pictures[0]).convert("L"))
        assert first.shape[1] > 800
        assert first.mean() > 200, "mostly paper"
        assert first.min() < 128, "something is drawn on it"
        page.healthy()


def test_what_could_help(lab: Lab, work: Path) -> None:
    """Which strategies fit a failed run, beside it; a button fills in the form."""
    failed(work)
    lab.write(place(work), [OPEN])
    with lab.open(place(work), width=1600, height=1500) as page:
        page.run_all()
        page.wait_text("Go to failure")
        page.click("What could help?")
        page.wait_text("Closing the loop: labels from failures", timeout=60)
        page.wait_text("NEEDS SOMETHING")
        four_pictures(page, "applies")
        page.click("Form: iterative")
        page.wait_text("molecules in a box")
        nothing_cut(page)
        page.click("Close the answers")
        page.page.wait_for_function("() => !document.body.innerText.includes('molecules in a box')")
        assert page.cell_errors() == []
        page.healthy()


FOCUSED = """() => {
    const n = document.activeElement;
    return n && n.closest('.mlipkit-workbench')
        ? (n.getAttribute('aria-label') || n.innerText || n.title || n.placeholder || n.tagName).trim() : null;
}"""
NAMELESS = """() => [...document.querySelectorAll(
    '.mlipkit-workbench button, .mlipkit-workbench input, .mlipkit-workbench select, .mlipkit-workbench [role=slider],'
    + '.mlipkit-workbench [role=option]')]
    .filter(n => n.offsetParent && n.type !== 'hidden')
    .filter(n => !(n.getAttribute('aria-label') || n.innerText.trim() || n.title || n.labels?.[0]?.innerText.trim()
        || n.closest('.widget-inline-hbox')?.querySelector('.widget-label')?.innerText.trim()))
    .map(n => n.outerHTML.slice(0, 120))"""


def test_everything_is_reached_by_the_keyboard(lab: Lab, work: Path) -> None:
    failed(work)
    lab.write(place(work), [OPEN])
    with lab.open(place(work), width=1600, height=1500) as page:
        page.run_all()
        page.wait_text("Go to failure")
        page.page.wait_for_selector(CANVAS)
        page.page.wait_for_timeout(1500)
        assert page.js(NAMELESS) == []
        page.page.locator(f"{BENCH} .mk-run[aria-selected=true]").focus()
        cells = page.page.locator(".jp-Cell").count()
        page.page.keyboard.press("b")
        assert page.page.locator(".jp-Cell").count() == cells, "a letter is no command of the notebook here"
        page.page.keyboard.press("ArrowUp")
        assert "first_potential" in page.js(FOCUSED)
        page.page.keyboard.press("Enter")
        page.page.wait_for_selector(f"{BENCH} .mk-run[aria-selected=true][data-name=first_potential]")
        page.page.keyboard.press("End")
        page.page.keyboard.press(" ")
        page.page.wait_for_selector(f"{BENCH} .mk-run[aria-selected=true][data-name=hot]")
        page.wait_text("4 of 6 failed")
        page.page.wait_for_timeout(1000)
        reached = set()
        for _ in range(100):
            page.page.keyboard.press("Tab")
            found = page.js(FOCUSED)
            if found is None:
                break
            reached.add(found)
        for name in ("+ New run", "Duplicate", "Delete", "Show the map", "frame", "Go to failure", "Code", "YAML",
                     "Folder", "One frame on", "no.", "+ Tray", "Pictures"):  # fmt: skip
            assert any(name in one for one in reached), (name, sorted(reached))
        page.page.locator(NEXT).first.focus()
        page.page.keyboard.press("Enter")
        page.wait_text("before failure")
        page.healthy()
