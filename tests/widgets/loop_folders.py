"""Folders of tiny runs of iterative pretraining, made in seconds with toy tools: ended, half-way, as launched runs."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "strategies"))

from ipip_toys import TINY, toys

from mlipkit.events import Event
from mlipkit.runs import IPIPSpec
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.log import EventLog
from mlipkit.strategies.ipip import Reaction, Stability, plan, run_ipip
from mlipkit.strategies.workflows.running import Outcome

TESTED = dataclasses.replace(
    TINY, stability=Stability(runs=2, steps=20, temperature=300.0, relax_steps=0, stride=5, friction=0.02),
    reaction=Reaction(runs=2, steps=20, temperature=150.0, relax_steps=0, stride=5, track="O", lifetime=10.0),
)  # fmt: skip


def loop(folder: Path, arm: str, seed: int = 0, reuse: tuple[Path, ...] = (), stop_after: int = 0,
         **settings: object) -> Outcome:  # fmt: skip
    """Carry out one arm with one seed; `stop_after`: so many stages, as the user would."""
    made = plan(arm, dataclasses.replace(TESTED, **settings), seed)  # type: ignore[arg-type]

    def control() -> str:
        done = len(list(folder.glob("stages/*/stage.json")))
        return "stop" if stop_after and done >= stop_after else "run"

    return run_ipip(made, folder, toys(), control=control, reuse=reuse)  # type: ignore[arg-type]


def arms(root: Path, seeds: tuple[int, ...] = (0, 1)) -> list[Path]:
    """The loop, scratch and one-shot, evaluated."""
    folders: list[Path] = []
    for seed in seeds:
        for arm in ("ipip", "scratch", "one_shot"):
            folder = root / f"{arm}_{seed}"
            assert loop(folder, arm, seed, tuple(folders)).state == "completed"
            folders.append(folder)
    return folders


def recorded(folder: Path, *said: Event, **fields: object) -> RunFolder:
    """Make such a folder a run that has said so much; no process computes it."""
    files = RunFolder(folder)
    files.spec.write_text(IPIPSpec(data="dft.extxyz", **fields).to_yaml())  # type: ignore[arg-type]
    log = EventLog(files.events)
    for event in said:
        log(event)
    log.close()
    return files
