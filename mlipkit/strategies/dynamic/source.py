"""The data source of dynamic training: sub-sequences from start points, longer stage by stage."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase.data import atomic_masses

from mlipkit.data import FrameSet
from mlipkit.data.graph import collate
from mlipkit.data.neighbours import NeighbourCache
from mlipkit.errors import SpecError
from mlipkit.events import EventSink, Message, ignore
from mlipkit.strategies.dynamic.losses import Sequences
from mlipkit.strategies.dynamic.runs import AIMDRuns
from mlipkit.training.batches import Batch

APART = 0.2
"""Å; roll-outs that end further from the reference on average are not made longer: their edges would be wrong."""


ROUNDED = 0.01
"""Share by which the evaluations of an epoch may differ between stages, because roll-outs are whole."""


def points_of(evaluations: int | None, n_structures: int) -> int | None:
    """Start points that need so many force evaluations."""
    return None if evaluations is None else max(1, round(evaluations / n_structures))


def made(evaluations: int, n_structures: int) -> int:
    """Force evaluations that an epoch of roll-outs really makes: whole roll-outs."""
    return (points_of(evaluations, n_structures) or 1) * n_structures


def check_equal_work(evaluations: int | None, structures: Sequence[int]) -> None:
    """Refuse evaluations that S of some stage does not divide well enough: its work would be another. SpecError."""
    if evaluations is None:
        return

    def fits(number: int) -> bool:
        return all(abs(made(number, length) - number) <= ROUNDED * number for length in structures)

    if not fits(evaluations):
        # Far enough up every number fits, because the rounding is at most half a roll-out.
        nearest = [next((n for n in range(evaluations - 1, 0, -1) if fits(n)), None),
                   next(n for n in itertools.count(evaluations + 1) if fits(n))]  # fmt: skip
        each = ", ".join(f"{made(evaluations, length)} with {length}" for length in dict.fromkeys(structures))
        raise SpecError(
            "stages would not do equal work", where="evaluations_per_epoch",
            expected="a number that the structures of every stage divide", found=f"{evaluations}, which is {each}",
            hint=f"Take {' or '.join(str(n) for n in nearest if n is not None)}",
        )  # fmt: skip


def check_refresh(refresh: int | None) -> None:
    """Refuse what is no number of structures: SpecError."""
    if refresh is not None and refresh < 1:
        raise SpecError("out of range", where="refresh", expected="at least 1, or None", found=refresh)


def check_curriculum(structures: Sequence[int]) -> None:
    """Refuse what is no S of stages: SpecError."""
    whole = all(isinstance(one, int | np.integer) and one >= 1 for one in structures)
    if not structures or not whole or any(b < a for a, b in itertools.pairwise(structures)):
        raise SpecError(
            "not a curriculum", where="n_structures", expected="whole numbers of at least 1 that never fall",
            found=list(structures),
        )  # fmt: skip


class SequenceSource:
    """Pieces of runs, one per start point.

    Args:
        runs: AIMD runs in order.
        cutoff: Å. dtype: of positions and targets.
        structures: S of each stage, ascending or equal; the start points are those of the longest, in every stage.
        refresh: edges come from the reference every so many structures; None: from the start frame alone.
        frozen: bool, per atom of a frame [n] when all frames have the same atoms: these do not move and count in no
            error.
        apart_limit: Å, see `APART`; None: no limit.
        evaluations: force evaluations per epoch, the same in every stage: an epoch of S structures has 1/S of the
            points. None: as many points as the settings of the training say.
        equal_stages: roll-outs that went astray stay as long as they are in the stages that remain, instead of ending
            the training: every arm of a comparison then does the same work.
        sink: hears when roll-outs are not made longer.
        recipe: plain dictionary, kept in the state for whoever resumes.

    Attributes:
        apart: mean distance from the reference that a validation measured last, Å.
        held: S at which roll-outs stopped to become longer, or None.
    """

    def __init__(
        self, runs: AIMDRuns, cutoff: float, dtype: torch.dtype, structures: Sequence[int] = (1, 2, 4, 8), *,
        refresh: int | None = 1, frozen: np.ndarray | None = None, apart_limit: float | None = APART,
        evaluations: int | None = None, equal_stages: bool = False, sink: EventSink = ignore,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        check_curriculum(structures)
        check_refresh(refresh)
        self.runs, self.dtype = runs, dtype
        self.structures, self.refresh = tuple(structures), refresh
        self.frozen, self.apart_limit = frozen, apart_limit
        self.evaluations, self.equal_stages, self.sink = evaluations, equal_stages, sink
        self.recipe = recipe
        self.stage, self.apart = 0, 0.0
        self.held: int | None = None
        self.points = runs.start_points(max(structures))
        self._run_of = runs.run_of
        self._lists = NeighbourCache(runs.frames, cutoff)

    @property
    def n_structures(self) -> int:
        """S of the present stage."""
        return self.structures[self.stage] if self.held is None else self.held

    @property
    def epoch_points(self) -> int | None:
        """Start points per epoch of the present stage, or None where the settings say it."""
        return self.stage_points[0]

    @property
    def stage_points(self) -> list[int | None]:
        """The same of the present stage and of those after it."""
        lengths = (
            self.structures[self.stage :] if self.held is None else [self.held] * (len(self.structures) - self.stage)
        )
        return [points_of(self.evaluations, length) for length in lengths]

    @property
    def frames(self) -> FrameSet:
        return self.runs.frames

    @property
    def fingerprint(self) -> str:
        mine = (self.runs.frames.hash, self.structures, self.refresh, len(self.points), self.evaluations)
        return hashlib.blake2b(repr(mine).encode(), digest_size=8).hexdigest()

    def __len__(self) -> int:
        return len(self.points)

    def batch(self, indices: np.ndarray) -> Batch:
        starts = self.points[indices]
        length, frames = self.n_structures, self.runs.frames
        graph, first_targets = collate(frames, starts, self._lists, self.dtype)
        graphs, forces = [graph], [first_targets.forces]
        for step in range(1, length):
            fresh = self.refresh is not None and step % self.refresh == 0
            if fresh:
                graph, targets = collate(frames, starts + step, self._lists, self.dtype)
                forces.append(targets.forces)
            else:
                here = frames.select(starts + step)
                positions = torch.tensor(np.asarray(here.positions), dtype=self.dtype)
                graph = graph.moved(positions, graph.cell)
                forces.append(torch.tensor(np.asarray(here.forces), dtype=self.dtype))
            graphs.append(graph)
        first = graphs[0]
        timestep = torch.tensor(self.runs.timestep[self._run_of[starts]], dtype=self.dtype)[first.system]
        velocities = np.concatenate([self.runs.velocities(int(start)) for start in starts])
        displacement = torch.tensor(velocities, dtype=self.dtype) * timestep.unsqueeze(1)
        masses = torch.tensor(atomic_masses[first.numbers.numpy()], dtype=self.dtype)
        frozen = None
        if self.frozen is not None:
            frozen = torch.tensor(np.tile(np.asarray(self.frozen, bool), len(starts)))
            forces = [torch.where(frozen.unsqueeze(1), torch.nan, one) for one in forces]
        extra = Sequences(graphs, torch.stack(forces), displacement, masses, timestep, frozen)
        return Batch(first, first_targets, extra)

    def advance(self) -> str:
        if self.stage + 1 >= len(self.structures):
            return ""
        longer = self.structures[self.stage + 1] > self.n_structures
        if longer and self.held is None and self.apart_limit is not None and not self.apart <= self.apart_limit:
            then = f"stay at {self.n_structures} structures" if self.equal_stages else "end here"
            self.sink(Message(
                f"Roll-outs of {self.n_structures} structures end {self.apart:.2f} Å from the reference on average, "
                f"more than {self.apart_limit:g} Å: they are not made longer and {then}", "warning",
            ))  # fmt: skip
            if not self.equal_stages:
                return ""
            self.held = self.n_structures
        self.stage += 1
        return f"roll-outs of {self.n_structures} structures" + (
            f" (stage {self.stage + 1})" if self.held or self.structures.count(self.n_structures) > 1 else ""
        )

    def state(self) -> dict[str, Any]:
        mine = {} if self.recipe is None else {"recipe": self.recipe}
        return {"stage": self.stage, "apart": self.apart, "held": self.held, **mine}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.stage, self.apart, self.held = int(state["stage"]), float(state["apart"]), state.get("held")
