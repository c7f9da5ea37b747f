"""A run on the terminal: a progress bar while it goes on, messages above it, a table at the end."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from mlipkit import events
from mlipkit.labelling.job import LABELLED
from mlipkit.runs.run import ACTIVE, Run

MILLI = 1000.0
POLL_S = 0.2


def follow(run: Run, console: Console) -> bool:
    """Show a run until it ends. Ctrl-C asks it to stop, a second Ctrl-C leaves it alone in the background.

    Returns:
        Whether there was a Ctrl-C.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    seen, stopping = run.entries()[-1].seq if run.entries() and run.state not in ACTIVE else 0, False
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(run.name, total=None)
        while True:
            try:
                state = run.state
                for entry in run.entries(seen):
                    seen = entry.seq
                    text = line(entry.event)
                    if text:
                        console.print(f"[dim]{run.name}[/dim] {text}", highlight=False)
                progress = run.progress
                note = run.reason if state in ("waiting", "queued") else ""
                bar.update(
                    task, description=f"{run.name} {'stopping' if stopping else state} {note}".strip(),
                    completed=progress.done if progress else 0,
                    total=progress.total if progress and progress.total else None,
                )  # fmt: skip
                if state not in ACTIVE:
                    return stopping
                time.sleep(POLL_S)
            except KeyboardInterrupt:
                if stopping:
                    raise
                stopping = True
                run.stop()


def line(event: events.Event) -> str:
    """An event as one line for the terminal; "" for events that are no news."""
    if isinstance(event, events.Message):
        return f"{'' if event.level == 'info' else event.level + ': '}{event.text}"
    if isinstance(event, events.Waiting):
        return f"waits for {event.on}"
    if isinstance(event, events.Judged) and event.verdict.sentence:
        return event.verdict.sentence
    if isinstance(event, events.Evaluated) and (event.best or event.epoch == 0):
        figures = event.metrics.get("validation", {})
        parts = [f"epoch {event.epoch}"]
        if "energy_mae" in figures:
            parts.append(f"energy {figures['energy_mae'] * MILLI:.3g} meV/atom")
        if "forces_mae" in figures:
            parts.append(f"forces {figures['forces_mae'] * MILLI:.3g} meV/Å")
        return ", ".join(parts)
    return ""


def figures_of(run: Run) -> dict[str, dict[str, Any]]:
    """The figures of a run with units, as the JSON of every command holds them: name -> value and unit."""
    found: dict[str, dict[str, Any]] = {}
    units = {"energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å³"}
    for split, values in run.metrics().items():
        for name, value in values.items():
            quantity, _, kind = name.partition("_")
            if quantity in units and kind in ("mae", "rmse"):
                found[f"{split}_{name}"] = {"value": value, "unit": units[quantity]}
    if run.kind == "md":
        replicas = run.replicas
        first = replicas.first_failed
        if len(replicas) > 1:
            found["simulations_failed"] = {"value": replicas.n_failed, "unit": f"of {len(replicas)}"}
        if first is not None:
            found["time_to_failure" if len(replicas) == 1 else "time_to_first_failure"] = {
                "value": first.time, "unit": "fs",
            }  # fmt: skip
    facts = {"seconds": ("wall_time", "s"), "peak_bytes": ("peak_memory", "B"), "steps_per_s": ("speed", "steps/s")}
    if run.kind == "label":
        of = f"of {run.facts().get('asked')}"
        facts |= {
            "labelled": ("frames_labelled", of), "failed_frames": ("frames_failed", of),
            "engine_s": ("engine_time", "s"), "engine_cpu_s": ("engine_cpu_time", "s"),
        }  # fmt: skip
    if run.kind == "dynamic":
        rolled = run.facts().get("test_rollouts", {})
        names = {"mepa": "rollout_error", "equal_frames": "error_at_equal_frames"}
        found |= {
            name: {"value": rolled[key], "unit": "eV/Å"} for key, name in names.items() if rolled.get(key) is not None
        }
        facts |= {"evaluations": ("force_evaluations", ""), "training_s": ("training_time", "s"),
                  "validation_s": ("validation_time", "s")}  # fmt: skip
    for key, value in run.facts().items():
        if key in facts and value is not None:
            found[facts[key][0]] = {"value": value, "unit": facts[key][1]}
    progress = run.progress
    if progress is not None:
        found["steps_done"] = {"value": progress.done, "unit": f"{progress.unit}s"}
    return found


def shown(figure: dict[str, Any]) -> str:
    """A figure as text: ``561 MB``, ``3.41 meV/Å``."""
    value, unit = figure["value"], figure["unit"]
    if unit == "B":
        value, unit = (value / 1e9, "GB") if value >= 1e9 else (value / 1e6, "MB")
    elif unit in ("eV/atom", "eV/Å", "eV/Å³"):
        value, unit = value * MILLI, "m" + unit
    return f"{value if isinstance(value, int) else format(value, '.4g')} {unit}".strip()


def paths_of(run: Run) -> dict[str, str]:
    """Files of a run that exist, by what they are."""
    files = run.files
    known = {
        "run": files.path, "specification": files.spec, "events": files.events, "log": files.log,
        "trajectory": files.trajectory, "report": files.report, "last_steps": files.path / "last_steps.traj",
        "potential": files.checkpoints / "best.safetensors", "labelled": files.path / LABELLED,
        "verdicts": files.path / "taip.json",
    }  # fmt: skip
    return {name: str(path) for name, path in known.items() if path.exists()}


def table(run: Run) -> Table:
    """State, verdict and figures of a run as a table."""
    grid = Table(show_header=False, box=None, pad_edge=False)
    grid.add_row("run", str(run.folder))
    grid.add_row("state", run.sentence)
    verdict = run.verdict
    if run.kind == "md" and len(run.replicas) > 1:
        grid.add_row("simulations", run.replicas.sentence)
    elif verdict is not None and verdict.sentence and verdict.sentence not in run.sentence:
        grid.add_row("verdict", verdict.sentence)
    for name, figure in figures_of(run).items():
        grid.add_row(name.replace("_", " "), shown(figure))
    return grid
