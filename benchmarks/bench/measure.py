"""Measuring a job: every engine in turns, A B A B, one line for each."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import floors
from .engines import ROOT, Engine, EngineError, python_of
from .jobs import PRODUCTS, Job
from .table import OURS, quartiles

TURNS, SLOW_TURNS = 5, 3
SLOW = 1.0
"""Seconds of a repetition from which fewer turns are taken."""


@dataclass(frozen=True)
class Settings:
    """How the engines of a group run."""

    threads: int
    tuned: bool
    device: str

    @property
    def name(self) -> str:
        return "tuned" if self.tuned else "installed"


@dataclass
class Bench:
    """Engines of one `Settings`, a process for each job.

    Args:
        pythons: interpreter by engine, where given.
        seconds: length of a turn.
        turns: turns of each engine; None: `TURNS`, fewer where a repetition is slow.
    """

    settings: Settings
    pythons: dict[str, str]
    structures: Path
    seconds: float
    turns: int | None
    command: str

    def __post_init__(self) -> None:
        self._engines: dict[str, Engine] = {}
        self._speed: float | None = None

    def engine(self, name: str) -> Engine:
        if name not in self._engines:
            s = self.settings
            log = ROOT / "build" / "bench" / f"{name}.log"
            self._engines[name] = Engine(name, python_of(name, self.pythons), s.threads, s.tuned, s.device, log)
        return self._engines[name]

    def start(self, names: list[str]) -> None:
        """Start several at once: their imports then run side by side."""
        for name in names:
            self.engine(name)

    def speed(self) -> float:
        """GFLOP per second of CPU time (on a GPU: of wall time) of a large float32 product, best of one turn."""
        if self._speed is None:
            engine = self.engine(OURS)
            facts = engine.open(PRODUCTS.to_json(), self.structures)["facts"]
            said = engine.turn(0.5)
            self._end(OURS)
            self._speed = facts["gflop"] / min(said["cpu" if self.settings.device == "cpu" else "wall"])
        return self._speed

    def measure(self, job: Job, names: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
        """Lines of one group, and what went wrong."""
        ready, trouble = {}, []
        self.start(names)
        for name in names:
            try:
                ready[name] = self.engine(name).open(job.to_json(), self.structures)
            except EngineError as error:
                trouble.append(str(error))
                self._end(name)
                if name == OURS:
                    self.end()
                    return [], trouble
        cpu, wall, peak = ({name: [] for name in ready} for _ in range(3))
        slow = max((said["repeat_s"] for said in ready.values()), default=0.0) > SLOW
        for _ in range(self.turns or (SLOW_TURNS if slow else TURNS)):
            for name in list(ready):
                try:
                    said = self.engine(name).turn(self.seconds)
                except EngineError as error:
                    trouble.append(str(error))
                    self._end(name)
                    del ready[name]
                    continue
                cpu[name] += said["cpu"]
                wall[name] += said["wall"]
                peak[name].append(said["peak_mib"])
        self.end()
        group = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}-{os.getpid()}"
        return [self._line(job, name, ready[name], cpu[name], wall[name], peak[name], group) for name in ready], trouble

    def _line(
        self, job: Job, name: str, said: dict, cpu: list[float], wall: list[float], peak: list[float], group: str
    ) -> dict[str, Any]:
        facts, mine = said["facts"], name == OURS
        return {
            "group": group,
            "job": job.name,
            "engine": name,
            "threads": self.settings.threads,
            "settings": self.settings.name,
            "device": self.settings.device,
            "device_name": said["device_name"],
            "unit": job.unit,
            "cpu_ms": quartiles(cpu, job.per),
            "wall_ms": quartiles(wall, job.per),
            "repetitions": len(cpu),
            "first_s": round(said["first_s"], 3),
            "peak_mib": round(max(peak), 1),
            "facts": facts,
            "gflop": _gflop(job, facts, self.structures) if mine else None,
            "machine_gflops": round(self.speed(), 1) if mine and job.model else None,
            "load": os.getloadavg()[0],
            "versions": said["versions"],
            "commit": commit(),
            "options": job.to_json(),
            "command": self.command,
        }

    def _end(self, name: str) -> None:
        self._engines.pop(name).end()

    def end(self) -> None:
        for name in list(self._engines):
            self._end(name)


def _gflop(job: Job, facts: dict[str, int], structures: Path) -> float | None:
    import numpy as np

    if not job.model:
        return None
    with np.load(structures) as arrays:
        atoms, edges = len(arrays[f"{job.system}/numbers"]), arrays[f"{job.system}/edge_index"].shape[1]
    return floors.gflop(job, atoms * job.replicas, edges * job.replicas)


def commit() -> str:
    """Commit of the sources, with a + when files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=10"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"


def wait_hint(begin: float, done: int, total: int) -> str:
    """How long the rest will take, from what was done so far."""
    left = (time.monotonic() - begin) / max(done, 1) * (total - done)
    return f"{done}/{total}, about {left / 60:.0f} min left"
