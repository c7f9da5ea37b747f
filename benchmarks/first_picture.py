"""How long until there is something to see? In JupyterLab and a headless Chromium, as a reader meets it.

    python benchmarks/first_picture.py recorded      # each notebook: first cell, then the recorded picture
    python benchmarks/first_picture.py lab           # from `mlipkit lab` to atoms of a live simulation that move

`recorded` runs the first cell of a notebook (which imports the package) and then the cell with the recording, and
looks at the page every 50 ms. `lab` starts the server as `make lab` does, opens 00_start_here, runs all cells and looks
at the 3D picture of the first simulation until it has changed twice, each time with the step below it. Seconds on the
clock, and beside them the seconds of computing in the kernel, which others on the machine do not stretch. Appends JSON
lines to `results/first_picture.jsonl`.
Needs playwright and Chromium; the browser draws 3D without a graphics card.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
import psutil
from records import command, keep

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser_lab import FLAGS, KERNEL, STATUS, Lab, LabPage  # noqa: E402

NOTEBOOKS = ROOT / "notebooks"
LOOK_S = 0.05
PICTURE = {
    "00_start_here": ".mlipkit-scene canvas", "01_your_own_potential": ".mlipkit-scene canvas",
    "03_explore_a_shift": ".mlipkit-pane-map .js-plotly-plot .main-svg",
    "04_naive_vs_iterative": ".js-plotly-plot .scatterlayer .trace", "05_close_the_loop": ".mlipkit-scene canvas",
    "06_dynamic_training": ".js-plotly-plot .scatterlayer .trace", "07_taip": ".js-plotly-plot .scatterlayer .trace",
    "08_ipip": ".js-plotly-plot .scatterlayer .trace",
}  # fmt: skip
"""What counts as the picture of a recording: atoms in 3D, the map, or errors of arms."""
FIRST_MD = "MDView(first)"


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        raise SystemExit("needs Chromium")
    return found


def kernel_seconds(server: int) -> float:
    """Computing of the kernels below a server so far, s."""
    children = psutil.Process(server).children(recursive=True)
    kernels = [one for one in children if "ipykernel_launcher" in " ".join(one.cmdline())]
    return sum(sum(one.cpu_times()[:2]) for one in kernels)


def until(page: LabPage, condition: str, argument: Any = None, timeout: float = 120) -> None:
    page.page.wait_for_function(condition, arg=argument, timeout=timeout * 1000, polling=1000 * LOOK_S)


def run_cell(page: LabPage, index: int) -> None:
    page.js(
        """index => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = index;
                      window.jupyterapp.commands.execute('notebook:run-cell'); }""",
        index,
    )


def recorded(lab: Lab, name: str) -> dict[str, float]:
    """One opening of a notebook in a new kernel."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    notebook.metadata["kernelspec"] = {"name": KERNEL, "display_name": "mlipkit test", "language": "python"}
    nbformat.write(notebook, lab.work / f"{name}.ipynb")
    code = [index for index, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    shown = next(index for index in code if "Recorded(" in notebook.cells[index].source)
    with lab.open(f"{name}.ipynb", width=1100, height=1000) as page:
        used = kernel_seconds(lab.process.pid)
        begin = time.monotonic()
        run_cell(page, code[0])
        until(page, "() => document.querySelector('.jp-CodeCell .jp-InputPrompt')?.textContent.includes('[1]')")
        imported, used_importing = time.monotonic() - begin, kernel_seconds(lab.process.pid) - used
        begin, used = time.monotonic(), kernel_seconds(lab.process.pid)
        run_cell(page, shown)
        until(page, "() => document.querySelector('.jp-Notebook').innerText.includes('Recorded on ')")
        words = time.monotonic() - begin
        until(page, "what => !!document.querySelector(what)", PICTURE[name])
        picture, used_showing = time.monotonic() - begin, kernel_seconds(lab.process.pid) - used
        page.healthy()
    return {
        "import_s": imported, "import_cpu_s": used_importing, "words_s": words, "picture_s": picture,
        "picture_cpu_s": used_showing,
    }  # fmt: skip


def in_browser(args: argparse.Namespace) -> None:
    """The recorded picture of each notebook."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), chromium())
        try:
            for name in args.notebooks or PICTURE:
                load = os.getloadavg()[0]
                found = [recorded(lab, name) for _ in range(args.repeat)]
                middle = {key: round(statistics.median(one[key] for one in found), 2) for key in found[0]}
                shortest = round(min(one["picture_s"] for one in found), 2)
                keep("first_picture", {
                    "what": "recorded", "notebook": name, "n": len(found), **middle, "picture_shortest_s": shortest,
                    "load_before": round(load, 1), "command": command(),
                })  # fmt: skip
        finally:
            lab.close()


def from_the_start(args: argparse.Namespace) -> None:
    """`mlipkit lab` in an empty folder, up to atoms that move."""
    from playwright.sync_api import sync_playwright

    for _ in range(args.repeat):
        load, marks = os.getloadavg()[0], {}
        with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
            place = {f"JUPYTER_{what}_DIR": f"{folder}/{what.lower()}" for what in ("CONFIG", "DATA", "RUNTIME")}
            settings = {"JUPYTERLAB_SETTINGS_DIR": f"{folder}/settings", "IPYTHONDIR": f"{folder}/ipython"}
            waits = {"MLIPKIT_QUEUE": f"{folder}/queue"}
            # Otherwise everything is as `make lab` has it; this lets a script press "Run All Cells".
            Path(folder, "config").mkdir()
            Path(folder, "config", "jupyter_lab_config.py").write_text("c.LabApp.expose_app_in_browser = True")
            begin = time.monotonic()
            server = subprocess.Popen(
                [sys.executable, "-m", "mlipkit.cli", "lab", f"{folder}/notebooks", "--no-browser", "--port",
                 str(args.port)],
                env={**os.environ, **place, **settings, **waits, "JUPYTER_TOKEN": "t"}, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                moved(playwright, args.port, marks, begin)
            finally:
                children = psutil.Process(server.pid).children(recursive=True)
                for one in [*children, psutil.Process(server.pid)]:
                    one.kill()
                server.wait()
                end_runs(Path(folder))
        keep("first_picture", {
            "what": "lab", **{key: round(value, 1) for key, value in marks.items()}, "load_before": round(load, 1),
            "command": command(),
        })  # fmt: skip


def moved(playwright: Any, port: int, marks: dict[str, float], begin: float) -> None:
    """Fill `marks` with seconds since the beginning."""

    def mark(name: str) -> None:
        marks[name] = time.monotonic() - begin

    browser = playwright.chromium.launch(executable_path=chromium(), headless=True, args=FLAGS)
    page = browser.new_context(viewport={"width": 1100, "height": 1000}).new_page()
    page.set_default_timeout(180_000)
    while True:
        try:
            page.goto(f"http://127.0.0.1:{port}/lab/tree/00_start_here.ipynb?token=t")
            break
        except Exception:
            if time.monotonic() - begin > 180:
                raise
            time.sleep(0.2)
    mark("server_s")
    page.wait_for_selector(".jp-Notebook")
    page.wait_for_function(f"() => {STATUS} === 'idle'")
    mark("notebook_s")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    # The page holds the output in the middle of the screen while cells above it still grow.
    find = f"""() => {{
        const notebook = window.jupyterapp.shell.currentWidget.content;
        const cell = notebook.widgets.find(one => one.model.sharedModel.source.includes('{FIRST_MD}'));
        const canvas = cell.outputArea?.node.querySelector('.mlipkit-scene canvas');
        if (!canvas) return null;
        canvas.scrollIntoView({{ block: 'center' }});
        const {{ x, y, width, height }} = canvas.getBoundingClientRect();
        const step = cell.outputArea.node.innerText.match(/· step (\\d+)/)?.[1];
        return width && height && step ? {{ step, clip: {{ x, y, width, height }} }} : null;
    }}"""
    page.wait_for_function(f"() => !!({find})()", polling=100)
    mark("picture_s")
    seen: list[tuple[str, bytes]] = []
    while len(seen) < 3:
        found = page.evaluate(find)
        now = (found["step"], page.screenshot(clip=found["clip"])) if found else None
        if now is not None and not seen:
            seen.append(now)
        elif now is not None and now[0] != seen[-1][0] and now[1] != seen[-1][1]:
            seen.append(now)
            mark("first_change_s" if len(seen) == 2 else "moving_s")
        if time.monotonic() - begin > 300:
            raise RuntimeError("nothing moves")
        time.sleep(LOOK_S)
    browser.close()


def end_runs(folder: Path) -> None:
    """End the simulations that the notebook has started: they outlive their server."""
    import mlipkit as mk

    for spec in folder.glob("notebooks/runs/*/spec.yaml"):
        record = mk.open(spec.parent).files.read("pid.json")
        if record.get("pid") and psutil.pid_exists(int(record["pid"])):
            psutil.Process(int(record["pid"])).kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["recorded", "lab"])
    parser.add_argument("notebooks", nargs="*", help="of recorded: which ones; all when omitted")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--port", type=int, default=8899)
    args = parser.parse_args()
    {"recorded": in_browser, "lab": from_the_start}[args.what](args)


if __name__ == "__main__":
    main()
