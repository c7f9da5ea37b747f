"""Which weights move: all, the energy head alone, all but frozen blocks, or low-rank additions."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from torch import nn

from mlipkit.errors import ModelError, SpecError, nearest

if TYPE_CHECKING:
    from mlipkit.models import BasePotential
    from mlipkit.strategies.finetuning.recipe import FinetuneRecipe


def choose_weights(potential: BasePotential, recipe: FinetuneRecipe, seed: int = 0) -> None:
    """Set in place which weights of a potential take part in training.

    Weights that its package keeps fixed (the composition model of CHGNet) stay fixed.

    Raises:
        SpecError: a pattern that fits no block, or nothing left to train; names the blocks there are.
        ModelError: the potential has no weights, no energy head of its own, or no low-rank additions.
    """
    from mlipkit.models import blocks, trainable_blocks

    free = {name for name, p in potential.named_parameters() if p.requires_grad}
    if not free:
        raise ModelError("nothing to train", where=type(potential).__name__, hint="It has no trainable weights")
    if recipe.train == "lora":
        _add_lora(potential, recipe.lora_rank, seed)
    elif recipe.train == "last_layer":
        wanted = energy_head(potential)
        _leave(potential, wanted & free)
    elif recipe.frozen:
        known = blocks(potential)
        for pattern in recipe.frozen:
            fits = [name for name in known if fnmatchcase(name, pattern)]
            if not fits:
                raise SpecError("fits no block", where=("frozen", pattern), hint=nearest(pattern, known))
            free -= {parameter for name in fits for parameter in known[name]}
        _leave(potential, free)
    if not any(p.requires_grad for p in potential.parameters()):
        named = ", ".join(trainable_blocks(potential))
        raise SpecError("every block is frozen", where="frozen", found=recipe.frozen, hint=f"There are: {named}")


def energy_head(potential: BasePotential) -> set[str]:
    """Names of the parameters that make energies of features.

    Raises:
        ModelError: the potential does not tell.
    """
    from mlipkit.models import BasePotential, Potential, UniversalPotential

    found: set[str] = set()
    for path, part in potential.named_modules():
        front = f"{path}." if path else ""
        if isinstance(part, Potential):
            found |= {f"{front}head.{name}" for name, _ in part.head.named_parameters()}
        elif isinstance(part, UniversalPotential):
            names = (name for name, _ in part.named_parameters())
            found |= {front + n for n in names if n.removeprefix("model.").startswith(part.ENERGY_HEAD or "\0")}
    if not found:
        kind = type(potential).__name__
        raise ModelError("no energy head that could be trained alone", where=kind, hint="train='all'")
    assert isinstance(potential, BasePotential)
    return found


def _leave(potential: nn.Module, free: set[str]) -> None:
    for name, parameter in potential.named_parameters():
        parameter.requires_grad_(name in free)


def _add_lora(potential: BasePotential, rank: int, seed: int) -> None:
    added = [part for part in _universal(potential) if part.add_lora(rank, seed)]
    if not added:
        raise ModelError(
            "offers no low-rank additions", where=type(potential).__name__, hint="universal:so3lr does; or train='all'"
        )
    _leave(potential, {name for name, _ in potential.named_parameters() if "lora_" in name})


def _universal(potential: nn.Module) -> Iterator:
    from mlipkit.models import UniversalPotential

    return (part for part in potential.modules() if isinstance(part, UniversalPotential))
