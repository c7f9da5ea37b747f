"""`mlipkit demo`: the whole job without a notebook, in a few minutes, ending in one HTML report.

Sample data and their report, a short training, and the ready potential of few frames in a cold and in a hot simulation:
good test errors beside a simulation that fails.
"""

from __future__ import annotations

import html
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from mlipkit.errors import RunError
from mlipkit.runs import MDSpec, ModelSpec, Run, TrainSpec, launch
from mlipkit.runs.console import figures_of, follow
from mlipkit.runs.report import data_html, write_report

DATA = "sample:ethanol_300K"
POTENTIAL = "sample:ethanol_50"
TRAINING_S = 60.0
COLD_K, HOT_K = 300.0, 900.0
STEPS = 8000


@dataclass
class Demo:
    """What was done, as `--json` writes it."""

    what: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)


def specifications(training_s: float = TRAINING_S, steps: int = STEPS) -> dict[str, TrainSpec | MDSpec]:
    """The three runs of the demonstration."""
    simulation = MDSpec(potential=POTENTIAL, start=DATA, steps=steps)
    return {
        "training": TrainSpec(
            name="training", data=DATA, time_limit_s=training_s, max_epochs=10000, model=ModelSpec(features=32)
        ),
        "cold": simulation.changed(name="cold", temperature=COLD_K),
        "hot": simulation.changed(name="hot", temperature=HOT_K),
    }


def run_demo(folder: Path, console: Console, training_s: float = TRAINING_S, steps: int = STEPS) -> Demo:
    """Do it all in a folder; a second call with the same folder re-opens the runs and writes the report again.

    Raises:
        RunError: a run crashed.
        KeyboardInterrupt: Ctrl-C, which stops all three runs.
    """
    begin = time.time()
    done = Demo()
    with console.status("looking at the sample data"):
        from mlipkit.runs.build import read_frames

        frames = read_frames(DATA, folder)
        report = frames.report()
    console.print(f"{DATA}: {len(frames)} frames", highlight=False)
    runs = {name: launch(spec, root=folder) for name, spec in specifications(training_s, steps).items()}
    for run in runs.values():
        if follow(run, console):
            for other in runs.values():
                other.stop()
            raise KeyboardInterrupt
        console.print(f"{run.name}: {run.sentence}", highlight=False)
        if run.state in ("crashed", "lost"):
            raise RunError(run.reason, where=("demo", run.name), hint=f"See {run.files.log}")
    path = write_report(
        list(runs.values()), folder / "report.html", "mlipkit demo",
        before=f"<p>{html.escape(conclusion(runs))}</p><details><summary>Data: {DATA}</summary>"
        f"{data_html(report)}</details>",
    )  # fmt: skip
    console.print(conclusion(runs), highlight=False)
    console.print(f"report: {path}", highlight=False, soft_wrap=True)
    done.what = {"runs": {name: {"state": run.state, "reason": run.reason} for name, run in runs.items()}}
    for name, run in runs.items():
        done.figures |= {f"{name}_{key}": figure for key, figure in figures_of(run).items()}
        done.paths[name] = str(run.folder)
    done.figures["total_time"] = {"value": round(time.time() - begin, 2), "unit": "s"}
    done.paths["report"] = str(path)
    return done


def conclusion(runs: dict[str, Run]) -> str:
    """What the two simulations say, in one or two sentences, whatever they say."""
    said = []
    for name, temperature in (("cold", COLD_K), ("hot", HOT_K)):
        run, verdict = runs[name], runs[name].verdict
        if run.state == "failed" and verdict is not None:
            said.append(f"at {temperature:g} K the simulation failed after {verdict.time / 1000:.3g} ps")
        else:
            said.append(f"at {temperature:g} K it held for {run.spec.steps * run.spec.timestep / 1000:.3g} ps")  # type: ignore[union-attr]
    return f"Potential {POTENTIAL}: {said[0]}, {said[1]}."
