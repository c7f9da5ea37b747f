"""`mlipkit analyse bonds|rdf|msd|species|parity`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from mlipkit.cli.analysing import (
    Page,
    Pairs,
    Seed,
    Sets,
    Spacing,
    analyse,
    frames_of,
    python_of,
    refuse,
    show,
    sources_of,
)  # fmt: skip
from mlipkit.cli.command import Record, command, console, from_options
from mlipkit.errors import SpecError, nearest


@command(analyse, "bonds")
def bonds(
    record: Record,
    sets: Sets,
    pair: Pairs = None,
    cut: Annotated[str, typer.Option(help="hard (published), soft, or Å")] = "hard",
    order: Annotated[str, typer.Option(help="any, or first_lower (as published)")] = "any",
    bins: Annotated[int, typer.Option(help="bins of the histogram")] = 50,
    block: Annotated[str, typer.Option(help="ps of a block of time for intervals, or run")] = "25",
    spacing: Spacing = None,
    seed: Seed = 0,
    page: Page = None,
) -> None:
    """Compare bond lengths of sets with those of the first."""
    from mlipkit.runs.structure_reports import bonds_finding

    limit: Any = cut if cut in ("hard", "soft") else from_options(_number, cut, "--cut", "hard, soft or a length in Å")
    if order not in ("any", "first_lower"):
        from_options(refuse, "no such order", where="--order", found=order, hint=nearest(order, ("any", "first_lower")))
    length: Any = "run" if block == "run" else 1000 * from_options(_number, block, "--block", "ps or run")
    frames = frames_of(sets, page, spacing)
    options = {"cut": (limit, "hard"), "order": (order, "any"), "bins": (bins, 50), "block": (length, 25_000.0)}
    with console.status("measuring bonds"):
        finding = bonds_finding(
            frames, pair, cut=limit, order=order, bins=bins, block=length, seed=seed,  # type: ignore[arg-type]
            python=python_of("structure_reports", "bonds_finding", sets, pair, options, spacing),
            sources=sources_of(sets),
        )  # fmt: skip
    show(record, finding, page, "bonds")


@command(analyse, "rdf")
def rdf(
    record: Record,
    sets: Sets,
    pair: Pairs = None,
    r_max: Annotated[float, typer.Option(help="Å")] = 6.0,
    bins: Annotated[int, typer.Option(help="bins up to there")] = 300,
    normalise: Annotated[
        str | None, typer.Option(help="density: g(r); none: neighbours per Å, for what is not periodic")
    ] = None,
    spacing: Spacing = None,
    page: Page = None,
) -> None:
    """Radial distribution functions, peaks and coordination numbers."""
    from mlipkit.runs.structure_reports import rdf_finding

    if normalise not in (None, "density", "none"):
        from_options(refuse, "no such way", where="--normalise", found=normalise, expected="density or none")
    frames = frames_of(sets, page, spacing)
    options = {"r_max": (r_max, 6.0), "bins": (bins, 300), "normalise": (normalise, None)}
    with console.status("measuring distances"):
        finding = rdf_finding(
            frames, pair, r_max=r_max, bins=bins, normalise=normalise,  # type: ignore[arg-type]
            python=python_of("structure_reports", "rdf_finding", sets, pair, options, spacing),
            sources=sources_of(sets),
        )  # fmt: skip
    show(record, finding, page, "rdf")


@command(analyse, "msd")
def msd(
    record: Record,
    sets: Sets,
    element: Annotated[list[str] | None, typer.Option("--element", metavar="O", help="may be repeated")] = None,
    origin: Annotated[str, typer.Option(help="windowed, or first frame only (first)")] = "windowed",
    window: Annotated[str | None, typer.Option(metavar="PS,PS", help="lags of the straight line")] = None,
    unwrapped: Annotated[bool, typer.Option("--unwrapped", help="positions are continuous in the files")] = False,
    spacing: Spacing = None,
    page: Page = None,
) -> None:
    """Mean squared displacements and diffusion coefficients of runs."""
    from mlipkit.runs.motion_reports import msd_finding

    if origin not in ("windowed", "first"):
        from_options(refuse, "no such origin", where="--origin", found=origin, expected="windowed or first")
    lags = None if window is None else from_options(_lags, window)
    frames = frames_of(sets, page)
    options = {"origin": (origin, "windowed"), "window": (lags, None), "wrapped": (not unwrapped, True),
               "spacing": (spacing, None)}  # fmt: skip
    with console.status("following atoms"):
        finding = msd_finding(
            frames, element, origin=origin, window=lags, spacing=spacing, wrapped=not unwrapped,  # type: ignore
            python=python_of("motion_reports", "msd_finding", sets, element, options), sources=sources_of(sets),
        )  # fmt: skip
    show(record, finding, page, "msd")


@command(analyse, "species")
def species(
    record: Record,
    sets: Sets,
    lifetime: Annotated[
        float, typer.Option(metavar="FS", help="how long a bond must last, or be gone, to count")
    ] = 1000.0,
    spacing: Spacing = None,
    page: Page = None,
) -> None:
    """Molecular species, how long they live, and reactions."""
    from mlipkit.runs.motion_reports import species_finding

    frames = frames_of(sets, page)
    options = {"lifetime": (lifetime, 1000.0), "spacing": (spacing, None)}
    with console.status("finding molecules"):
        finding = species_finding(
            frames, lifetime=lifetime, spacing=spacing,
            python=python_of("motion_reports", "species_finding", sets, None, options), sources=sources_of(sets),
        )  # fmt: skip
    show(record, finding, page, "species")


@command(analyse, "parity")
def parity(
    record: Record,
    sets: Sets,
    potential: Annotated[
        str | None, typer.Option(help="predicts: sample, run, file, universal:NAME or file.py:make")
    ] = None,
    predicted: Annotated[
        list[str] | None,
        typer.Option("--predicted", metavar="FILE", help="the same frames with predictions, one per set"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    seed: Seed = 0,
    page: Page = None,
) -> None:
    """Compare predictions with labels: errors, softening, residuals; or two files: labels first, predictions second."""
    from mlipkit.runs.findings import read_sets
    from mlipkit.runs.parity_report import aligned, parity_finding
    from mlipkit.runs.predicting import predict_with

    places = list(sets)
    if potential is None and predicted is None and len(places) == 2:
        places, predicted = places[:1], places[1:]
    if (potential is None) == (predicted is None):
        from_options(
            refuse,
            "one of two is needed",
            where="parity",
            expected="--potential NAME, or two files (labels, predictions)",
        )
    if predicted is not None and len(predicted) != len(places):
        from_options(refuse, "one file of predictions per set", where="--predicted", expected=len(places),
                     found=len(predicted))  # fmt: skip
    frames = frames_of(places, page)
    found = {}
    with console.status("predicting"):
        for index, (name, one) in enumerate(frames.items()):
            if potential is not None:
                found[name] = predict_with(potential, one, Path.cwd(), device)
            else:
                assert predicted is not None
                (other,) = read_sets([predicted[index]]).values()
                found[name] = aligned(one, other)
        reading = "from mlipkit.runs.findings import read_sets"
        if potential is not None:
            lines = ["from pathlib import Path", "", reading, "from mlipkit.runs.parity_report import parity_finding"]
            lines += ["from mlipkit.runs.predicting import predict_with"]
            made = f"{{name: predict_with({potential!r}, one, Path.cwd()) for name, one in sets.items()}}"
        else:
            lines = [reading, "from mlipkit.runs.parity_report import aligned, parity_finding"]
            made = f"{{name: aligned(sets[name], one) for name, one in zip(sets, read_sets({predicted!r}).values())}}"
        lines += ["", f"sets = read_sets({places!r})", f"predicted = {made}"]
        who = potential or ", ".join(predicted or ())
        lines.append(f"finding = parity_finding(sets, predicted, {who!r})")
        finding = parity_finding(
            frames, found, who, seed=seed, python="\n".join(lines), sources=sources_of(places)
        )  # fmt: skip
    show(record, finding, page, "parity")


def _number(text: str, where: str, expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise SpecError("not a positive number", where=where, expected=expected, found=text)
    return value


def _lags(text: str) -> tuple[float, float]:
    parts = text.split(",")
    if len(parts) != 2:
        raise SpecError("two lags are needed", where="--window", expected="PS,PS", found=text)
    low, high = (1000 * _number(part, "--window", "PS,PS") for part in parts)
    if not low < high:
        raise SpecError("the first lag comes first", where="--window", found=text)
    return low, high
