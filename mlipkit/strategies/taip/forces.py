"""Forces of MD from a potential that adapts on the way: a force provider around `PotentialForces`.

==============  ==========================================================================
strategy        each step
==============  ==========================================================================
none            the trained weights
nonsaving       adapt from the trained weights, predict, put back (recommended by the paper); with `hold` above 1
                only at steps divisible by it, and the weights of the last adaptation predict in between
save_every      adapt from the weights at hand, predict, keep them (the published MD code)
save_every_k    as save_every at steps divisible by k; otherwise predict with the weights at hand
threshold       as save_every where the self-supervised loss exceeds τ
==============  ==========================================================================

The sixth of the paper is a potential without tasks. Replicas adapt apart: each has weights and random numbers of its
own. Forces at θ' are those of the energy at fixed θ'; as θ' depends on the positions, no energy is conserved.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mlipkit.data.graph import Graph
from mlipkit.errors import RunError, SpecError, check_choice
from mlipkit.md.forces import Forces, PotentialForces
from mlipkit.models import Potential
from mlipkit.strategies.taip.adapt import Adapter, AdaptSettings, Found
from mlipkit.strategies.taip.draws import parts
from mlipkit.strategies.taip.options import TASKS, check_number
from mlipkit.strategies.taip.stacked import Stacked, flattened, stackable, views
from mlipkit.strategies.taip.term import FIGURES

if TYPE_CHECKING:
    from mlipkit.data.series import SeriesWriter
    from mlipkit.md.state import MDState

Strategy = Literal["none", "nonsaving", "save_every", "save_every_k", "threshold"]
COLUMNS = {
    "step": "", "self_supervised": "", **dict.fromkeys(FIGURES.values(), ""), "gradient": "", "change": "", "drift": "",
    "adapted": "", "threshold": "",
}  # fmt: skip
"""Of the series ``adaptation``; see `mlipkit.runs.spec_taip`."""
ROWS = 256
MEMBERS = 1 << 20


@dataclass(frozen=True)
class MDAdaptation:
    """How a simulation adapts.

    Attributes:
        strategy: see the module.
        settings: of each step.
        every: k of "save_every_k".
        threshold: τ of "threshold" (`loss_threshold`); inf never adapts, -inf always.
        hold: of "nonsaving": steps for which adapted weights are used. 1: as published, each step adapts. More is
            cheaper and another method: the weights of a step are up to hold - 1 steps old.
    """

    strategy: Strategy = "nonsaving"
    settings: AdaptSettings = field(default_factory=AdaptSettings)
    every: int = 100
    threshold: float | None = None
    hold: int = 1

    def __post_init__(self) -> None:
        check_choice(self.strategy, get_args(Strategy), "strategy")
        for name in ("every", "hold"):
            check_number(getattr(self, name), name, 1, whole=True)
        if self.every != type(self).every and self.strategy != "save_every_k":
            raise SpecError("goes with the strategy 'save_every_k', and only with it", where="every", found=self.every)
        if self.hold > 1 and self.strategy != "nonsaving":
            raise SpecError("goes with the strategy 'nonsaving', and only with it", where="hold", found=self.hold)
        if (self.strategy == "threshold") != (self.threshold is not None):
            raise SpecError("goes with the strategy 'threshold', and only with it", where="threshold")
        if self.threshold is not None and (not isinstance(self.threshold, Real) or math.isnan(self.threshold)):
            raise SpecError("no loss compares with this", where="threshold", expected="a number", found=self.threshold)
        if self.settings.optimiser == "adam_kept" and self.strategy == "nonsaving":
            raise SpecError("moments that are kept go with weights that are kept", where="optimiser")
        if self.settings.together != 1:
            raise SpecError("replicas adapt apart", where="together", found=self.settings.together)

    @property
    def saving(self) -> bool:
        """Whether weights are kept from step to step."""
        return self.strategy in ("save_every", "save_every_k", "threshold") or self.hold > 1


class AdaptedForces(PotentialForces):
    """Energy and forces of a state from a potential that adapts.

    Args:
        potential: with self-supervised heads. Its own weights, as every call finds them, are the trained ones; they
            are put back. Strategies that keep weights begin with those of the first call.
        adaptation: how.
        skin, stress: as in `PotentialForces`.
        folders: of all replicas of the run, for the series ``adaptation``; None: no series.
        replicas: numbers of those that it is given, where they are not all.

    Raises:
        ModelError: a potential without self-supervised heads.
    """

    def __init__(
        self, potential: Potential, adaptation: MDAdaptation | None = None, *, skin: float = 0.5, stress: bool = False,
        folders: Sequence[Path] | None = None, replicas: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(potential, skin=skin, stress=stress)
        self.adaptation = adaptation or MDAdaptation()
        self.adapter = Adapter(potential, self.adaptation.settings)
        self.folders = None if folders is None else [Path(folder) for folder in folders]
        self.replicas = None if replicas is None else list(replicas)
        self.members: list[int] = []
        self.last: np.ndarray | None = None
        """[S, columns] of `COLUMNS` at the last call."""
        self._flat: Tensor | None = None
        self._next: Tensor | None = None  # room of the weights of a step until it is predicted
        self._moments: list[Any] = []
        self._rows: list[np.ndarray] = []
        self._written: int | None = None
        self._writers: dict[int, SeriesWriter] = {}

    @property
    def _own(self) -> list[Tensor] | None:
        """Weights [S,...] of the replicas, where they are kept."""
        return None if self._flat is None else views(self._flat, [p.shape for p in self.adapter.parameters])

    # ---- every step

    def __call__(self, state: MDState) -> Forces:
        how = self.adaptation
        if how.strategy == "none":
            found = super().__call__(state)
            self._record(state.step, None, np.zeros(state.n_systems))
            return found
        graph = self.graph(state)
        keys = [state.step * MEMBERS + member for member in self.members]
        at_once = stackable(graph, self.adapter.potential) and not self.stress
        if at_once and how.settings.optimiser != "adam_kept":
            energy, forces, stress = self._at_once(graph, keys, state.step)
        else:
            energy, forces, stress = self._one_by_one(graph, keys, state.step)
        device = state.positions.device
        return Forces(
            energy.to(device, torch.float64), forces.to(device, torch.float64),
            stress.to(device, torch.float64) if stress is not None else None,
        )  # fmt: skip

    def _due(self, step: int) -> bool:
        """Whether this step adapts, as far as that hangs on no loss."""
        how = self.adaptation
        return step % {"save_every_k": how.every, "nonsaving": how.hold}.get(how.strategy, 1) == 0

    def _one_by_one(self, graph: Graph, keys: Sequence[int], step: int) -> tuple[Tensor, Tensor, Tensor | None]:
        how, adapter, answers, rows, moments = self.adaptation, self.adapter, [], [], []
        with adapter.restored() as trained:
            for index, one in enumerate(parts(graph)):
                self._take(index, step, trained)
                found, moved = None, False
                if how.strategy == "threshold":
                    found, moved = self._above(one, keys[index])
                elif self._due(step):
                    found, moved = adapter.move(one, [keys[index]]), True
                prediction = self.potential(one, forces=True, stress=self.stress)
                answers.append(prediction)
                self._leave(index)
                moments.append(adapter.moments)
                rows.append((found, moved))
        self._keep(self._next)
        if self._moments:
            self._moments = moments
        self._record_each(step, rows)
        return (
            torch.cat([one.energy for one in answers]), torch.cat([one.forces for one in answers]),
            torch.cat([one.stress for one in answers]) if self.stress else None,
        )  # fmt: skip

    def _above(self, graph: Graph, key: int) -> tuple[Found, bool]:
        """One look at the loss; a step where it is above the threshold."""
        assert self.adaptation.threshold is not None
        slopes, seen = self.adapter.gradient_where(graph, [key], self.adaptation.threshold)
        zero = torch.zeros((), dtype=torch.float64)
        if slopes is None:
            return self.adapter.found(seen, [zero], [zero]), False
        return self.adapter.take(slopes, seen, key), True

    def _fresh(self, step: int) -> bool:
        """Whether this step begins at the trained weights, whatever the last one left."""
        return self.adaptation.strategy == "nonsaving" and self._due(step)

    def _take(self, index: int, step: int, trained: Sequence[Tensor]) -> None:
        """A replica's weights into the potential."""
        with torch.no_grad():
            own = None if self._fresh(step) else self._own
            source = trained if own is None else [each[index] for each in own]
            for parameter, value in zip(self.adapter.parameters, source, strict=True):
                parameter.copy_(value)
        if self._moments:
            self.adapter.moments = self._moments[index]

    def _leave(self, index: int) -> None:
        """And back, where they are kept, beside those that they came from."""
        if self._next is not None:
            self._next[index] = flattened(self.adapter.parameters)

    def _keep(self, weights: Tensor | None) -> None:
        """Let these [S,P] be the replicas' own. Only once a step is predicted: it may raise, and be asked for again."""
        if self._flat is not None and weights is not self._flat:
            self._flat, self._next = weights, self._flat

    def _at_once(self, graph: Graph, keys: Sequence[int], step: int) -> tuple[Tensor, Tensor, None]:
        how, adapter = self.adaptation, self.adapter
        flat = None if self._fresh(step) else self._flat
        stack = Stacked(self.potential, graph, flat)  # type: ignore[arg-type]
        found, moved = None, np.zeros(graph.n_systems)
        if how.strategy == "threshold":
            found, moved = adapter.move_each(stack, graph, keys, how.threshold, self._next)
        elif self._due(step):
            found, moved = adapter.move_each(stack, graph, keys, room=self._next)
        prediction = adapter.predict_stack(stack, graph)
        self._keep(stack.flat)
        self._record(step, found, moved)
        assert prediction.forces is not None
        return prediction.energy, prediction.forces, None

    # ---- what is kept of it

    def _record_each(self, step: int, rows: Sequence[tuple[Found | None, bool]]) -> None:
        known = [found for found, _ in rows if found is not None]
        whole = None
        if known and len(known) == len(rows):
            whole = Found(
                {name: torch.cat([one.losses[name] for one in known]) for name in known[0].losses},
                torch.cat([one.total for one in known]), None, torch.cat([one.gradient for one in known]),
                torch.cat([one.change for one in known]),
            )  # fmt: skip
        self._record(step, whole, np.array([float(moved) for _, moved in rows]))

    def _record(self, step: int, found: Found | None, moved: np.ndarray) -> None:
        how, size = self.adaptation, len(moved)
        values = {name: np.full(size, np.nan) for name in COLUMNS}
        values["step"], values["adapted"] = np.full(size, float(step)), moved
        values["change"] = np.zeros(size)
        values["drift"] = np.zeros(size) if self._own is None else self._drift()
        if how.threshold is not None:
            values["threshold"] = np.full(size, how.threshold)
        if found is not None:
            values["self_supervised"] = found.total.cpu().numpy()
            for name in TASKS:
                if name in found.losses:
                    values[FIGURES[name]] = found.losses[name].cpu().numpy()
            values["gradient"], values["change"] = found.gradient.cpu().numpy(), found.change.cpu().numpy()
        self.last = np.stack([values[name] for name in COLUMNS], axis=1)
        if self.folders is not None:
            self._rows.append(self.last)
            if len(self._rows) >= ROWS:
                self.flush()

    def _drift(self) -> np.ndarray:
        assert self._flat is not None
        return (self._flat - flattened(self.adapter.parameters)).norm(dim=1).cpu().numpy()

    def flush(self) -> None:
        """Rows that wait go to the series."""
        from mlipkit.data.series import SeriesWriter

        if self.folders is None or not self._rows:
            return
        block, self._rows = np.stack(self._rows, axis=1), []
        for member, rows in zip(self.members, block, strict=True):
            if member not in self._writers:
                place = self.folders[member] / "series" / "adaptation"
                self._writers[member] = SeriesWriter(place, COLUMNS, resume_rows=self._written)
            self._writers[member].append(rows)
            self._writers[member].flush()

    # ---- replicas, checkpoints

    def _start(self, state: MDState) -> None:
        super()._start(state)
        self.members = list(range(state.n_systems) if self.replicas is None else self.replicas)
        self._flat, self._next, self._moments = None, None, []
        self._writers, self._rows, self._written = {}, [], None
        if self.adaptation.saving:
            self._flat = flattened(self.adapter.parameters).expand(state.n_systems, -1).clone()
            self._next = torch.empty_like(self._flat)
            if self.adaptation.settings.optimiser == "adam_kept":
                self._moments = [None] * state.n_systems

    def part(self, replicas: Sequence[int]) -> AdaptedForces:
        """Forces for these replicas alone, under their numbers."""
        assert isinstance(self.potential, Potential)
        return AdaptedForces(
            self.potential, self.adaptation, skin=self.skin, stress=self.stress, folders=self.folders, replicas=replicas
        )

    def select(self, state: MDState, replicas: Sequence[int]) -> None:
        self.flush()
        super().select(state, replicas)
        chosen = list(replicas)
        self.members = [self.members[index] for index in chosen]
        if self._flat is not None:
            self._flat = self._flat[chosen]
            self._next = torch.empty_like(self._flat)
        if self._moments:
            self._moments = [self._moments[index] for index in chosen]

    def to_tensors(self) -> dict[str, Tensor]:
        self.flush()
        kept = super().to_tensors()
        kept["adaptation.how"] = torch.tensor(list(self._how()), dtype=torch.uint8)
        kept["adaptation.members"] = torch.tensor(self.members)
        rows = [self._writers[member].n_rows for member in self.members if member in self._writers]
        kept["adaptation.rows"] = torch.tensor(rows or [-1])
        for number, own in enumerate(self._own or ()):
            kept[f"adaptation.weight.{number}"] = own.cpu()
        for index, moments in enumerate(self._moments):
            if moments is not None:
                first, second, count = moments
                kept[f"adaptation.count.{index}"] = torch.tensor(count)
                for number, (m, v) in enumerate(zip(first, second, strict=True)):
                    kept[f"adaptation.first.{index}.{number}"], kept[f"adaptation.second.{index}.{number}"] = m, v
        return kept

    def _how(self) -> bytes:
        """What the next forces hang on beside positions and weights."""
        return json.dumps(asdict(self.adaptation), sort_keys=True).encode()

    def restore(self, state: MDState, tensors: Mapping[str, Tensor]) -> None:
        """As `PotentialForces.restore`; weights that were kept come back.

        Raises:
            RunError: the checkpoint is of a simulation that adapted in another way, or not at all.
        """
        how = tensors.get("adaptation.how")
        if "adaptation.members" not in tensors or (how is not None and bytes(how.tolist()) != self._how()):
            raise RunError(
                "the checkpoint is of a simulation that adapted in another way", where="adaptation",
                expected=self._how().decode(), found="none" if how is None else bytes(how.tolist()).decode(),
                hint="Give this one a folder of its own",
            )  # fmt: skip
        super().restore(state, {name: one for name, one in tensors.items() if not name.startswith("adaptation.")})
        self.members = tensors["adaptation.members"].tolist()
        rows = int(tensors["adaptation.rows"][0])
        self._written = None if rows < 0 else rows
        device = self.potential.device
        for number, own in enumerate(self._own or ()):
            own.copy_(tensors[f"adaptation.weight.{number}"].to(device))
        for index in range(len(self._moments)):
            if f"adaptation.count.{index}" in tensors:
                first, second = (
                    [
                        tensors[f"adaptation.{kind}.{index}.{number}"].to(device)
                        for number in range(len(self.adapter.parameters))
                    ]
                    for kind in ("first", "second")
                )
                self._moments[index] = (first, second, int(tensors[f"adaptation.count.{index}"]))
