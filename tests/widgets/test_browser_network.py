"""The network goes for a while and comes back: views catch up by themselves, and no cell is run again."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_lab import STATUS, Lab, LabPage
from network_wire import Wire
from test_browser import CANVAS, SPRINGS, differ

from mlipkit.runs import Run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

CELLS = [
    "from mlipkit_widgets import MDView, kernel_check\nkernel_check()\nimport os; os.chdir({folder!r})",
    "import mlipkit as mk\n"
    "run = mk.launch(mk.MDSpec(name='long', potential='calc.py:stable', start='start.xyz', temperature=300,\n"
    "                          steps=10_000_000, stride=50))\nMDView(run)",
]
CONNECTED = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.connectionStatus"
CAUGHT_UP_S = 90
"""JupyterLab tries again after pauses that double; after 30 s without network the next try may be half a minute off."""


@pytest.fixture
def wire(lab: Lab) -> Iterator[Wire]:
    made = Wire(lab.port)
    yield made
    made.close()


@pytest.fixture
def live(lab: Lab, wire: Wire, tmp_path: Path) -> Iterator[tuple[LabPage, Run]]:
    """A page on the wire, with a simulation that goes on as long as it is watched."""
    from ase.build import molecule
    from ase.io import write

    (tmp_path / "calc.py").write_text(SPRINGS)
    write(tmp_path / "start.xyz", molecule("CH3CH2OH"))
    lab.write("network.ipynb", [cell.format(folder=str(tmp_path)) if not i else cell for i, cell in enumerate(CELLS)])
    with lab.open("network.ipynb", port=wire.port) as page:
        page.run_all()
        page.wait_text("RUNNING", timeout=60)
        page.page.wait_for_selector(CANVAS)
        page.page.wait_for_function(f"() => ({SHOWN})() > 500", timeout=60_000)
        run = Run(tmp_path / "runs" / "long")
        yield page, run
        run.stop()
        run.wait(30)


# Simulated time on show, in fs: under the picture, "120 of 130 · <b>0.6500 ps</b> · step 1300".
SHOWN = """() => {
    const text = [...document.querySelectorAll('.jp-OutputArea')].map(n => n.innerText).join(' ');
    const step = text.match(/· step (\\d+)/);
    return step ? Number(step[1]) : -1;
}"""


def step_shown(page: LabPage) -> int:
    """Step of the frame on show."""
    return int(page.js(SHOWN))


def numbers(page: LabPage) -> list[str]:
    """What stands before the cells: which have run, in which order."""
    return page.js("() => [...document.querySelectorAll('.jp-InputArea-prompt')].map(n => n.textContent)")


def goes_and_comes_back(page: LabPage, run: Run, wire: Wire, seconds: float, hold: bool) -> None:
    before, prompts = step_shown(page), numbers(page)
    picture = page.pixels(CANVAS)
    if hold:
        wire.hold()
    else:
        wire.cut()
        page.page.wait_for_function(f"() => {CONNECTED} !== 'connected'")
    time.sleep(seconds)
    # Nothing arrives meanwhile, and the run goes on.
    frozen = step_shown(page)
    time.sleep(1.0)
    assert step_shown(page) == frozen
    done = run.progress.done
    assert done > frozen
    wire.mend()
    page.page.wait_for_function(f"() => {CONNECTED} === 'connected'", timeout=CAUGHT_UP_S * 1000)
    page.page.wait_for_function(f"() => ({SHOWN})() > {done}", timeout=CAUGHT_UP_S * 1000)
    assert done > before
    assert differ(picture, page.pixels(CANVAS)) > 0.005
    # It goes on from there, live, and so do the curves.
    now = step_shown(page)
    page.page.wait_for_function(f"() => ({SHOWN})() > {now}")
    # JupyterLab itself says in a dialog that there was no server, and waits for a click; no part of the view needs it.
    for _ in range(5):
        if dialogs := page.page.locator(".jp-Dialog-button:visible").all():
            dialogs[-1].click()
            page.page.wait_for_timeout(300)
    # Buttons act.
    page.click("Pause")
    page.wait_text("PAUSED")
    assert run.state == "paused"
    page.click("Resume")
    page.wait_text("RUNNING")
    assert run.state == "running"
    assert numbers(page) == prompts
    assert page.js(f"() => {STATUS}") in ("idle", "busy")
    broken = "() => [...document.querySelectorAll('.jupyter-widgets-error-widget')].map(n => n.innerText)"
    assert page.js(broken) == []
    assert page.outside == []
    # What is refused while there is no network is no error of the page.
    assert [error for error in page.errors if not re.search("NetworkError|Failed to fetch|Network", error)] == []


@pytest.mark.parametrize("hold", [False, True], ids=["broken", "held"])
def test_a_view_catches_up_after_five_seconds_without_network(live, wire: Wire, hold: bool):
    goes_and_comes_back(*live, wire, 5, hold)
    live[0].shot("network_back")


@pytest.mark.slow
@pytest.mark.parametrize("hold", [False, True], ids=["broken", "held"])
def test_a_view_catches_up_after_thirty_seconds_without_network(live, wire: Wire, hold: bool):
    goes_and_comes_back(*live, wire, 30, hold)
