"""One gradient step on the self-supervised losses of the structure at hand, before it is predicted.

    θ' = θ - Δ(∂(L_ni + L_ma + L_mf)/∂θ)     for θ of the encoder, without the row of the hidden type

==========  ===========================================================================
optimiser   Δ(g)
==========  ===========================================================================
sgd         η g
adam_fresh  η g / (|g| + 1e-8): the first step of a new Adam, about η in every weight
adam_kept   Adam whose moments go from structure to structure: depends on their order
==========  ===========================================================================

Afterwards all weights are put back, bit for bit, in place. Every structure has random numbers of its own (`draws`), so
that results depend on no order, unless moments are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from mlipkit.data.graph import Graph
from mlipkit.errors import SpecError, check_choice
from mlipkit.models import Potential, Prediction
from mlipkit.strategies.taip.draws import draw
from mlipkit.strategies.taip.options import TASKS, Heads, check_number, heads_of
from mlipkit.strategies.taip.own_steps import Rule, step_of
from mlipkit.strategies.taip.stacked import Stacked
from mlipkit.strategies.taip.tasks import TaskLosses, losses
from mlipkit.strategies.taip.term import TOGETHER

Optimiser = Literal["sgd", "adam_fresh", "adam_kept"]
Direction = Literal["gradient", "random"]
EPSILON = 1e-8
_all: Any = torch  # operations on lists of tensors are not in torch's public listing
BETA1, BETA2 = 0.9, 0.999
_SIGNS = 0x5167


@dataclass(frozen=True)
class AdaptSettings:
    """How a potential adapts.

    Attributes:
        rate: adaptation step η; published: 1e-5 (periodic), 1e-6 (MD17), of an Adam. With "sgd" it means another thing.
        optimiser: see the module.
        noise, types, pseudo_forces: weights of the losses; None: as trained. Tasks that the potential was not trained
            on do not count.
        seed: of noise levels, displacements, hidden atoms.
        together: structures that share one step on the mean of their losses; 1: each has its own ("samplewise").
            With more, a prediction depends on what it is predicted with.
        direction: "random" takes the step with random signs: the control that moves every weight as far, elsewhere.
    """

    rate: float = 1e-5
    optimiser: Optimiser = "adam_fresh"
    noise: float | None = None
    types: float | None = None
    pseudo_forces: float | None = None
    seed: int = 0
    together: int = 1
    direction: Direction = "gradient"

    def __post_init__(self) -> None:
        check_choice(self.optimiser, get_args(Optimiser), "optimiser")
        check_choice(self.direction, get_args(Direction), "direction")
        check_number(self.rate, "rate")
        for name in TASKS:
            if getattr(self, name) is not None:
                check_number(getattr(self, name), name)
        check_number(self.together, "together", 1, whole=True)
        check_number(self.seed, "seed", whole=True)

    def weights(self, heads: Heads) -> dict[str, float]:
        """Task -> weight of its loss for a potential with these heads."""
        trained = heads.weights
        given = {name: getattr(self, name) for name in TASKS}
        return {
            name: 0.0 if not trained[name] else trained[name] if given[name] is None else given[name] for name in TASKS
        }


@dataclass(frozen=True)
class Found:
    """What adaptation saw of S structures.

    Attributes:
        losses: [S] by task, before the step. total: [S], weighted sum.
        hit: [S], whether the noise level was recognised; None without that task.
        gradient: [S], norm of the gradient in the adapted weights. change: [S], norm of the step.
    """

    losses: Mapping[str, Tensor]
    total: Tensor
    hit: Tensor | None
    gradient: Tensor
    change: Tensor


@dataclass
class Adapter:
    """Adapts a potential, in place and for a moment.

    Args:
        potential: with self-supervised heads.

    Raises:
        ModelError: it has no such heads, or none of a task with weight.
    """

    potential: Potential
    settings: AdaptSettings = field(default_factory=AdaptSettings)

    def __post_init__(self) -> None:
        self.heads = heads_of(self.potential)
        self.weights = self.settings.weights(self.heads)
        self.tasks = frozenset(name for name in self.heads.tasks if self.weights[name])
        if not self.tasks:
            raise SpecError(
                "none of the tasks that this potential was trained on has a weight", where="adaptation",
                expected=" or ".join(self.heads.tasks), found={name: getattr(self.settings, name) for name in TASKS},
            )  # fmt: skip
        encoder = self.potential.encoder
        tables = {id(part.weight) for part in encoder.modules() if isinstance(part, nn.Embedding)}
        self.parameters = list(self.potential.encoder_parameters().values())
        self.masked = [id(p) in tables for p in self.parameters]
        self.moments: tuple[list[Tensor], list[Tensor], int] | None = None
        self._room: Tensor | None = None

    # ---- one step for all that is given

    def gradient(self, graph: Graph, keys: Sequence[int]) -> tuple[list[Tensor], TaskLosses]:
        """Gradient of the mean loss over the structures in every adapted weight, and their losses."""
        slopes, found = self.gradient_where(graph, keys, -math.inf)
        assert slopes is not None
        return slopes, found

    def gradient_where(
        self, graph: Graph, keys: Sequence[int], threshold: float
    ) -> tuple[list[Tensor] | None, TaskLosses]:
        """As `gradient`; None where the mean loss is not above the threshold."""
        with self._asking():
            found = self.losses(graph, keys)
            total = found.total(self.weights).mean()
            if threshold > -math.inf and not float(total.detach()) > threshold:
                return None, found
            slopes = torch.autograd.grad(total, self.parameters, allow_unused=True)
        return self._without_mask(
            [torch.zeros_like(p) if g is None else g for g, p in zip(slopes, self.parameters, strict=True)]
        ), found

    def losses(self, graph: Graph, keys: Sequence[int], stack: Stacked | None = None) -> TaskLosses:
        """The losses of structures with the present weights, or those of the stack; keys as in `draws.draw`."""
        if len(keys) != graph.n_systems:
            raise SpecError("one key per structure", where="keys", expected=graph.n_systems, found=len(keys))
        drawn = draw(self.heads, graph.n_atoms.tolist(), self.settings.seed, keys)
        return losses(
            self.potential, self.heads, graph, drawn.to(graph.positions.device, self.potential.dtype), self.tasks,
            encode=None if stack is None else stack.encode, together=len(graph.numbers) <= TOGETHER,
            search=stack is None or not stack.all_pairs,
        )  # fmt: skip

    def step(self, slopes: Sequence[Tensor], key: int) -> list[Tensor]:
        """What is added to each weight. With kept moments they take the gradient in."""
        rate = self.settings.rate
        if self.settings.optimiser == "sgd":
            moved = _all._foreach_mul(list(slopes), -rate)
        elif self.settings.optimiser == "adam_fresh":
            size = _all._foreach_abs(list(slopes))
            _all._foreach_add_(size, EPSILON)
            moved = _all._foreach_div(list(slopes), size)
            _all._foreach_mul_(moved, -rate)
        else:
            moved = self._kept_moments(slopes)
        if self.settings.direction == "random":
            moved = [one * sign for one, sign in zip(moved, self._signs(moved, key), strict=True)]
        return list(moved)

    def _kept_moments(self, slopes: Sequence[Tensor]) -> list[Tensor]:
        first, second, count = self.moments or ([torch.zeros_like(g) for g in slopes],) * 2 + (0,)
        first = [BETA1 * m + (1 - BETA1) * g for m, g in zip(first, slopes, strict=True)]
        second = [BETA2 * v + (1 - BETA2) * g * g for v, g in zip(second, slopes, strict=True)]
        self.moments, count = (first, second, count + 1), count + 1
        whole1, whole2 = 1 - BETA1**count, 1 - BETA2**count
        return [
            -self.settings.rate * (m / whole1) / ((v / whole2).sqrt() + EPSILON)
            for m, v in zip(first, second, strict=True)
        ]

    def _signs(self, like: Sequence[Tensor], key: int) -> list[Tensor]:
        drawn = self._drawn(key).split([p.numel() for p in like])
        return [part.view(one.shape).to(one) for part, one in zip(drawn, like, strict=True)]

    def _drawn(self, key: int) -> Tensor:
        """Random signs, int8 [P], of all adapted weights."""
        rng = np.random.Generator(
            np.random.Philox(key=[(self.settings.seed ^ _SIGNS) & (2**64 - 1), key & (2**64 - 1)])
        )
        return torch.from_numpy(rng.integers(0, 2, sum(p.numel() for p in self.parameters), dtype=np.int8) * 2 - 1)

    def _without_mask(self, slopes: list[Tensor]) -> list[Tensor]:
        # The hidden type is no element; its row stays.
        for slope, masked in zip(slopes, self.masked, strict=True):
            if masked:
                slope[..., 0, :] = 0
        return slopes

    def move(self, graph: Graph, keys: Sequence[int]) -> Found:
        """Take the step and stay there."""
        slopes, found = self.gradient(graph, keys)
        return self.take(slopes, found, keys[0])

    def take(self, slopes: Sequence[Tensor], found: TaskLosses, key: int) -> Found:
        """Go where these gradients lead, and stay there."""
        steps = self.step(slopes, key)
        with torch.no_grad():
            _all._foreach_add_(self.parameters, steps)
        return self.found(found, [_norm(slopes)], [_norm(steps)])

    def found(self, given: TaskLosses, gradient: Sequence[Tensor], change: Sequence[Tensor]) -> Found:
        """Detached figures; a shared step is that of each structure."""
        total = given.total(self.weights).detach()
        return Found(
            {name: one.detach() for name, one in given.by_task.items()}, total, given.hit,
            torch.stack(list(gradient)).expand(len(total)) if len(gradient) == 1 else torch.stack(list(gradient)),
            torch.stack(list(change)).expand(len(total)) if len(change) == 1 else torch.stack(list(change)),
        )  # fmt: skip

    @contextmanager
    def adapted(self, graph: Graph, keys: Sequence[int]) -> Iterator[Found]:
        """Inside, the potential has the adapted weights; afterwards its own again, whatever happened."""
        with self.restored():
            yield self.move(graph, keys)

    @contextmanager
    def restored(self) -> Iterator[list[Tensor]]:
        """Whatever happens inside to the adapted weights is undone, bit for bit; their storage stays. Gives a copy."""
        saved = [p.detach().clone() for p in self.parameters]
        try:
            yield saved
        finally:
            with torch.no_grad():
                _all._foreach_copy_(self.parameters, saved)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Gradients for adapted weights and for nothing else, in evaluation mode; all put back."""
        flags = [(p, p.requires_grad) for p in self.potential.parameters()]
        training = self.potential.training
        chosen = {id(p) for p in self.parameters}
        if training:
            self.potential.eval()
        try:
            for parameter, _ in flags:
                parameter.requires_grad_(id(parameter) in chosen)
            with torch.enable_grad():
                yield
        finally:
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
            if training:
                self.potential.train()

    # ---- predictions

    def predict(
        self, graph: Graph, keys: Sequence[int], *, forces: bool = True, stress: bool = False, features: bool = False
    ) -> tuple[Prediction, Found]:
        """One step on all structures together, predict, put back. One structure: "samplewise"."""
        with self.adapted(graph, keys) as found:
            return self.potential(graph, forces=forces, stress=stress, features=features), found

    def predict_each(self, graph: Graph, keys: Sequence[int]) -> tuple[Prediction, Found]:
        """Every structure with weights of its own, all at once: `predict` of one after the other (`stackable` graphs).

        Raises:
            SpecError: moments are kept from structure to structure.
        """
        stack = Stacked(self.potential, graph)
        found, _ = self.move_each(stack, graph, keys)
        return self.predict_stack(stack, graph), found

    def predict_stack(self, stack: Stacked, graph: Graph) -> Prediction:
        """Energies and forces of the structures of a stack with its weights; to the bit the plain ones at η = 0."""
        if not self.settings.rate:
            return self.potential(graph, forces=True, features=True)
        with self._asking():
            return stack.predict(graph)

    def move_each(
        self, stack: Stacked, graph: Graph, keys: Sequence[int], threshold: float | None = None,
        room: Tensor | None = None,
    ) -> tuple[Found, np.ndarray]:  # fmt: skip
        """Take every structure's step in the stack's weights; with a threshold only where the loss exceeds it.

        Args:
            room: where the stack's new weights [S,P] go; None: into room that the next such call takes again.

        Returns:
            What was seen, and whether each structure moved, 0 or 1 [S].
        """
        if self.settings.optimiser == "adam_kept":
            raise SpecError("goes from structure to structure, one at a time", where="optimiser", found="adam_kept")
        zero = torch.zeros(graph.n_systems, dtype=torch.float64, device=graph.positions.device)
        with self._asking():
            given = self.losses(graph, keys, stack)
            total = given.total(self.weights)
            moving = torch.ones_like(zero) if threshold is None else (total.detach() > threshold).double()
            if not moving.any():
                return replace(
                    self.found(given, [zero[0]], [zero[0]]), gradient=zero, change=zero
                ), moving.cpu().numpy()
            kept = stack.tape.collect(total.sum())
        if room is None:
            room, shape = self._room, (graph.n_systems, stack.flat.shape[-1])
            if (
                room is None
                or room.shape != shape
                or (room.dtype, room.device) != (stack.flat.dtype, stack.flat.device)
            ):
                room = self._room = stack.flat.new_empty(shape)
        rule = self._rule(keys, moving)
        stack.flat, gradient, change = step_of(kept, stack.flat, stack.sizes, graph.n_systems, rule, room)
        figures = {"gradient": gradient * moving, "change": change}  # of those that stay alone none is computed
        return replace(self.found(given, [zero[0]], [zero[0]]), **figures), moving.cpu().numpy()

    def _rule(self, keys: Sequence[int], moving: Tensor) -> Rule:
        # The hidden type is no element; its row stays.
        still = [(number, 0, self.parameters[number].shape[1]) for number, masked in enumerate(self.masked) if masked]
        signs = None
        if self.settings.direction == "random":
            signs = torch.stack([self._drawn(key) for key in keys])
        return Rule(self.settings.rate, self.settings.optimiser == "adam_fresh", EPSILON, still, signs, moving)


def _norm(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(_all._foreach_norm(list(parts))).norm()
