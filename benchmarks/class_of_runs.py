"""A class presses Start at once: 30 real simulations on two cores. Do all finish, in order, and do clicks answer?

    python benchmarks/class_of_runs.py --runs 30

Every run is an MD run of a copper cluster in EMT with the real worker. One process launches all, then looks at them and
steers them as views do, while they wait and run. Appends one JSON line to `results/class_of_runs.jsonl`. The load that
others put on the machine stands in the line: with 2 cores and others at work, times are upper bounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from records import command, keep

import mlipkit as mk
from mlipkit.runs.run import ACTIVE

CALC = """
from ase.calculators.emt import EMT
from ase.cluster import Octahedron

def emt():
    return EMT()

def cluster():
    return Octahedron("Cu", 2, 0)
"""


class Clicks:
    """Seconds that each kind of click took to answer."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def __call__(self, what: str, action: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        found = action()
        self.seconds.setdefault(what, []).append(time.perf_counter() - begin)
        return found

    def summary(self) -> dict[str, dict[str, float]]:
        return {
            what: {"n": len(times), "median_s": round(statistics.median(times), 4), "longest_s": round(max(times), 4)}
            for what, times in self.seconds.items()
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()
    load, home, said_by = os.getloadavg()[0], Path.cwd(), command()
    click, begin = Clicks(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"MLIPKIT_CORES": str(args.cores), "MLIPKIT_QUEUE": str(Path(folder, "queue"))}
        os.chdir(folder)
        Path("calc.py").write_text(CALC)
        runs = []
        for number in range(args.runs):
            spec = mk.MDSpec(potential="calc.py:emt", start="calc.py:cluster", steps=args.steps, name=f"r{number:02d}")
            runs.append(click("launch", lambda: mk.launch(spec)))  # noqa: B023
        launched = time.monotonic() - begin
        said = []
        while any(run.state in ACTIVE for run in runs):
            for run in runs[:: max(1, args.runs // 6)]:
                click("look", lambda: run.sentence)  # noqa: B023
            waiting = [run for run in runs if run.state == "queued" and run.queue_position]
            if waiting:
                click("pause", waiting[-1].pause)
                click("resume", waiting[-1].resume)
                if waiting[-1].queue_wait is not None:
                    said.append((time.monotonic() - begin, len(waiting)))
            time.sleep(0.2)
        began = [run.started_at or float("nan") for run in runs]
        order = sorted(range(args.runs), key=lambda number: began[number])
        states = [run.state for run in runs]
        os.chdir(home)
    keep("class_of_runs", {
        "runs": args.runs, "cores": args.cores, "steps": args.steps, "completed": states.count("completed"),
        "other_states": sorted(set(states) - {"completed"}),
        "farthest_from_order": max(abs(place - number) for place, number in enumerate(order)),
        "all_launched_s": round(launched, 2), "all_done_s": round(time.monotonic() - begin, 1),
        "wait_first_said_s": round(said[0][0], 1) if said else None, "clicks": click.summary(),
        "load_before": round(load, 1), "command": said_by,
    })  # fmt: skip


if __name__ == "__main__":
    main()
