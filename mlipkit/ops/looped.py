"""An operation with a plain formula, and compiled loops for itself, its slopes and their slopes.

With outputs y(t) and partners g, h of outputs and slopes, the loops of an `Operation` give

    y(t),    s = Σ g ∂y/∂t,    ∂(Σ h s)/∂g and ∂(Σ h s)/∂t

which is what energies, forces and the gradient of a force loss take. Higher orders come from the plain formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function

from mlipkit.ops import native
from mlipkit.ops.message import forced

Tensors = tuple[Tensor | None, ...]


class Operation(Protocol):
    """Given tensors may be None where an operation says so; all are contiguous and of one type."""

    @property
    def formula(self) -> Callable[..., Tensors]:
        """(*given) -> the outputs, in plain PyTorch."""
        ...

    @property
    def forward(self) -> Callable[..., Tensors]:
        """(*given) -> the outputs, in loops."""
        ...

    def slopes(self, partners: Sequence[Any], *given: Any) -> Tensors:
        """One for each that is given."""
        ...

    def second(self, partners: Sequence[Any], given: Sequence[Any], tangents: Sequence[Any]) -> Tensors:
        """One for each partner, then one for each that is given. `tangents` are partners of slopes."""
        ...


def apply(operation: Operation, *given: Tensor | None) -> Any:
    """Loops where they can run (see `mlipkit.ops.native`), else the formula."""
    first = next(t for t in given if t is not None)
    if forced() not in (None, "fused") or not native.serves(first):
        outputs = operation.formula(*given)
        return outputs[0] if len(outputs) == 1 else outputs
    return _Forward.apply(*(None if t is None else t.to(first.dtype).contiguous() for t in given), operation)


class _Forward(Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        *given, ctx.operation = arguments
        ctx.save_for_backward(*given)
        outputs = ctx.operation.forward(*given)
        return outputs[0] if len(outputs) == 1 else outputs

    @staticmethod
    def backward(ctx: Any, *partners: Tensor) -> Any:
        given = (g.contiguous() for g in partners)
        return *_Slopes.apply(*given, *ctx.saved_tensors, ctx.operation, len(partners)), None


class _Slopes(Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        *tensors, ctx.operation, ctx.count = arguments
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        return ctx.operation.slopes(tensors[: ctx.count], *tensors[ctx.count :])

    @staticmethod
    def backward(ctx: Any, *tangents: Tensor | None) -> Any:
        partners, given = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        if torch.is_grad_enabled():
            return *_by_formula(ctx.operation, partners, given, tangents), None, None
        pairs = zip(tangents, given, strict=True)
        filled = [None if t is None else torch.zeros_like(t) if h is None else h.contiguous() for h, t in pairs]
        return *ctx.operation.second(partners, given, filled), None, None


def _by_formula(operation: Operation, partners: Tensors, given: Tensors, tangents: Tensors) -> list[Tensor | None]:
    """The second slopes, differentiable again."""
    # Views, so that slopes in one do not pass through another that was made from it.
    fresh = [t if t is None else t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in given]
    ahead = [g.view_as(g) if g.requires_grad else g.detach().requires_grad_() for g in partners if g is not None]
    there = [t for t in fresh if t is not None]
    slopes = torch.autograd.grad(
        [y for y in operation.formula(*fresh) if y is not None], there, ahead, create_graph=True, allow_unused=True
    )
    asked = [h for h, t in zip(tangents, given, strict=True) if t is not None]
    total = [(s * h).sum() for s, h in zip(slopes, asked, strict=True) if s is not None and h is not None]
    found = iter(torch.autograd.grad(torch.stack(total).sum(), [*ahead, *there], create_graph=True, allow_unused=True))
    return [None if t is None else next(found) for t in (*partners, *given)]
