"""`mlipkit data`: samples, public data sets, what is in a file, boxes of molecules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from mlipkit.cli.command import Record, app, command, console, from_options
from mlipkit.errors import SpecError
from mlipkit.runs.options import parse_pairs

data = typer.Typer(name="data", no_args_is_help=True, help="Sample and public data sets; what is in a file; boxes.")
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


@command(data, "pack")
def data_pack(
    record: Record,
    molecules: Annotated[list[str], typer.Argument(metavar="NAME=COUNT...", help="molecules by name, symbol or file")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help=".extxyz, .xyz or .traj")],
    density: Annotated[float | None, typer.Option(help="of a cubic box, g/cm³")] = None,
    cell: Annotated[str | None, typer.Option(metavar="A[,B,C]", help="edges instead of a density, Å")] = None,
    tolerance: Annotated[float, typer.Option(help="shortest distance between molecules, Å")] = 2.0,
    seed: Annotated[int, typer.Option(help="of the first box; the others take the next ones")] = 0,
    boxes: Annotated[int, typer.Option(min=1, help="number of boxes, one frame each")] = 1,
    free: Annotated[bool, typer.Option("--free", help="not periodic: a cluster that fills the box")] = False,
    timeout: Annotated[float, typer.Option(help="for each box, s")] = 120.0,
) -> None:
    """Pack molecules into boxes at random, as start structures: ethanol=20 --density 0.79 -o start.extxyz."""
    from mlipkit.data import FrameSet, pack, write

    counts = [from_options(_molecule, text) for text in molecules]
    edges = None if cell is None else from_options(_edges, cell)
    with console.status("packing"):
        packed = [
            pack(counts, density=density, cell=edges, tolerance=tolerance, seed=seed + k, pbc=not free, timeout=timeout)
            for k in range(boxes)
        ]
    frames = FrameSet.from_atoms(packed)
    path = write(output, frames)
    record.what = {"molecules": dict(counts), "seed": seed, "tolerance": tolerance, "periodic": not free}
    record.figure("boxes", boxes, "frames")
    record.figure("atoms", len(packed[0]), "per box")
    if not free:
        record.figure("edges", [round(edge, 4) for edge in packed[0].cell.lengths()], "Å")
    record.paths["boxes"] = str(path)
    console.print(f"{path}: {frames.describe()}", highlight=False, markup=False, soft_wrap=True)


def _molecule(text: str) -> tuple[str, int]:
    name, sign, count = text.rpartition("=")
    if not sign or not count.strip().isdigit():
        raise SpecError("not of the form NAME=COUNT", where="molecules", found=text, hint="Example: ethanol=20")
    return name.strip(), int(count)


def _edges(text: str) -> list[float] | float:
    try:
        edges = [float(part) for part in text.split(",")]
    except ValueError:
        edges = []
    if len(edges) not in (1, 3):
        raise SpecError("no box", where="--cell", expected="one or three edge lengths in Å", found=text)
    return edges if len(edges) == 3 else edges[0]
