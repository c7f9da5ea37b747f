"""`mlipkit data`: samples, public data sets, what is in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from mlipkit.cli.command import Record, app, command, console, from_options
from mlipkit.runs.options import parse_pairs

data = typer.Typer(name="data", no_args_is_help=True, help="Sample and public data sets; what is in a file.")
app.add_typer(data)


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
