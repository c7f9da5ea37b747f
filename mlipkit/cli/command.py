"""How a command is made: what it records, how it fails, what all of them take."""

from __future__ import annotations

import functools
import inspect
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from mlipkit import __version__
from mlipkit.errors import SpecError

SCHEMA = "mlipkit-command-1"
ERROR, USAGE, FAILED, INTERRUPTED = 1, 2, 3, 130
# Newer versions of typer carry a click of their own: this is the base of all errors of whichever it is.
UsageProblem: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

console = Console()
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="""
    Machine-learning interatomic potentials that last in MD. Start with: mlipkit lab""")  # fmt: skip


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
        title = f"{group.info.name} {name}" if group.info.name else name

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
                complain(record.error)
            try:
                if json_file is not None:
                    record.write(json_file)
            except OSError as error:
                complain(f"--json: {json_file}: cannot be written ({error.strerror})")
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


def complain(text: str) -> None:
    """Say on stderr what went wrong."""
    Console(stderr=True).print(f"mlipkit: {text}", highlight=False, markup=False, soft_wrap=True)
