"""Waiting for runs in a cell while the views above it go on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from mlipkit.runs import Run

LOOK_S = 0.2


async def ended(runs: Run | Iterable[Run], timeout: float | None = None) -> list[Run]:
    """Wait until runs have ended: ``await ended(runs)`` in a cell of a notebook.

    ``run.wait()`` holds the kernel, and with it every view on the page; here views are brought up to date and clicks
    are answered all the time.

    Args:
        runs: one or several.
        timeout: seconds after which it returns all the same; never when omitted.
    """
    waited = [runs] if isinstance(runs, Run) else list(runs)
    loop = asyncio.get_running_loop()
    end = None if timeout is None else loop.time() + timeout
    while any(run.active for run in waited) and (end is None or loop.time() < end):
        await asyncio.sleep(LOOK_S)
    return waited
