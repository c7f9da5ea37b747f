"""Engines as processes: where each runs, with which settings, and how to talk to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benchmarks" / "peers"
BUILT = ROOT / "build" / "peers"
TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1"}
"""glibc keeps freed memory instead of asking the kernel for it anew at every call; with flush-to-zero: "tuned"."""
SERVERS: dict[str, tuple[str, ...]] = {
    "mlipkit": ("serve_mlipkit.py",),
    "schnetpack": ("serve_schnetpack.py",),
    "graph-pes": ("serve_graph_pes.py",),
    "pyg": ("serve_pyg.py",),
    "vesin": ("serve_neighbours.py", "vesin"),
    "matscipy": ("serve_neighbours.py", "matscipy"),
    "ase": ("serve_neighbours.py", "ase"),
}
OWN_ENVIRONMENT = ("schnetpack", "graph-pes")
"""Engines whose pins never meet ours: `make bench-peers` builds their environments."""
NEEDS = {"pyg": "torch_geometric", "graph-pes": "graph_pes"}
"""Import names that differ from the engine's."""


class EngineError(Exception):
    """An engine could not do what it was asked; one line."""


def python_of(engine: str, given: dict[str, str]) -> str:
    """Interpreter of an engine: as given, else its environment under build/peers, else this one."""
    if engine in given:
        return given[engine]
    return str(BUILT / engine / "bin" / "python") if engine in OWN_ENVIRONMENT else sys.executable


def missing(engine: str, given: dict[str, str]) -> str | None:
    """Why an engine cannot be measured, in one line; None when it can."""
    python = python_of(engine, given)
    if not Path(python).exists():
        return f"{engine}: no {python}; `make bench-peers` makes it"
    package = NEEDS.get(engine, engine)
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec('{package}') is None)"
    if subprocess.run([python, "-c", look], capture_output=True, cwd=ROOT, check=False).returncode:
        return f"{engine}: {package} is not installed for {python}"
    return None


class Engine:
    """A running server (`peers/serving.py`), for one job.

    Args:
        name: key of `SERVERS`.
        python: interpreter.
        threads: of PyTorch and of every library that asks OpenMP.
        tuned: flush-to-zero and `TUNED`.
        device: "cpu" or "cuda".
    """

    def __init__(self, name: str, python: str, threads: int, tuned: bool, device: str, log: Path) -> None:
        self.name, self.threads, self.tuned, self.device = name, threads, tuned, device
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "PYTHONPATH"}
        for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
            environment[key] = str(threads)
        environment |= TUNED if tuned else {}
        log.parent.mkdir(parents=True, exist_ok=True)
        script, *arguments = SERVERS[name]
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                [python, str(PEERS / script), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=errors, env=environment, text=True, cwd=ROOT,
            )  # fmt: skip
        self.log = log
        self.versions: dict[str, str] | None = None

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EngineError(f"{self.name} ended; see {self.log}")
        reply = json.loads(line)
        if "error" in reply:
            raise EngineError(f"{self.name}: {reply['error']}")
        return reply

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._send(request)
        return self._read()

    def _send(self, request: dict[str, Any]) -> None:
        if self.versions is None:
            self.versions = self._read()["ready"]
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def open(self, job: dict[str, Any], structures: Path) -> dict[str, Any]:
        """Make a job ready and warm; facts about it."""
        settings = {"threads": self.threads, "tuned": self.tuned, "device": self.device}
        return self._ask({"open": job, "structures": str(structures), **settings})

    def turn(self, seconds: float) -> dict[str, Any]:
        """Repeat the opened job for about this long; seconds per repetition and peak memory."""
        return self._ask({"turn": seconds})

    def end(self) -> None:
        """End the process."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
