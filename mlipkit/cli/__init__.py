"""The command `mlipkit`: thin, over `mlipkit.runs`.

Every command takes ``--json FILE`` (what was run, figures with units, paths; schema in docs/runs.md) and ``--debug``.
On an error it prints one line and exits with 1; wrong usage exits with 2, a simulation that failed its checks with 3.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mlipkit import __version__
from mlipkit.cli.command import INTERRUPTED, USAGE, UsageProblem, app, complain, console

# Help lists the commands in this order.
from mlipkit.cli import runs as _runs  # noqa: F401  isort: skip
from mlipkit.cli import what as _what  # noqa: F401  isort: skip
from mlipkit.cli import data as _data  # noqa: F401  isort: skip
from mlipkit.cli import jobs as _jobs  # noqa: F401  isort: skip
from mlipkit.cli import analyse as _analyse  # noqa: F401  isort: skip
from mlipkit.cli import analyse_more as _analyse_more  # noqa: F401  isort: skip
from mlipkit.cli import analyse_rollouts as _analyse_rollouts  # noqa: F401  isort: skip
from mlipkit.cli import tools as _tools  # noqa: F401  isort: skip


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="show the version")] = False) -> None:
    if version:
        console.print(__version__, highlight=False)
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the command `mlipkit`."""
    try:
        code = app(args=arguments, standalone_mode=False, prog_name="mlipkit")
    except UsageProblem as error:
        message = error.format_message()  # type: ignore[attr-defined]
        # Without any argument the help has been printed and there is no message.
        if message:
            complain(f"{message} (mlipkit --help shows what there is)")
        code = USAGE if message else 0
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except typer.Exit as error:
        code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)
