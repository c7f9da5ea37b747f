"""Frames through engines in child processes: one that dies, hangs or is wanted no more takes down its frame only."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlipkit.errors import RunError
from mlipkit.events import Control
from mlipkit.labelling.protocol import Recipe

START_S = 900.0
"""An engine that is not built by then is given up."""
GRACE_S = 5.0
"""Frames at hand may be finished for so long when the user stops."""
TICK_S = 0.1
MOST_SAID = 1 << 20
"""Bytes of an engine's chatter that are kept."""


@dataclass
class Task:
    """One frame to be labelled: its row, and what the engine gets of it."""

    row: int
    request: Callable[[], dict[str, Any]]


@dataclass
class Answer:
    """What came back: the engine's record (labels, or its reason under "error"), or why there is none."""

    task: Task
    record: dict[str, Any]
    seconds: float
    cpu_s: float


Ready = Callable[[dict[str, Any]], None]


def through_children(
    tasks: deque[Task], recipe: Recipe, *, processes: int, threads: int, timeout: float | None, control: Control,
    ready: Ready, kept: Children | None = None,
) -> Generator[Answer, None, None]:  # fmt: skip
    """Answers as they come; tasks appended meanwhile are done too. Ends early when `control` says stop.

    Args:
        ready: told what the engine is, whenever one is there.
        kept: where engines are taken from and left; None: they end with this.

    Raises:
        RunError: the engine cannot be built.
    """
    pool = Children() if kept is None else kept
    children: list[_Child] = []
    stopped = 0.0
    try:
        for _ in range(min(processes, len(tasks))):
            children.append(pool.take(recipe, threads))
            if children[-1].ready:
                ready(children[-1].words)
        while tasks or any(child.task for child in children):
            request = control()
            if request == "stop":
                stopped = stopped or time.monotonic()
                if not any(child.task for child in children) or time.monotonic() > stopped + GRACE_S:
                    return
            for number, child in enumerate(children):
                if request != "run" or not tasks or child.task is not None:
                    continue
                if child.ended:
                    child.close()
                    children[number] = pool.take(recipe, threads)
                elif child.ready:
                    child.give(tasks.popleft(), timeout)
            yield from _listen(children, ready)
    finally:
        for child in children:
            pool.leave(child)
        if kept is None:
            pool.close()


class Children:
    """Engines that outlive a labelling: the next one with the same recipe finds them built.

    Building one may take far longer than a label. They end when this is closed, and with the process at the latest.
    """

    def __init__(self) -> None:
        self._idle: list[_Child] = []

    def take(self, recipe: Recipe, threads: int) -> _Child:
        """An engine of this recipe, one that is there or a new one."""
        for child in self._idle:
            if (child.recipe, child.threads) == (recipe, threads) and child.process.poll() is None:
                self._idle.remove(child)
                return child
        return _Child(recipe, threads)

    def leave(self, child: _Child) -> None:
        """Keep an engine that is well and has nothing to do; end any other."""
        if child.ready and not child.ended and child.task is None:
            self._idle.append(child)
        else:
            child.close()

    def close(self) -> None:
        """End all of them; new ones may be taken afterwards."""
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _listen(children: list[_Child], ready: Ready) -> Iterator[Answer]:
    """What the children say within a tick; those that take too long are killed."""
    with selectors.DefaultSelector() as selector:
        for child in children:
            if not child.ended:
                selector.register(child.output, selectors.EVENT_READ, child)
        events = selector.select(_patience(children))
    for key, _ in events:
        child: _Child = key.data
        for record in child.read():
            if child.ready:
                yield child.take(record)
            elif "error" in record:
                raise RunError(f"the engine cannot be built: {record['error']}")
            else:
                child.ready, child.words = True, record
                ready(record)
        if child.ended and not child.ready:
            raise RunError(f"the engine cannot be built: {child.death()}")
        if child.ended and child.task is not None:
            yield child.take({"error": child.death()})
    now = time.monotonic()
    for child in children:
        if not child.ready and not child.ended and now > child.begin + START_S:
            raise RunError(f"the engine cannot be built: nothing heard within {START_S:g} s")
        if child.task is not None and now > child.deadline:
            child.process.kill()
            child.ended = True
            yield child.take({"error": f"took more than {child.deadline - child.begin:g} s and was ended"})


def _patience(children: list[_Child]) -> float:
    deadlines = [child.deadline for child in children if child.task is not None]
    return max(0.0, min([TICK_S, *(deadline - time.monotonic() for deadline in deadlines)]))


@dataclass(eq=False)
class _Child:
    """One process with one engine. `words`: what it is; `begin`: when it was started or got its frame (monotonic s)."""

    recipe: Recipe
    threads: int
    task: Task | None = None
    ready: bool = False
    ended: bool = False
    words: dict[str, Any] = field(default_factory=dict)
    begin: float = field(default_factory=time.monotonic)
    deadline: float = float("inf")

    def __post_init__(self) -> None:
        limits = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        self.said = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - closed with the child
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlipkit.labelling.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.said, env={**os.environ, **dict.fromkeys(limits, str(self.threads)), "PYTHONPATH": _paths()},
        )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        os.set_blocking(self.output.fileno(), False)
        self._rest = b""
        self._say({"recipe": self.recipe.to_json(), "sys_path": sys.path})

    def give(self, task: Task, timeout: float | None) -> None:
        """Send a frame."""
        if os.fstat(self.said.fileno()).st_size > MOST_SAID:
            self.said.truncate(0)
        self.task, self.begin = task, time.monotonic()
        self.deadline = float("inf") if timeout is None else self.begin + timeout
        self._say(task.request())

    def _say(self, record: dict[str, Any]) -> None:
        # One that has died is noticed when it is listened to.
        with contextlib.suppress(BrokenPipeError):
            self.input.write(json.dumps(record).encode() + b"\n")
            self.input.flush()

    def read(self) -> list[dict[str, Any]]:
        """Whole lines that have come."""
        while not self.ended:
            try:
                part = os.read(self.output.fileno(), 1 << 20)
            except BlockingIOError:
                break
            self._rest += part
            self.ended = not part
        *lines, self._rest = self._rest.split(b"\n")
        return [json.loads(line) for line in lines]

    def take(self, record: dict[str, Any]) -> Answer:
        """The answer to the frame at hand."""
        assert self.task is not None
        task, self.task = self.task, None
        seconds = time.monotonic() - self.begin
        return Answer(task, record, record.pop("seconds", seconds), record.pop("cpu_s", seconds))

    def death(self) -> str:
        """How the process ended, in one line."""
        try:
            code = self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            return "the engine closed its output"
        self.said.seek(0)
        lines = self.said.read()[-4096:].decode(errors="replace").strip().splitlines()
        last = f": {lines[-1].strip()}" if lines else ""
        if code < 0:
            name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
            more = " (killed, perhaps for want of memory)" if name == "SIGKILL" else ""
            return f"the engine died of {name}{more}{last}"
        return f"the engine ended with exit code {code}{last}"

    def close(self) -> None:
        """End the process and collect it."""
        self.process.kill()
        for stream in (self.input, self.output):
            with contextlib.suppress(OSError):
                stream.close()
        self.process.wait()
        self.said.close()


def _paths() -> str:
    """The child finds this mlipkit before it is told the rest."""
    home, more = str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")
    return os.pathsep.join([home, *([more] if more else [])])
