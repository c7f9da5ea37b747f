"""What a run will cost, measured: a few real steps in a child process, before anything is started for good."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlipkit.errors import MlipkitError, RunError
from mlipkit.events import Evaluated, Event, Request, Started
from mlipkit.runs.devices import check_device
from mlipkit.runs.executors import worker_environment
from mlipkit.runs.folder import RunFolder, read_json
from mlipkit.runs.interpreters import check_python, interpreter
from mlipkit.runs.launching import check_places
from mlipkit.runs.places import run_of
from mlipkit.runs.run import Run
from mlipkit.runs.spec import (
    AnySpec,
    DynamicSpec,
    FinetuneSpec,
    IPIPSpec,
    LabelSpec,
    MDSpec,
    RelaxSpec,
    TaipSpec,
    TrainSpec,
    WorkflowSpec,
    parse_spec,
)  # fmt: skip

WARM_UP, STEPS, SECONDS = 2, 3, 1.0
"""Steps that do not count, steps that do at least, and how long small ones go on."""
LABEL_PATIENCE_S = 10.0
"""Frames that take longer are labelled alone for an estimate, others in threes."""
PATIENCE_S = 600
POLL_S = 0.05


@dataclass(frozen=True)
class Estimate:
    """Expected cost of a run.

    Attributes:
        seconds: from launch to end, s; an upper bound when training may end early. Waiting for cores is not in it.
        peak_bytes: largest memory of the process.
        disk_bytes: size of the run folder at the end.
        steps: planned steps.
        seconds_per_step: of the measured steps, median.
        setup_s: loading packages, data and potential.
        unit: what a step is.
    """

    seconds: float
    peak_bytes: int
    disk_bytes: int
    steps: int
    seconds_per_step: float
    setup_s: float
    unit: str = "step"

    @property
    def sentence(self) -> str:
        """For people: ``about 3 min 20 s (6000 steps of 33 ms), 0.5 GB memory, 1.2 MB disk``."""
        return (
            f"about {_duration(self.seconds)} ({self.steps} {self.unit}s of {self.seconds_per_step * 1000:.3g} ms), "
            f"{_size(self.peak_bytes)} memory, {_size(self.disk_bytes)} disk"
        )


class NotMeasured(RunError):
    """The cost could not be measured, which says nothing of the run itself."""


def estimate(spec: AnySpec, *, timeout: float = PATIENCE_S, cancelled: Callable[[], bool] = lambda: False) -> Estimate:
    """Do the first steps of a run in a child process and a temporary folder, and extrapolate. Blocks for seconds.

    Args:
        timeout: s.
        cancelled: asked every moment; the child process is ended when it says so.

    Raises:
        NotMeasured: the run builds on another one that has not ended, the first steps take over `timeout` s, or they
            were cancelled.
        RunError: the first steps fail, as those of the run would.
        SpecError: something the run reads, or its device, does not exist.
    """
    base = Path.cwd()
    check_places(spec, base)
    if spec.python:
        check_python(spec.python, base)
    else:
        check_device(spec.device)
    for field, text in spec.places():
        folder = run_of(text, base)
        if folder is not None and Run(folder).active:
            raise NotMeasured(f"cannot be estimated before run '{folder.name}' has ended", where=field)
    with tempfile.TemporaryDirectory(prefix="mlipkit-estimate-") as folder:
        job, result = Path(folder) / "job.json", Path(folder) / "result.json"
        job.write_text(json.dumps(spec.model_dump(mode="json")))
        command = [interpreter(spec.python, base), "-m", "mlipkit.runs.estimating", str(job), str(result)]
        environment = {**os.environ, **worker_environment(spec.threads)}
        with open(Path(folder) / "said.txt", "w+", encoding="utf-8", errors="replace") as said:
            child = subprocess.Popen(
                command, cwd=base, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
            )
            _wait(child, timeout, cancelled)
            said.seek(0)
            last = (said.read().strip().splitlines() or [f"exit code {child.returncode}"])[-1]
        if not result.is_file():
            raise RunError("the first steps failed", found=last)
        record = json.loads(result.read_text())
    if "error" in record:
        raise RunError(record["error"], where="estimate")
    return Estimate(**record)


def _wait(child: subprocess.Popen, timeout: float, cancelled: Callable[[], bool]) -> None:
    """Wait for a process to end; one that takes too long or is wanted no more is killed."""
    end = time.monotonic() + timeout
    try:
        while child.poll() is None:
            if cancelled():
                raise NotMeasured("cancelled")
            if time.monotonic() > end:
                raise NotMeasured(f"the first steps took more than {timeout:g} s")
            time.sleep(POLL_S)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


class _Clock:
    """Sink and control in one: notes when steps begin, and asks to stop when there are enough."""

    def __init__(self) -> None:
        self.calls: list[float] = []
        self.clean: list[float] = []
        self.evaluated: list[float] = []
        self.started = 0.0
        self.stopped = 0.0
        self.total = 0
        self.per_epoch = 1
        self._interrupted = False

    def sink(self, event: Event) -> None:
        if isinstance(event, Started):
            self.started, self.total = time.time(), event.total
            self.per_epoch = event.facts.get("steps_per_epoch", 1)
        elif isinstance(event, Evaluated):
            self.evaluated.append(time.time())
            self._interrupted = True

    def control(self) -> Request:
        now = time.time()
        if self.calls and not self._interrupted:
            self.clean.append(now - self.calls[-1])
        self._interrupted = False
        self.calls.append(now)
        steps = len(self.calls) - 1
        if steps >= WARM_UP + STEPS and now - self.calls[WARM_UP] >= SECONDS:
            self.stopped = self.stopped or now
            return "stop"
        return "run"

    def step(self) -> float:
        """Seconds of one step; those with an evaluation in them do not count where there are others."""
        every = [b - a for a, b in zip(self.calls, self.calls[1:], strict=False)]
        return statistics.median(self.clean[WARM_UP:] or self.clean or every or [0.0])


def measure(spec: AnySpec, base: Path, begin: float) -> Estimate:
    """Body of the child process. `begin`: Unix time at which it was born."""
    from mlipkit.runs import build, process

    if isinstance(spec, LabelSpec):
        return _measure_labelling(spec, base, begin)
    if isinstance(spec, WorkflowSpec):
        return _measure_workflow(spec, base, begin)
    if isinstance(spec, IPIPSpec):
        return _measure_ipip(spec, base, begin)
    if isinstance(spec, TaipSpec):
        return _measure_taip(spec, base, begin)
    clock = _Clock()
    with tempfile.TemporaryDirectory(prefix="mlipkit-estimate-") as folder:
        files = RunFolder(Path(folder))
        build.execute(_probed(spec), files, base, clock.sink, clock.control)
        end, sizes = time.time(), _sizes(files)
        batches = len(read_json(files.checkpoints / "batches.json").get("batches", [None]))
    step, setup = clock.step(), clock.started - begin
    peak = process.peak_memory()
    done = max(len(clock.calls) - 1, 1)
    if isinstance(spec, MDSpec | RelaxSpec):
        # Of the first batch; the others do as many steps. A relaxation may be done with fewer.
        frames = done // spec.stride + 1
        disk = sizes["trajectory"] / frames * (spec.steps // spec.stride + 1)
        disk = batches * (disk + sizes["series"] / (done + 1) * spec.steps) + sizes["rest"]
        return Estimate(setup + batches * spec.steps * step, peak, int(disk), spec.steps, step, setup)
    first = (clock.evaluated[0] if clock.evaluated else clock.started) - clock.started
    # After the request to stop: one checkpoint, one evaluation.
    after = max(0.0, end - clock.stopped) if clock.stopped else first
    frames = build.split_frames(spec, base)
    # As the loop counts them: replay has epochs of its own.
    steps = clock.total
    # At the end all parts are evaluated once, and pictures need one more prediction of validation and test.
    share = (len(frames.train) + 2 * (len(frames.validation) + len(frames.test))) / max(len(frames.validation), 1)
    ending = after * share
    if isinstance(spec, DynamicSpec):
        seconds, steps, ending = _rolled(spec, frames, step, first)
        step = seconds / max(steps, 1)
    else:
        seconds = steps * step + steps / clock.per_epoch * after
    if spec.time_limit_s is not None and seconds > spec.time_limit_s:
        steps, seconds = int(steps * spec.time_limit_s / seconds), spec.time_limit_s
    seconds += setup + first + ending
    disk = sizes["series"] / (done + 1) * steps + sizes["rest"]
    return Estimate(seconds, peak + _lists(spec, frames.train), int(disk), steps, step, setup)


def _probed(spec: AnySpec) -> AnySpec:
    """What is measured: of a curriculum the stage that takes most memory, for all stages."""
    if not isinstance(spec, DynamicSpec):
        return spec
    from mlipkit.runs.building_dynamic import largest_stage

    return largest_stage(spec)


def _rolled(spec: DynamicSpec, frames: Any, step: float, validation: float) -> tuple[float, int, float]:
    """Seconds of all stages with their validations, their steps, and seconds of what comes after the last step.

    Args:
        step: seconds of a step of the stage that was measured. validation: seconds of a validation.
    """
    import numpy as np

    from mlipkit.runs.building_dynamic import largest_stage, planned_work

    runs = {
        name: np.unique(getattr(frames, name).trajectory, return_counts=True)[1].tolist()
        for name in ("train", "validation", "test")
    }
    work, measured = planned_work(spec, runs), planned_work(largest_stage(spec), runs)
    training = step * work.evaluations * measured.steps / measured.evaluations
    # The first validation, before the first step, is counted apart.
    seconds = training + (work.validations - 1) * validation
    return seconds, work.steps, validation * work.ending / work.validation


def _measure_labelling(spec: LabelSpec, base: Path, begin: float) -> Estimate:
    """A frame of each third of the sizes is labelled; the others are taken to cost as much on average.

    Where a frame takes long only the first of them is, of middle size.
    """
    import numpy as np

    from mlipkit.labelling import LABELLED, label_frames, read_records
    from mlipkit.labelling.records import LOG
    from mlipkit.runs import process
    from mlipkit.runs.building_label import frames_to_label, recipe_for

    frames = frames_to_label(spec, base)
    if not len(frames):
        return Estimate(0.0, process.peak_memory(), 0, 0, 0.0, time.time() - begin, "frame")
    order = np.argsort(frames.n_atoms, kind="stable")
    chosen = list(dict.fromkeys(int(order[len(frames) * sixth // 6]) for sixth in (3, 1, 5)))
    options: dict[str, Any] = {"threads": max(1, spec.threads // spec.n_processes), "max_force": spec.max_force}
    with tempfile.TemporaryDirectory(prefix="mlipkit-estimate-") as folder:

        def control(place: str = folder) -> Request:
            rows = read_records(place)[1].values()
            long = sum(row["seconds"] for row in rows) > LABEL_PATIENCE_S
            return "stop" if long and any("energy" in row for row in rows) else "run"

        found = label_frames(frames[chosen], recipe_for(spec, base), folder, control=control, **options)
        files = [path for path in (Path(folder, LOG), Path(folder, LABELLED)) if path.is_file()]
        # Without the first line of the log, which says what the engine is.
        disk = sum(path.stat().st_size for path in files) - len(files[0].read_bytes().partition(b"\n")[0])
    measured = len(found.frames) + len(found.failed)
    if not len(found.frames):
        failed = found.failed[0]
        raise RunError(f"frame {chosen[failed.index]}, which was measured, has no label: {failed.reason}")
    n_processes = min(spec.n_processes, len(frames))
    setup, each = time.time() - begin - found.seconds, found.seconds / measured
    seconds = setup + each * -(-len(frames) // n_processes)
    peak = process.peak_memory() + n_processes * _children_peak()
    return Estimate(seconds, peak, disk * len(frames) // measured, len(frames), each, setup, "frame")


def _measure_workflow(spec: WorkflowSpec, base: Path, begin: float) -> Estimate:
    """One unit of each deed is timed: a step of MD, a label, a frame-gradient, a prediction."""
    from mlipkit.runs import process
    from mlipkit.runs.building_workflow import cost_of

    with tempfile.TemporaryDirectory(prefix="mlipkit-estimate-") as folder:
        cost = cost_of(spec, base, Path(folder))
        assert cost.rates is not None
        assert cost.seconds is not None
    setup = time.time() - begin
    # Positions, velocities, forces and a little more per stored frame and atom.
    disk = cost.stored_frames * cost.rates.atoms * 80
    # Engines stay beside the simulations and trainings.
    peak = process.peak_memory() + spec.label.processes * _children_peak()
    return Estimate(setup + cost.seconds, peak, disk, cost.md_steps, cost.rates.md_step or 0.0, setup)


def _measure_ipip(spec: IPIPSpec, base: Path, begin: float) -> Estimate:
    """An MD step of all starts with teacher and student, a gradient step, and a label are timed."""
    from mlipkit.runs import process
    from mlipkit.runs.building_ipip import tools_of
    from mlipkit.strategies.ipip.cost import measure as measure_units

    tools, plan = tools_of(spec, base), spec.plan
    loaded = time.time()
    rates = measure_units(tools, plan)
    seconds = rates.seconds(plan)
    frames = sum(
        stage.options["steps"] // stage.options["stride"] * plan.loop.sampling.starts
        for stage in plan.stages if stage.does == "sample"
    )  # fmt: skip
    # Positions, velocities, forces and a little more per stored frame and atom, twice: in trajectories and in pools.
    disk = 160 * frames * rates.atoms
    steps = plan.budget.steps
    each = rates.finetune if rates.teacher_step is None else rates.teacher_step
    return Estimate(loaded - begin + seconds, process.peak_memory(), disk, steps, each, loaded - begin)


def _measure_taip(spec: TaipSpec, base: Path, begin: float) -> Estimate:
    """A training on labels, one with the tasks, and the adapted prediction of some frames are timed.

    With noise augmentation a step has the loss of labels twice, and is taken to cost so much.
    """
    from mlipkit.runs.building_taip import as_training, judging_frames, study_of
    from mlipkit.runs.building_train import build_potential, split_frames
    from mlipkit.strategies.taip import attach, predict_adapted
    from mlipkit.strategies.taip.arms import BASELINE, NOISE, arm_names
    from mlipkit.strategies.taip.frames import AT_ONCE

    training, study = as_training(spec), study_of(spec)
    plain = measure(training, base, begin)
    tasks = measure(training.changed(taip=spec.taip.model_dump()), base, begin)
    label_s, task_s = plain.seconds - plain.setup_s, tasks.seconds - tasks.setup_s
    arms = arm_names(study.options, study.ablate)
    each = sum({BASELINE: label_s, NOISE: 2 * label_s}.get(name, task_s) for name in arms)

    parts = split_frames(spec, base)
    potential = build_potential(training, parts.train)
    attach(potential, study.options, periodic=bool(parts.train.pbc.any()))
    some = parts.train.select(range(min(AT_ONCE, len(parts.train))))
    predict_adapted(potential, some, study.adaptation)
    before = time.perf_counter()
    predict_adapted(potential, some, study.adaptation)
    frame_s = (time.perf_counter() - before) / len(some)
    tests = [len(frames) for frames in judging_frames(spec, parts, base).values()]
    adapted = study.adapted_predictions(len(parts.validation), tests, len(parts.train))
    seconds = len(spec.seeds) * each + adapted * frame_s
    times = len(spec.seeds) * len(arms)
    return replace(
        tasks, seconds=plain.setup_s + seconds, steps=times * tasks.steps, disk_bytes=times * tasks.disk_bytes,
        setup_s=plain.setup_s,
    )  # fmt: skip


def _children_peak() -> int:
    """Bytes that the largest child took of those that have ended."""
    import resource

    # In KiB, on macOS in bytes.
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _lists(spec: TrainSpec | FinetuneSpec | DynamicSpec, frames: Any) -> int:
    """Bytes of the neighbour lists of all training frames, kept after the first epoch."""
    from mlipkit.data import NeighbourCache

    if isinstance(spec, TrainSpec) or (isinstance(spec, DynamicSpec) and not spec.potential):
        cutoff = spec.model.cutoff
    elif isinstance(spec, DynamicSpec):
        from mlipkit.models import load
        from mlipkit.runs.building_forces import source_of

        assert spec.potential is not None
        cutoff = load(source_of(spec.potential, Path.cwd())).cutoff
    else:
        from mlipkit.runs.building_finetune import start_potential

        cutoff = start_potential(spec, Path.cwd()).cutoff
    cache = NeighbourCache(frames, cutoff)
    chosen = range(0, len(frames), max(1, len(frames) // 5))
    sizes = [sum(array.nbytes for array in cache.get(index)) for index in chosen]
    return min(int(statistics.mean(sizes) * len(frames)), 1 << 30)


def _sizes(files: RunFolder) -> dict[str, int]:
    """Bytes of trajectories, of series, and of everything else in a run folder."""
    sizes = {"trajectory": 0, "series": 0, "rest": 0}
    for path in files.path.rglob("*"):
        if path.is_file():
            kind = "series" if "series" in path.parts else "trajectory" if path.suffix == ".traj" else "rest"
            sizes[kind] += path.stat().st_size
    return sizes


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds / 3600:.1f} h"


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.3g} MB"


def main(arguments: list[str]) -> None:
    """Child process: job file in, result file out."""
    import psutil

    from mlipkit.runs import process
    from mlipkit.runs.worker import one_line

    begin = psutil.Process().create_time()
    process.lower_priority()
    job, result = map(Path, arguments)
    try:
        record = asdict(measure(parse_spec(json.loads(job.read_text())), Path.cwd(), begin))
    except MlipkitError as error:
        record = {"error": str(error)}
    except Exception as error:
        record = {"error": one_line(error)}
    result.write_text(json.dumps(record))


if __name__ == "__main__":
    main(sys.argv[1:])
