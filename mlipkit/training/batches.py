"""Which frames come when: a seeded order that resumes exactly, and batches made ahead of time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from mlipkit.errors import DataError

if TYPE_CHECKING:
    from mlipkit.data.frameset import FrameSet
    from mlipkit.data.graph import Graph, Targets


@dataclass(frozen=True)
class Batch:
    """Input and labels of one step, and whatever else the data source has to tell objective terms (`extra`)."""

    graph: Graph
    targets: Targets
    extra: Any = None

    def to(self, device: torch.device) -> Batch:
        """The same on a device; `extra` moves along when it has a `to`."""
        extra = self.extra.to(device) if hasattr(self.extra, "to") else self.extra
        return replace(self, graph=self.graph.to(device), targets=self.targets.to(device), extra=extra)


class Source(Protocol):
    """What to train on. Frames are the usual one; pools that change, or pieces of trajectories, are others.

    Attributes:
        frames: the labelled frames behind it: for coverage, plausibility and the final table of errors.
        fingerprint: changes when the data change; a training resumes only on the same data.

    A source may have `epoch_points`: training points per epoch of the present stage, in place of the settings'; and
    `stage_points`: those of the present stage and of all that may follow, so that the end can be foreseen.
    """

    @property
    def frames(self) -> FrameSet: ...
    @property
    def fingerprint(self) -> str: ...
    def __len__(self) -> int:
        """Training points."""
        ...

    def batch(self, indices: np.ndarray) -> Batch:
        """The points with these indices as one batch. Called from one thread at a time, not the main one."""
        ...

    def advance(self) -> str:
        """Called when training has converged: go to the next stage and name it, or return "" when there is none."""
        ...

    def state(self) -> dict[str, Any]:
        """JSON-ready state (the stage); `restore` undoes it."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


class FrameSource:
    """Single labelled frames, with neighbour lists computed once per frame and kept.

    Args:
        frames: training frames.
        cutoff: Å.
        dtype: of positions and targets (energies stay float64).
        max_bytes: bound of the neighbour cache; None: the cache's default.
    """

    def __init__(self, frames: FrameSet, cutoff: float, dtype: torch.dtype, max_bytes: int | None = None) -> None:
        from mlipkit.data.neighbours import NeighbourCache

        self.frames = frames
        self.dtype = dtype
        self.cache = NeighbourCache(frames, cutoff) if max_bytes is None else NeighbourCache(frames, cutoff, max_bytes)

    @property
    def fingerprint(self) -> str:
        return self.frames.hash

    def __len__(self) -> int:
        return len(self.frames)

    def batch(self, indices: np.ndarray) -> Batch:
        from mlipkit.data.graph import collate

        return Batch(*collate(self.frames, indices, self.cache, self.dtype))

    def advance(self) -> str:
        return ""

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


@dataclass(frozen=True)
class Order:
    """The order of training points: an endless row of permutations, each a pure function of (seed, pass).

    Epoch e is the piece ``[e * points, (e + 1) * points)`` of that row, so a position is two integers and there is no
    shuffle state to lose. With `points` = n every epoch is one permutation; with fewer, epochs walk on through it.

    Args:
        n: training points.
        seed: of the permutations.
        batch_size: points per process and step.
        processes: number of processes.
        points: points per epoch; None: n.
    """

    n: int
    seed: int
    batch_size: int
    processes: int = 1
    points: int | None = None

    def __post_init__(self) -> None:
        if self.n < self.processes:
            raise DataError("fewer training frames than processes", expected=self.processes, found=self.n)

    @property
    def per_epoch(self) -> int:
        """Points in one epoch."""
        return self.n if self.points is None else self.points

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one epoch: the last batch may be short; one shorter than the number of processes is left out."""
        whole, rest = divmod(self.per_epoch, self.batch_size * self.processes)
        return max(1, whole + (rest >= self.processes and rest > 0))

    def epoch(self, epoch: int) -> np.ndarray:
        """Indices of all points of an epoch (counted from 0), in order, int64."""
        start, stop = epoch * self.per_epoch, (epoch + 1) * self.per_epoch
        passes = range(start // self.n, (stop - 1) // self.n + 1)
        row = np.concatenate([np.random.default_rng([self.seed, turn]).permutation(self.n) for turn in passes])
        return row[start - passes.start * self.n : stop - passes.start * self.n]

    def batches(self, epoch: int, first: int = 0, rank: int = 0) -> Iterator[np.ndarray]:
        """Indices per step for one process, from step `first` of the epoch on.

        All processes share one batch of ``batch_size * processes`` points; each gets an equal piece of it.
        """
        points, width = self.epoch(epoch), self.batch_size * self.processes
        for step in range(first, self.steps_per_epoch):
            yield np.array_split(points[step * width : (step + 1) * width], self.processes)[rank]


class Feeder:
    """Makes the next batch in a second thread while the present one is computed; counts the time spent waiting.

    Attributes:
        waited_s: seconds for which the training stood still since `reset`.
    """

    def __init__(self, source: Source, device: torch.device) -> None:
        self.source, self.device = source, device
        self.waited_s = 0.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")

    def __call__(self, indices: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, Batch]]:
        """(indices, batch on the device), in the given order. An error in the thread is raised here."""
        chosen = next(indices, None)
        coming = None if chosen is None else self._pool.submit(self.source.batch, chosen)
        while chosen is not None and coming is not None:
            started = time.perf_counter()
            batch = coming.result()
            self.waited_s += time.perf_counter() - started
            following = next(indices, None)
            coming = None if following is None else self._pool.submit(self.source.batch, following)
            yield chosen, batch.to(self.device)
            chosen = following

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)
