"""The command `mlipkit`: thin, over `mlipkit.runs`.

Every command takes ``--json FILE`` (what was run, figures with units, paths; schema in docs/runs.md) and ``--debug``.
On an error it prints one line and exits with 1; wrong usage exits with 2, a simulation that failed its checks with 3.
"""

from __future__ import annotations

import functools
import inspect
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mlipkit import __version__
from mlipkit.errors import RunError, SpecError
from mlipkit.runs import MDSpec, RelaxSpec, TrainSpec, load_spec
from mlipkit.runs.options import options_of, parse_pairs, spec_from_options
from mlipkit.runs.spec import AnySpec

SCHEMA = "mlipkit-command-1"
ERROR, USAGE, FAILED, INTERRUPTED = 1, 2, 3, 130
# Newer versions of typer carry a click of their own: this is the base of all errors of whichever it is.
UsageProblem: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

console = Console()
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="""
    Machine-learning interatomic potentials that last in MD. Start with: mlipkit lab""")  # fmt: skip
data = typer.Typer(no_args_is_help=True, help="Sample and public data sets; what is in a file.")
app.add_typer(data, name="data")


@dataclass
class Record:
    """What a command did, as `--json` writes it."""

    command: str
    what: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    exit_code: int = 0
    started: float = field(default_factory=time.time)

    def figure(self, name: str, value: Any, unit: str = "") -> None:
        """Add a number with its unit."""
        self.figures[name] = {"value": value, "unit": unit}

    def write(self, path: Path) -> None:
        """Write the JSON file."""
        record = {
            "schema": SCHEMA,
            "mlipkit": __version__,
            "command": self.command,
            "arguments": sys.argv[1:],
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.started)),
            "seconds": round(time.time() - self.started, 3),
            "exit_code": self.exit_code,
            "error": self.error,
            "what": self.what,
            "figures": self.figures,
            "paths": self.paths,
        }
        from mlipkit.runs.folder import write_text

        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n")


class WrongOption(Exception):
    """A value on the command line does not fit its option; `cause` says which and why."""

    def __init__(self, cause: SpecError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def from_options(make: Callable[..., Any], *arguments: Any, **fields: Any) -> Any:
    """What `make` gives; its complaints count as wrong usage, unlike those about files and runs that are named."""
    try:
        return make(*arguments, **fields)
    except SpecError as error:
        raise WrongOption(error) from error


def command(group: typer.Typer, name: str, options: list[inspect.Parameter] | None = None):
    """Register a function (record, ...) -> exit code or None as a command with ``--json`` and ``--debug``."""

    def register(function: Callable[..., int | None]):
        title = name if group is app else f"data {name}"

        def run(*, json_file: Path | None = None, debug: bool = False, **values: Any) -> None:
            from mlipkit.runs.worker import one_line

            record = Record(title)
            try:
                record.exit_code = function(record, **values) or 0
            except (typer.Exit, UsageProblem):
                raise
            except KeyboardInterrupt:
                record.error, record.exit_code = "interrupted", INTERRUPTED
            except WrongOption as error:
                if debug:
                    raise error.cause from None
                record.error, record.exit_code = one_line(error.cause), USAGE
            except Exception as error:
                if debug:
                    raise
                record.error, record.exit_code = one_line(error), ERROR
            if record.error:
                _complain(record.error)
            try:
                if json_file is not None:
                    record.write(json_file)
            except OSError as error:
                _complain(f"--json: {json_file}: cannot be written ({error.strerror})")
                record.exit_code = record.exit_code or ERROR
            if record.exit_code:
                raise typer.Exit(record.exit_code)

        hints = inspect.get_annotations(function, eval_str=True)
        own = [p.replace(annotation=hints[p.name]) for p in list(inspect.signature(function).parameters.values())[1:]]
        own = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.kind is not p.VAR_KEYWORD]
        common = [
            inspect.Parameter(
                "json_file", inspect.Parameter.KEYWORD_ONLY, annotation=Path | None,
                default=typer.Option(None, "--json", metavar="FILE", help="write what was done and its figures"),
            ),
            inspect.Parameter(
                "debug", inspect.Parameter.KEYWORD_ONLY, annotation=bool,
                default=typer.Option(False, "--debug", help="show the traceback of an error"),
            ),
        ]  # fmt: skip
        parameters = [*own, *(options or []), *common]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        functools.update_wrapper(run, function, assigned=("__doc__", "__name__"), updated=())
        del run.__wrapped__
        group.command(name)(run)
        return function

    return register


Root = Annotated[Path, typer.Option(help="folder in which runs are kept")]
Again = Annotated[bool, typer.Option("--again", help="start a numbered copy although the run exists")]
Resume = Annotated[bool, typer.Option("--resume", help="let a stopped or crashed run go on")]
Detach = Annotated[bool, typer.Option("--detach", help="return at once; the run goes on in the background")]
Only = Annotated[
    bool, typer.Option("--estimate", help="measure three steps, show time, memory and disk, start nothing")
]


def _launch(record: Record, spec: AnySpec, root: Path, again: bool, resume: bool, detach: bool, only: bool):
    from mlipkit.runs import estimate, launch

    record.what = {"specification": spec.model_dump(mode="json")}
    if only:
        found = estimate(spec)
        record.figure("time", found.seconds, "s")
        record.figure("peak_memory", found.peak_bytes, "B")
        record.figure("disk", found.disk_bytes, "B")
        console.print(found.sentence)
        return 0
    return _show(record, launch(spec, root=root, again=again, resume=resume), detach)


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


@command(app, "run")
def run_file(
    record: Record, spec: Annotated[Path, typer.Argument(help="YAML file of a specification")],
    root: Root = Path("runs"), again: Again = False, resume: Resume = False, detach: Detach = False, only: Only = False,
) -> int | None:  # fmt: skip
    """Run what a YAML file specifies."""
    return _launch(record, load_spec(spec), root, again, resume, detach, only)


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


@command(data, "list")
def data_list(record: Record) -> None:
    """List the samples in the package and the public data sets."""
    from mlipkit.data import public, samples

    grid = Table(box=None, pad_edge=False)
    grid.add_column("name", no_wrap=True)
    grid.add_column("where", no_wrap=True)
    grid.add_column("what")
    for name in samples.names():
        grid.add_row(f"sample:{name}", "in the package", str(samples.card(name).get("title", "")))
    for name in public.names():
        grid.add_row(f"public:{name}", "mlipkit data get", str(public.card(name).get("title", "")))
    record.what = {"samples": list(samples.names()), "public": list(public.names())}
    record.figure("samples", len(samples.names()))
    record.figure("public", len(public.names()))
    console.print(grid)


@command(data, "get")
def data_get(record: Record, name: Annotated[str, typer.Argument(help="name of a public data set")]) -> None:
    """Fetch a public data set, or find it in MLIPKIT_DATA."""
    from mlipkit.data import public

    name = name.removeprefix("public:")
    with console.status(f"fetching {name}"):
        path = public.fetch(name)
    record.what, record.paths = {"name": name}, {"data": str(path)}
    console.print(str(path))


@command(data, "report")
def data_report(
    record: Record,
    source: Annotated[str, typer.Argument(help="sample:NAME, public:NAME, or a file, folder or glob")],
    keys: Annotated[str | None, typer.Option(metavar="NAME=KEY,...", help="names of labels in the file")] = None,
    units: Annotated[
        str | None, typer.Option(metavar="NAME=UNIT,...", help="of a file that declares none: energy=kcal/mol")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="write it as a page with pictures")
    ] = None,
) -> None:
    """Say what is in a data set: labels, units, outliers, duplicates, overlaps, composition."""
    from mlipkit.runs.build import read_frames
    from mlipkit.runs.report import data_html, write_report

    with console.status(f"reading {source}"):
        named: dict[str, Any] = {
            name: from_options(parse_pairs, text, f"--{name}") if text else None
            for name, text in (("keys", keys), ("units", units))
        }
        frames = read_frames(source, Path.cwd(), **named, allow_partial=True)
        found = frames.report()
    record.what = {"source": source, "report": found.to_dict()}
    record.figure("frames", len(frames), "frames")
    for label, count in found.coverage.items():
        record.figure(f"frames_with_{label}", count, "frames")
    record.figure("problems", len(found.problems), "findings")
    console.print(str(found), highlight=False, markup=False, soft_wrap=True)
    if page is not None:
        record.paths["page"] = str(write_report([], page.resolve(), source, before=data_html(found)))


@command(app, "doctor")
def doctor(
    record: Record, root: Annotated[Path, typer.Option(help="folder in which runs shall be kept")] = Path("runs")
) -> int | None:
    """Check the installation; one line per item."""
    from mlipkit.doctor import examine

    colours = {"ok": "green", "note": "yellow", "fix": "red"}
    items = examine(root.resolve())
    for item in items:
        console.print(f"[{colours[item.state]}]{item.state:<5}[/] ", end="")
        console.print(item.line[6:], highlight=False, markup=False, soft_wrap=True)
    record.what = {"items": [{"name": i.name, "state": i.state, "found": i.found, "cure": i.cure} for i in items]}
    record.figure("to_fix", sum(item.state == "fix" for item in items), "items")
    return ERROR if any(item.state == "fix" for item in items) else 0


@command(app, "lab")
def lab(
    record: Record,
    folder: Annotated[Path, typer.Argument(help="folder for the notebooks")] = Path("mlipkit-notebooks"),
    copy_only: Annotated[bool, typer.Option("--copy-only", help="copy notebooks and register the kernel only")] = False,
    browser: Annotated[bool, typer.Option(help="open a browser")] = True,
    port: Annotated[int | None, typer.Option(help="port of the server")] = None,
) -> int | None:
    """Copy the notebooks, register the kernel, open JupyterLab on 00_start_here."""
    from mlipkit import lab as notebooks

    folder = folder.expanduser().resolve()
    copied = notebooks.copy_notebooks(folder, notebooks.shipped())
    record.what = {"notebooks": {item.name: item.what for item in copied}}
    record.figure("notebooks_new", sum(item.what == "new" for item in copied), "files")
    for item in copied:
        if item.sentence:
            console.print(item.sentence, highlight=False)
    record.paths = {"notebooks": str(folder), "kernel": str(notebooks.register_kernel())}
    console.print(f"notebooks in {folder}", highlight=False)
    if copy_only:
        return 0
    arguments = [*([] if browser else ["--no-browser"]), *([f"--ServerApp.port={port}"] if port else [])]
    return subprocess.run(notebooks.lab_command(folder, arguments), check=False).returncode


@command(app, "demo")
def demo(
    record: Record,
    folder: Annotated[Path, typer.Argument(help="folder for the runs and the report")] = Path("mlipkit-demo"),
) -> int | None:
    """Do the whole job in a few minutes: data, training, MD cold and hot, one HTML report."""
    from mlipkit.demo import run_demo

    result = run_demo(folder.expanduser().resolve(), console)
    record.what, record.figures, record.paths = result.what, result.figures, result.paths
    return 0


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="show the version")] = False) -> None:
    if version:
        console.print(__version__, highlight=False)
        raise typer.Exit


def _complain(text: str) -> None:
    Console(stderr=True).print(f"mlipkit: {text}", highlight=False, markup=False, soft_wrap=True)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the command `mlipkit`."""
    try:
        code = app(args=arguments, standalone_mode=False, prog_name="mlipkit")
    except UsageProblem as error:
        message = error.format_message()  # type: ignore[attr-defined]
        # Without any argument the help has been printed and there is no message.
        if message:
            _complain(f"{message} (mlipkit --help shows what there is)")
        code = USAGE if message else 0
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except typer.Exit as error:
        code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
