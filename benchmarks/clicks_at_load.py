"""How long does a click take to answer while both cores train and simulate?

    python benchmarks/clicks_at_load.py

A training and a simulation of a packaged potential run as processes of their own, and the notebook shows both. Each
round presses Pause and Resume of the simulation, opens and closes its code and goes a frame back, in JupyterLab and a
headless Chromium: from the moment at which the browser gets the click to the change on the page, both by its own clock
(what moves the pointer waits for two drawn frames before it presses). Pause and Resume wait for the worker's answer.
The browser draws 3D by software, on the same cores. Appends one
JSON line to `results/clicks_at_load.jsonl`; with it what the machine was doing besides.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from first_picture import chromium
from records import command, keep

from browser_lab import Lab, LabPage  # isort: skip  # its folder is known since first_picture

CELLS = [
    "from mlipkit_widgets import MDView, TrainingMonitor, kernel_check\nkernel_check()\nimport mlipkit as mk",
    "training = mk.launch(mk.TrainSpec(name='training', data='sample:ethanol_300K', n_train=500, max_epochs=100_000,\n"
    "    model=mk.runs.ModelSpec(features=32, layers=2)))\n"
    "md = mk.launch(mk.MDSpec(name='md', potential='sample:ethanol_1000', start='sample:ethanol_300K@0',\n"
    "    temperature=300, time_ps=100_000))\nMDView(md)",
    "TrainingMonitor(training)",
]
TEXT = "text => document.querySelector('.mlipkit-view').innerText.includes(text)"
NO_TEXT = "text => !document.querySelector('.mlipkit-view').innerText.includes(text)"
FRAME = "() => document.querySelector('.mlipkit-view').innerText.match(/\\d+ of \\d+ · .*step \\d+/)?.[0]"
TEXT_OF_CODE = "import mlipkit as mk"
ANSWER = """([condition, argument]) => {
  const holds = eval(condition);
  window.answered = new Promise((done) => window.addEventListener("click", (click) => {
    const look = setInterval(() => {
      if (!holds(argument)) return;
      clearInterval(look);
      done((performance.now() - click.timeStamp) / 1000);
    }, 10);
  }, { capture: true, once: true }));
}"""
"""Seconds from the next click until a condition holds, as a promise."""


def rounds(page: LabPage, number: int) -> dict[str, list[float]]:
    """Seconds from each click to what it changes on the page."""
    took: dict[str, list[float]] = {}

    def timed(name: str, act: Callable[[], object], condition: str, argument: object = None) -> None:
        page.page.evaluate(ANSWER, [condition, argument])
        act()
        took.setdefault(name, []).append(float(page.page.evaluate("() => window.answered")))

    view = page.page.locator(".mlipkit-view").first

    def press(text: str) -> Callable[[], object]:
        return lambda: view.locator("button:visible", has_text=text).first.click()

    for _ in range(number):
        timed("pause", press("Pause"), TEXT, "PAUSED")
        timed("code", press("Code"), TEXT, TEXT_OF_CODE)
        timed("code_closed", press("Code"), NO_TEXT, TEXT_OF_CODE)
        timed("frame_back", press("◀"), f"shown => ({FRAME})() !== shown", page.js(FRAME))
        timed("resume", press("Resume"), TEXT, "RUNNING")
        page.page.wait_for_timeout(1000)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), chromium())
        try:
            lab.write("load.ipynb", CELLS)
            with lab.open("load.ipynb", width=1100, height=1300) as page:
                page.run_all()
                page.wait_text("RUNNING", timeout=120)
                page.page.wait_for_selector(".mlipkit-scene canvas", timeout=120_000)
                page.page.wait_for_function("() => document.body.innerText.includes('epoch 2')", timeout=300_000)
                workers = [one for one in psutil.process_iter() if folder in " ".join(_words(one))]
                before = sum(sum(one.cpu_times()[:2]) for one in workers)
                begin = time.monotonic()
                took = rounds(page, args.rounds)
                seconds = time.monotonic() - begin
                busy = (sum(sum(one.cpu_times()[:2]) for one in workers) - before) / seconds
                page.healthy()
        finally:
            for one in psutil.process_iter():
                if "mlipkit.runs.worker" in _words(one) and folder in " ".join(_words(one)):
                    one.kill()
            lab.close()
    keep("clicks_at_load", {
        "rounds": args.rounds, "cores": os.cpu_count(), "cores_busy_with_runs": round(busy, 2),
        "clicks": {
            name: {"n": len(each), "median_s": round(statistics.median(each), 3), "longest_s": round(max(each), 3)}
            for name, each in took.items()
        },
        "load_before": round(load, 1), "load_after": round(os.getloadavg()[0], 1), "command": command(),
    })  # fmt: skip


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


if __name__ == "__main__":
    main()
