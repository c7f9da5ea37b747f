"""The user's look at candidate frames: they wait in ``candidates/NN.extxyz`` until they are approved or struck out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlipkit.data.whole import write_whole
from mlipkit.errors import RunError, nearest

STRUCK = "struck out by the user"
"""Why a frame that was picked was never labelled."""


def waiting(folder: Path | str) -> list[Path]:
    """Files of candidates that nobody has approved yet, in order."""
    folder = Path(folder)
    answered = decisions(folder)
    return [path for path in sorted((folder / "candidates").glob("*.extxyz")) if path.stem not in answered]


def decisions(folder: Path) -> dict[str, Any]:
    """Number of the candidates' file -> {"struck": uids}, of those that are approved."""
    try:
        return json.loads((folder / "struck.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def approve(folder: Path | str, candidates: str | int, strike: Iterable[str] = ()) -> None:
    """Let a workflow label these candidates when it goes on, except those that are struck out.

    Args:
        folder: of the workflow.
        candidates: number of the file in ``candidates/`` (``"01"`` or 1).
        strike: uids of frames that shall not be labelled; they are recorded and never replaced.

    Raises:
        RunError: no such candidates, already approved, or a uid that is not among them.
    """
    from mlipkit.data import read

    folder = Path(folder)
    number = f"{candidates:02d}" if isinstance(candidates, int) else str(candidates)
    path = folder / "candidates" / f"{number}.extxyz"
    if not path.is_file():
        raise RunError("no such candidates", where=str(path), hint=nearest(number, [p.stem for p in waiting(folder)]))
    answered = decisions(folder)
    if number in answered:
        raise RunError("these candidates are approved already", where=str(path))
    frames, struck = read(path), list(strike)
    known = {frames.uid(i) for i in range(len(frames))}
    for uid in struck:
        if uid not in known:
            raise RunError("no such frame among the candidates", where=(str(path), uid), hint=nearest(uid, known))
    if len(set(struck)) == len(known):
        raise RunError("no frame would be left to label", where=str(path), hint="Keep one, or end the workflow")
    write_whole(folder / "struck.json", json.dumps({**answered, number: {"struck": struck}}, indent=1).encode())
