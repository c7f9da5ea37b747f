"""`mlipkit what`: which strategies fit these frames and this potential."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from mlipkit.cli.command import Record, app, command, console
from mlipkit.strategies.applies.answers import State

COLOURS: dict[State, str] = {"ready": "green", "needs": "yellow", "impossible": "dim"}


@command(app, "what")
def what(
    record: Record,
    frames: Annotated[str, typer.Argument(help="frames: sample, file or run, with @frames")],
    potential: Annotated[
        str | None, typer.Option(help="universal:so3lr, sample:NAME, a file, a run, a factory")
    ] = None,
    maker: Annotated[str | None, typer.Option(help="label maker; chosen when left out")] = None,
    within: Annotated[float, typer.Option(min=0.0, help="time for measurements, s")] = 5.0,
) -> int | None:
    """Which strategies apply: ready, what they need, why not; expected labels, time and memory."""
    from mlipkit.runs import what_applies

    with console.status("measuring"):
        found = what_applies(frames, potential, maker=maker, within=within)
    record.what = found.to_json()
    for state in COLOURS:
        record.figure(state, len(found.of(state)), "strategies")
    for line in filter(None, (found.frames, found.potential)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for one in found:
        console.print(Text(f"\n{one.word}  {one.title}", style=COLOURS[one.state]), soft_wrap=True)
        console.print(f"   {one.sentence}", highlight=False, markup=False, soft_wrap=True)
        if one.state != "impossible":
            console.print(f"   {one.expected.sentence}", style="dim", highlight=False, markup=False, soft_wrap=True)
    for note in found.notes:
        console.print(f"\n{note}", highlight=False, markup=False, soft_wrap=True)
    return None
