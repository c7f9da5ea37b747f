"""Commands around the work: check the installation, open the notebooks, show it all once."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import typer

from mlipkit.cli.command import ERROR, Record, app, command, console


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
