"""`mlipkit analyse rollouts`: potentials along AIMD runs that they have not seen."""

from __future__ import annotations

from typing import Annotated

import typer

from mlipkit.cli.analysing import Page, analyse, call_of, refuse, show
from mlipkit.cli.command import Record, command, console, from_options


@command(analyse, "rollouts")
def rollouts(
    record: Record,
    arms: Annotated[
        list[str],
        typer.Argument(help="NAME=POTENTIAL,POTENTIAL,... of several seeds (runs, files); the first is judged"),
    ],
    on: Annotated[str | None, typer.Option(help="AIMD runs; left out: the test part of the first run")] = None,
    structures: Annotated[int, typer.Option(min=1, help="of a roll-out, the start included")] = 120,
    points: Annotated[int, typer.Option(min=1, help="starts, evenly spread over the runs")] = 64,
    velocities: Annotated[str, typer.Option(help="auto, file, lattice or difference")] = "auto",
    effect: Annotated[float, typer.Option(help="smallest gain worth having")] = 0.1,
    page: Page = None,
) -> None:
    """Roll potentials out along unseen AIMD without a thermostat: errors, drift, divergence, does the first arm win."""
    from mlipkit.runs.findings import check_writable
    from mlipkit.runs.rollouts_report import rollouts_finding

    if page is not None:
        check_writable(page)
    named: dict[str, list[str]] = {}
    for text in arms:
        name, sign, several = text.partition("=")
        name, several = (name, several) if sign else (text.rstrip("/").rpartition("/")[2], text)
        if name in named:
            from_options(refuse, "two arms of one name", where="arms", found=name)
        named[name] = [place for place in several.split(",") if place]
    options = {"structures": (structures, 120), "points": (points, 64), "velocities": (velocities, "auto"),
               "effect": (effect, 0.1)}  # fmt: skip
    lines = [
        "from mlipkit.runs.rollouts_report import rollouts_finding", "",
        call_of(f"finding = rollouts_finding({named!r}{f', {on!r}' if on else ''}", ")", options),
        "print(*finding.sentences, sep='\\n')",
    ]  # fmt: skip
    with console.status("rolling out"):
        finding = rollouts_finding(
            named, on, structures=structures, points=points, velocities=velocities, effect=effect,
            python="\n".join(lines),
        )  # fmt: skip
    show(record, finding, page, "rollouts")
