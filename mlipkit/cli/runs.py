"""Commands that start, open and steer runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mlipkit.cli.command import FAILED, INTERRUPTED, Record, app, command, console, from_options
from mlipkit.errors import RunError, SpecError
from mlipkit.runs import (
    DynamicSpec,
    FinetuneSpec,
    IPIPSpec,
    LabelSpec,
    MDSpec,
    RelaxSpec,
    TaipSpec,
    TrainSpec,
    WorkflowSpec,
    load_spec,
)  # fmt: skip
from mlipkit.runs.options import options_of, parse_pairs, spec_from_options
from mlipkit.runs.spec import AnySpec

Root = Annotated[Path, typer.Option(help="folder in which runs are kept")]
Again = Annotated[bool, typer.Option("--again", help="start a numbered copy although the run exists")]
Resume = Annotated[bool, typer.Option("--resume", help="let a stopped or crashed run go on")]
Detach = Annotated[bool, typer.Option("--detach", help="return at once; the run goes on in the background")]
Only = Annotated[
    bool,
    typer.Option("--estimate", help="measure three steps or a frame, show time, memory and disk, start nothing"),
]


DryRun = Annotated[bool, typer.Option("--dry-run", help="print the stages of a workflow and its budget, start nothing")]


def _launch(
    record: Record, spec: AnySpec, root: Path, again: bool, resume: bool, detach: bool, only: bool, dry: bool = False
):
    from mlipkit.runs import estimate, launch

    record.what = {"specification": spec.model_dump(mode="json")}
    if dry:
        _print_plan(record, spec)
    if only:
        found = estimate(spec)
        record.figure("time", found.seconds, "s")
        record.figure("peak_memory", found.peak_bytes, "B")
        record.figure("disk", found.disk_bytes, "B")
        console.print(found.sentence)
    if only or dry:
        return 0
    return _show(record, launch(spec, root=root, again=again, resume=resume), detach)


def _print_plan(record: Record, spec: AnySpec) -> None:
    """Stages, budget and counts of a workflow."""
    from dataclasses import asdict

    from mlipkit.runs.launching import check_places
    from mlipkit.strategies.workflows import dry_run

    if isinstance(spec, IPIPSpec):
        check_places(spec, Path.cwd())
        record.what["plan"] = spec.plan.to_json()
        for name, value in asdict(spec.plan.budget).items():
            record.figure(name, value, {"steps": "gradient steps", "teacher_labels": "labels"}.get(name, "MD steps"))
        console.print(spec.plan.table(), highlight=False, soft_wrap=True, markup=False)
        return
    if not isinstance(spec, WorkflowSpec):
        raise SpecError("only a workflow has a plan", where="--dry-run", found=spec.kind, hint="Try --estimate")
    check_places(spec, Path.cwd())
    cost = dry_run(spec.plan, relax_steps=spec.relax_steps)
    record.what["plan"] = cost.plan.to_json()
    units = {"labels": "labels", "md_ps": "ps", "gradients": "frame-gradients", "test_labels": "labels",
             "test_md_ps": "ps"}  # fmt: skip
    for name, value in asdict(cost.plan.budget).items():
        record.figure(name, value, units[name])
    console.print(cost.table(), highlight=False, soft_wrap=True, markup=False)


def _show(record: Record, run: Any, detach: bool = False) -> int:
    from mlipkit.runs.console import figures_of, follow, paths_of, table
    from mlipkit.runs.run import ACTIVE

    interrupted = not detach and follow(run, console)
    state = run.state
    record.what = {"specification": run.current_spec.model_dump(mode="json"), "state": state, "reason": run.reason}
    verdict = run.verdict
    if verdict is not None:
        record.what["verdict"] = {"outcome": verdict.outcome, "check": verdict.check, "sentence": verdict.sentence}
    record.figures, record.paths = figures_of(run), paths_of(run)
    console.print(table(run), highlight=False)
    if interrupted and state in ("completed", "stopped"):
        # Whatever was to come next in the shell (`mlipkit train && mlipkit md`) shall not start.
        record.error = "interrupted"
        return INTERRUPTED
    if state in ACTIVE or state in ("completed", "stopped"):
        return 0
    if state == "failed":
        return FAILED
    raise RunError(run.reason or state, where=(run.name, state), hint=f"See {run.files.log}")


@command(app, "train", options_of(TrainSpec))
def train(
    record: Record, root: Root = Path("runs"), again: Again = False, resume: Resume = False, detach: Detach = False,
    only: Only = False, **values: Any,
) -> int | None:  # fmt: skip
    """Train a potential on labelled frames."""
    return _launch(record, from_options(spec_from_options, TrainSpec, values), root, again, resume, detach, only)


@command(app, "finetune", options_of(FinetuneSpec))
def finetune(
    record: Record, root: Root = Path("runs"), again: Again = False, resume: Resume = False, detach: Detach = False,
    only: Only = False, **values: Any,
) -> int | None:  # fmt: skip
    """Fine-tune a universal or a trained potential on labelled frames."""
    return _launch(record, from_options(spec_from_options, FinetuneSpec, values), root, again, resume, detach, only)


@command(app, "dynamic", options_of(DynamicSpec))
def dynamic(
    record: Record, root: Root = Path("runs"), again: Again = False, resume: Resume = False, detach: Detach = False,
    only: Only = False, **values: Any,
) -> int | None:  # fmt: skip
    """Train a potential on pieces of AIMD runs that it integrates itself."""
    return _launch(record, from_options(spec_from_options, DynamicSpec, values), root, again, resume, detach, only)


@command(app, "md", options_of(MDSpec))
def md(
    record: Record, root: Root = Path("runs"), again: Again = False, resume: Resume = False, detach: Detach = False,
    only: Only = False, **values: Any,
) -> int | None:  # fmt: skip
    """Run molecular dynamics with a potential, watched by stability checks."""
    return _launch(record, from_options(spec_from_options, MDSpec, values), root, again, resume, detach, only)


@command(app, "relax", [one for one in options_of(RelaxSpec) if one.name not in ("start", "cell", "hydrostatic")])
def relax(
    record: Record,
    start: Annotated[list[str], typer.Argument(help="structures: samples, files or runs, with @frame")],
    cell: Annotated[bool, typer.Option("--cell", help="relax the cell too")] = False,
    hydrostatic: Annotated[bool, typer.Option("--hydrostatic", help="with --cell: its size only")] = False,
    root: Root = Path("runs"), again: Again = False, resume: Resume = False, detach: Detach = False,
    only: Only = False, **values: Any,
) -> int | None:  # fmt: skip
    """Relax structures to the nearest minimum of the energy (FIRE)."""
    given = {"start": start, "cell": str(cell), "hydrostatic": str(hydrostatic), **values}
    return _launch(record, from_options(spec_from_options, RelaxSpec, given), root, again, resume, detach, only)


@command(app, "label", [one for one in options_of(LabelSpec) if one.name != "data"])
def label(
    record: Record,
    data: Annotated[list[str], typer.Argument(help="frames: samples, files or runs, with @frames")],
    root: Root = Path("runs"), again: Again = False, resume: Resume = False, detach: Detach = False,
    only: Only = False, **values: Any,
) -> int | None:  # fmt: skip
    """Label frames: energy, forces and stress from an engine, frame by frame."""
    given = {"data": data, **values}
    return _launch(record, from_options(spec_from_options, LabelSpec, given), root, again, resume, detach, only)


@command(app, "workflow", options_of(WorkflowSpec))
def workflow(
    record: Record, root: Root = Path("runs"), again: Again = False, resume: Resume = False, detach: Detach = False,
    only: Only = False, dry: DryRun = False, **values: Any,
) -> int | None:  # fmt: skip
    """Sample, label and fine-tune in the order of an arm; evaluate every model beside its controls."""
    spec = from_options(spec_from_options, WorkflowSpec, values)
    return _launch(record, spec, root, again, resume, detach, only, dry)


@command(app, "ipip", [one for one in options_of(IPIPSpec) if one.name not in ("data", "pretrain")])
def ipip(
    record: Record,
    data: Annotated[list[str], typer.Argument(help="DFT frames: samples, files or runs, with @frames")],
    pretrain: Annotated[
        bool, typer.Option("--pretrain/--no-pretrain", help="with --no-pretrain energies and forces of these alone")
    ] = True,
    root: Root = Path("runs"), again: Again = False, resume: Resume = False, detach: Detach = False,
    only: Only = False, dry: DryRun = False, **values: Any,
) -> int | None:  # fmt: skip
    """Pretrain a small student behind a universal teacher, fine-tune it, and let it refresh its pool by its own MD."""
    given = {"data": data, "pretrain": str(pretrain), **values}
    return _launch(record, from_options(spec_from_options, IPIPSpec, given), root, again, resume, detach, only, dry)


@command(app, "taip", options_of(TaipSpec))
def taip(
    record: Record, root: Root = Path("runs"), again: Again = False, resume: Resume = False, detach: Detach = False,
    only: Only = False, **values: Any,
) -> int | None:  # fmt: skip
    """Does test-time adaptation help? Train the cure and its controls, adapt, measure, judge."""
    return _launch(record, from_options(spec_from_options, TaipSpec, values), root, again, resume, detach, only)


@command(app, "approve")
def approve_candidates(
    record: Record,
    folder: Annotated[Path, typer.Argument(help="folder of a workflow that waits")],
    candidates: Annotated[int, typer.Argument(help="number of the file in candidates/")],
    strike: Annotated[list[str] | None, typer.Option(help="uid of a frame that shall not be labelled")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="let the workflow go on")] = False,
) -> int | None:
    """Approve the frames that a workflow wants to label, or strike some out."""
    from mlipkit.runs import open as open_run
    from mlipkit.strategies.workflows import approve

    run = open_run(folder)
    approve(run.folder, candidates, strike or ())
    record.what = {"approved": candidates, "struck": strike or []}
    if resume:
        run.resume()
    return _show(record, run, detach=True)


@command(app, "run")
def run_file(
    record: Record, spec: Annotated[Path, typer.Argument(help="YAML file of a specification")],
    root: Root = Path("runs"), again: Again = False, resume: Resume = False, detach: Detach = False, only: Only = False,
    dry: DryRun = False,
) -> int | None:  # fmt: skip
    """Run what a YAML file specifies."""
    return _launch(record, load_spec(spec), root, again, resume, detach, only, dry)


@command(app, "open")
def open_folder(
    record: Record,
    folder: Annotated[Path, typer.Argument(help="folder of a run")],
    follow: Annotated[bool, typer.Option("--follow", help="show it until it ends")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="ask it to pause")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="ask it to stop")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="let it go on")] = False,
    change: Annotated[
        str | None, typer.Option(metavar="NAME=VALUE,...", help="change fields, e.g. steps=40000")
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="write report.html into the folder")] = False,
) -> int | None:
    """Show a run, alive or ended; pause, stop, resume or change it; write its report."""
    from mlipkit.runs import open as open_run

    run = open_run(folder)
    if change:
        from_options(run.change, **from_options(parse_pairs, change, "--change"))
    if pause:
        run.pause()
    if stop:
        run.stop()
        run.wait(60)
    if resume:
        run.resume()
    if report:
        console.print(str(run.report()))
    try:
        return _show(record, run, detach=not follow)
    except RunError:
        if resume and follow:
            raise
        # Looking at a crashed run is no error of this command; its state stands in the table.
        return 0
