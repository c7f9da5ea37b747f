"""What the commands of `mlipkit analyse` share: their options, reading, the screen, the lines of Python."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table as Grid

from mlipkit.cli.command import Record, app, console
from mlipkit.errors import SpecError

if TYPE_CHECKING:
    from mlipkit.runs.findings import Finding

analyse = typer.Typer(
    name="analyse",
    no_args_is_help=True,
    help="Shift between sets, bonds, radial distributions, motion, species, parity.",
)
app.add_typer(analyse)

Sets = Annotated[list[str], typer.Argument(help="files, patterns, samples (sample:NAME) or runs; @::10 takes a slice")]
Page = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="write it as a page with pictures")]
Pairs = Annotated[list[str] | None, typer.Option("--pair", metavar="O-H", help="pair of elements; may be repeated")]
Spacing = Annotated[
    float | None, typer.Option(metavar="FS", help="time between frames that carry none; each place is then one run")
]
Seed = Annotated[int, typer.Option(help="of all drawing")]


def frames_of(places: list[str], page: Path | None, spacing: float | None = None) -> dict[str, Any]:
    """Frames of all places; the page is tried first, as hours of work may lie between."""
    from mlipkit.runs.findings import check_writable, read_sets

    if page is not None:
        check_writable(page)
    with console.status("reading"):
        found = read_sets(places)
    if spacing is not None:
        from mlipkit.runs.motion_reports import timed

        found = {name: timed(frames, spacing) for name, frames in found.items()}
    return found


def show(record: Record, finding: Finding, page: Path | None, what: str) -> None:
    """Sentences and tables on screen, figures into the record, the page to its file."""
    from mlipkit.runs.findings import write_finding

    record.what = {what: dict(finding.data), "sources": dict(finding.sources)}
    for name, (value, unit) in finding.figures.items():
        if math.isfinite(value):
            record.figure(name, value, unit)
    if page is not None:
        shell = f"mlipkit {shlex.join(sys.argv[1:])}"
        record.paths["page"] = str(write_finding(finding, page.resolve(), shell))
    for text in finding.sentences:
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    for table in finding.tables:
        if table.brief and table.rows:
            grid = Grid(title=table.title, title_justify="left", box=None, pad_edge=False, caption=None)
            for text in table.head:
                grid.add_column(text, overflow="fold", no_wrap=text in ("set", "run"))
            for row in table.rows:
                grid.add_row(*row)
            console.print()
            console.print(grid, highlight=False, markup=False)
    if page is not None:
        console.print(f"\n{record.paths['page']}", highlight=False, markup=False, soft_wrap=True)


def sources_of(places: list[str]) -> dict[str, str]:
    from mlipkit.runs.findings import names_of

    return dict(zip(names_of(places), places, strict=True))


def python_of(
    module: str, function: str, places: list[str], chosen: list[str] | None, options: dict[str, tuple[Any, Any]],
    spacing: float | None = None,
) -> str:  # fmt: skip
    """Lines that give the same finding."""
    read = f"read_sets({places!r})"
    timing = ["from mlipkit.runs.motion_reports import timed"] if spacing is not None else []
    if spacing is not None:
        read = f"{{name: timed(frames, {spacing!r}) for name, frames in {read}.items()}}"
    return "\n".join([
        "from mlipkit.runs.findings import read_sets, write_finding",
        *timing,
        f"from mlipkit.runs.{module} import {function}",
        "",
        call_of(f"finding = {function}({read}{f', {chosen!r}' if chosen else ''}", ")", options),
        "print(*finding.sentences, sep='\\n')",
    ])  # fmt: skip


def call_of(start: str, end: str, options: dict[str, tuple[Any, Any]], more: str = "") -> str:
    """A call with the options that are not at their defaults."""
    given = "".join(f", {name}={value!r}" for name, (value, default) in options.items() if value != default)
    return f"{start}{given}{more}{end}"


def refuse(what: str, **parts: Any) -> None:
    raise SpecError(what, **parts)
