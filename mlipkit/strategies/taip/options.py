"""Every option of the self-supervised tasks, and how they get onto a potential."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

import torch

from mlipkit.errors import ModelError, SpecError, check_choice
from mlipkit.models import Potential
from mlipkit.models.self_supervised import (
    Decoder,
    ForcesHead,
    MaskedForces,
    NoiseEdges,
    NoiseHead,
    Pooling,
    TypesHead,
)

if TYPE_CHECKING:
    from mlipkit.models import BasePotential

NOISE, TYPES, FORCES = "taip_noise", "taip_types", "taip_forces"
"""Names of the auxiliary heads."""
TASKS: Final = ("noise", "types", "pseudo_forces")
LEVELS = {True: 50, False: 30}
TYPE_RATE = {True: 0.10, False: 0.15}
FORCE_RATE = {True: 0.05, False: 0.10}
"""Published choices for periodic frames (True) and for molecules."""


def check_number(value: object, where: str, least: float = 0.0, below: float = inf, *, whole: bool = False) -> None:
    """Refuse what is no number in [least, below).

    Raises:
        SpecError: names it.
    """
    kind = Integral if whole else Real
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= float(value) < below:
        expected = f"{'a whole number' if whole else 'a number'} of at least {least:g}"
        expected += "" if below == inf else f" and below {below:g}"
        raise SpecError("out of range", where=where, expected=expected, found=value)


@dataclass(frozen=True)
class TaipOptions:
    """Numbers of the three tasks (methods: sections 2 to 4 of the paper's recipe; None: published for the frames).

    Attributes:
        noise, types, pseudo_forces: weights of the three losses; 0 leaves a task out.
        levels: T noise levels; None: 50 for periodic frames, 30 for molecules.
        sigma_max, sigma_min: Å, ends of the geometric ladder; 1.0 keeps molecules whole.
        edges: of the perturbed structure: "rebuilt", or "kept" (the authors' MD code).
        pooling: of the graph feature: "sum" or "mean".
        type_rate, gamma: share of hidden types (None: 0.10 periodic, 0.15), power of the loss.
        force_rate: share of hidden pseudo-forces (None: 0.05 periodic, 0.10).
        mf_mode: "paper", or "authors" as their code does it (`mlipkit.models.self_supervised.ForcesHead`), with the
            graph feature in place of the energy.
        decoder: "filter" (published) or "equivariant".
    """

    noise: float = 1.0
    types: float = 1.0
    pseudo_forces: float = 1.0
    levels: int | None = None
    sigma_max: float = 10.0
    sigma_min: float = 0.01
    edges: NoiseEdges = "rebuilt"
    pooling: Pooling = "sum"
    type_rate: float | None = None
    gamma: float = 1.0
    force_rate: float | None = None
    mf_mode: MaskedForces = "paper"
    decoder: Decoder = "filter"

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            check_number(weight, name)
        if self.levels is not None:
            check_number(self.levels, "levels", 2, whole=True)
        check_number(self.gamma, "gamma", 1)
        for name in ("type_rate", "force_rate"):
            if (rate := getattr(self, name)) is not None:
                check_number(rate, name, below=1)
        check_number(self.sigma_max, "sigma_max")
        check_number(self.sigma_min, "sigma_min")
        if not 0 < self.sigma_min <= self.sigma_max:
            raise SpecError(
                "no ladder of noise", where="sigma_min", expected="above 0, at most sigma_max",
                found=(self.sigma_min, self.sigma_max),
            )  # fmt: skip
        words = {"mf_mode": MaskedForces, "decoder": Decoder, "pooling": Pooling, "edges": NoiseEdges}
        for name, known in words.items():
            check_choice(getattr(self, name), get_args(known), name)
        if not any(self.weights.values()):
            raise SpecError("every self-supervised loss has weight 0", where="taip", hint="Weigh one, or leave it out")
        if self.mf_mode == "authors" and self.decoder != "filter":
            raise SpecError("has no effect with mf_mode='authors'", where="decoder", found=self.decoder)

    @property
    def weights(self) -> dict[str, float]:
        """Task -> weight of its loss."""
        return {name: getattr(self, name) for name in TASKS}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Heads(NamedTuple):
    """The heads of a potential; None where it was trained without this task."""

    noise: NoiseHead | None
    types: TypesHead | None
    forces: ForcesHead | None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that there are trained heads for."""
        return tuple(name for name, weight in self.weights.items() if weight)

    @property
    def weights(self) -> dict[str, float]:
        """Task -> weight of its loss in training; 0 where it was trained without this task."""
        return {name: 0.0 if head is None else head.weight for name, head in zip(TASKS, self, strict=True)}


def attach(potential: Potential, options: TaipOptions, *, periodic: bool, seed: int = 0) -> Potential:
    """Give a potential the heads that the options ask for, in place of any that it has; the rest stays as it is.

    Args:
        periodic: whether the frames are, which decides what the options leave open.
        seed: of the heads' weights.

    Raises:
        ModelError: no `Potential`.
    """
    if not isinstance(potential, Potential):
        raise ModelError(
            "takes no self-supervised heads", where="attach", expected="a Potential", found=type(potential).__name__,
            hint="Train one: universal potentials and sums have no encoder to adapt",
        )  # fmt: skip
    width = potential.encoder.width
    weights = options.weights
    for name in (NOISE, TYPES, FORCES):
        if name in potential.auxiliary:
            del potential.auxiliary[name]

    def chosen(value: Any, published: Mapping[bool, Any]) -> Any:
        return published[periodic] if value is None else value

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if weights["noise"] or (weights["pseudo_forces"] and options.mf_mode == "authors"):
            potential.auxiliary[NOISE] = NoiseHead(
                width, chosen(options.levels, LEVELS), options.sigma_max, options.sigma_min, options.pooling,
                options.edges, weights["noise"],
            )  # fmt: skip
        if weights["types"]:
            potential.auxiliary[TYPES] = TypesHead(
                width, chosen(options.type_rate, TYPE_RATE), options.gamma, weights["types"]
            )
        if weights["pseudo_forces"]:
            potential.auxiliary[FORCES] = ForcesHead(
                width, potential.cutoff, chosen(options.force_rate, FORCE_RATE), options.mf_mode,
                "graph_sum" if options.mf_mode == "authors" else "head", options.decoder,
                weight=weights["pseudo_forces"],
            )  # fmt: skip
    potential.auxiliary.to(device=potential.device, dtype=potential.dtype)
    return potential


def heads_of(potential: BasePotential, where: str = "adaptation") -> Heads:
    """The self-supervised heads of a potential.

    Raises:
        ModelError: it has none, or is no encoder with heads.
    """
    auxiliary = dict(potential.auxiliary.items()) if isinstance(potential, Potential) else {}
    found = [auxiliary.get(name) for name in (NOISE, TYPES, FORCES)]
    if not any(found):
        raise ModelError(
            "this potential was trained without self-supervised tasks", where=where,
            expected="auxiliary heads " + ", ".join((NOISE, TYPES, FORCES)), found=sorted(auxiliary) or "none",
            hint="Train one with the taip block of a training",
        )  # fmt: skip
    return Heads(*found)  # type: ignore[arg-type]
