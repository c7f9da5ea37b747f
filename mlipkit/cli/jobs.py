"""`mlipkit jobs`: frames as calculations that the user runs elsewhere, and the labels that come back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlipkit.cli.command import Record, app, command, console

jobs = typer.Typer(name="jobs", no_args_is_help=True, help="Label by your own VASP or CP2K: inputs out, labels in.")
app.add_typer(jobs)


@command(jobs, "export")
def jobs_export(
    record: Record,
    data: Annotated[list[str], typer.Argument(help="frames: samples, files or runs, with @frames")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="holds a folder for each frame")],
    template: Annotated[Path, typer.Option(help="folder with your inputs: INCAR, KPOINTS, POTCAR ... or one .inp")],
    format: Annotated[str | None, typer.Option(help="vasp or cp2k; found from the template when left out")] = None,
    species: Annotated[
        str | None, typer.Option(metavar="O,H,...", help="order of elements in a POSCAR without a POTCAR")
    ] = None,
    box: Annotated[float | None, typer.Option(help="edge of a box for molecules without a cell, Å")] = None,
) -> None:
    """Write a folder per frame with your own input files; again at any time to add frames."""
    from mlipkit.data import export_jobs
    from mlipkit.runs.build import read_frames

    with console.status("reading frames"):
        frames = read_frames(data, Path.cwd(), allow_partial=True)
    order = None if species is None else [symbol.strip() for symbol in species.split(",")]
    done = export_jobs(frames, output, template, format, order, box)
    record.what, record.paths = done.to_json(), {"jobs": str(output)}
    record.figure("new", len(done.new), "jobs")
    record.figure("kept", len(done.kept), "jobs")
    console.print(str(done), highlight=False, markup=False, soft_wrap=True)


@command(jobs, "collect")
def jobs_collect(
    record: Record,
    folder: Annotated[Path, typer.Argument(help="folder that `mlipkit jobs export` made")],
    energy: Annotated[str, typer.Option(help="free_energy (to which forces belong) or energy (sigma -> 0)")] = (
        "free_energy"
    ),
    settings: Annotated[str, typer.Option(help="what counts: template or majority")] = "template",
    tolerance: Annotated[float, typer.Option(help="of positions and cell vectors, Å")] = 1e-3,
) -> None:
    """Read what has become of the jobs: labels of those that are done, a reason for each of the others."""
    from mlipkit.labelling import LABELLED, collect

    with console.status(f"reading {folder}"):
        found = collect(folder, energy=energy, settings=settings, tolerance=tolerance)
    record.what = found.to_json()
    for state, count in found.counts.items():
        record.figure(state.replace(" ", "_"), count, "jobs")
    if len(found.frames):
        record.paths["labelled"] = str(folder / LABELLED)
    console.print(str(found), highlight=False, markup=False, soft_wrap=True)
