"""Gradients in the weights for each structure of a batch, from one backward pass of all of it.

The gradient of a map `y = x W` is `Σ_r x_r ⊗ ∂L/∂y_r`; the rows of one structure give what it alone contributes. Inside
the encoder every map therefore keeps its input and the slope of its output, and where forces are differentiated
(`x̄ = ȳ Wᵀ` is a map of its own) those of this one. Weights may be shared, so that products are those of the whole
batch, or each structure's own. `mlipkit.strategies.taip.own_steps` makes gradients and steps of what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from mlipkit.errors import ModelError
from mlipkit.ops import native
from mlipkit.strategies.taip.own_weights import RULES, OwnWeights

OUTER, SUM, TABLE = 0, 1, 2
"""Gradients: left ⊗ right, the sum of right alone, and rows of a table."""


class Kept(NamedTuple):
    """Of one map: what its gradient is made of.

    Attributes:
        kind: OUTER, SUM, TABLE.
        left: [R,I]; of a table its rows int64 [R]; None of a sum. right: [R,J].
        place: int64 [I,J], where in a structure's weights the gradient belongs.
        versions: rows come as [versions, S, ...].
    """

    kind: int
    left: Tensor | None
    right: Tensor
    place: Tensor
    versions: int


@dataclass
class Tape:
    """What one backward pass keeps, of S structures.

    Attributes:
        anchor: all maps hang on it; `torch.autograd.grad(loss, tape.anchor)` is the pass that keeps.
        versions: of what is encoded now; 1 where rows come by structure.
    """

    n_systems: int
    anchor: Tensor
    versions: int = 1
    kept: list[Kept] = field(default_factory=list)

    def collect(self, loss: Tensor) -> list[Kept]:
        """Everything that the gradient of the loss is made of."""
        self.kept = []
        torch.autograd.grad(loss, self.anchor, allow_unused=True)
        found, self.kept = self.kept, []
        return found


class Taped(Tensor):
    """A weight, or part of one, shared or with a first dimension of structures, whose rows a tape keeps."""

    tape: Tape
    place: Tensor
    own: bool

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if func in _MAPS:
                return _MAPS[func](*args, **(kwargs or {}))
            if func in _VIEWS:
                return _viewed(func, *args, **(kwargs or {}))
            if getattr(func, "__name__", "") in ("__get__", "__set__"):
                return func(*args, **(kwargs or {}))
        raise ModelError(
            f"an encoder that adapts may not call {getattr(func, '__name__', func)} on its weights",
            where="adaptation", hint="Predict the structures one after the other",
        )  # fmt: skip


def taped(weight: Tensor, place: Tensor, own: bool, tape: Tape) -> Taped:
    """A weight [I,J], or [S,I,J] where `own`, in the place of a parameter."""
    found = weight.detach().as_subclass(Taped)
    found.tape, found.place, found.own = tape, place, own
    return found


_VIEWS = {Tensor.__getitem__, Tensor.t, Tensor.unsqueeze, Tensor.split, torch.cat}


def _viewed(func: Any, weight: Any, *how: Any, **more: Any) -> Any:
    parts = list(weight) if isinstance(weight, (list, tuple)) else None
    first: Any = weight if parts is None else parts[0]
    places = func(first.place if parts is None else [part.place for part in parts], *how, **more)
    if first.own:
        # The same with every structure's: see there.
        data = [part.as_subclass(Tensor).as_subclass(OwnWeights) for part in parts or [weight]]
        found = RULES[func](data[0] if parts is None else data, *how, **more)
    else:
        data = [part.as_subclass(Tensor) for part in parts or [weight]]
        found = func(data[0] if parts is None else data, *how, **more)

    def one(data: Tensor, place: Tensor) -> Taped:
        return taped(data.as_subclass(Tensor), place, first.own, first.tape)

    return tuple(map(one, found, places)) if isinstance(found, tuple) else one(found, places)


class _Use(NamedTuple):
    """One use of a map.

    Attributes:
        matrix: [I,J] or [S,I,J] of `y = x W`; a row [J] or [S,J] for scales. bias: [J], [S,J], None.
        place, bias_place: of the weight as it lies, turned if it is [J,I].
    """

    matrix: Tensor
    bias: Tensor | None
    place: Tensor
    bias_place: Tensor | None
    turned: bool
    tape: Tape
    versions: int

    def keep(self, x: Tensor, slope: Tensor) -> None:
        left, right = (slope, x) if self.turned else (x, slope)
        self.tape.kept.append(Kept(OUTER, _rows(left), _rows(right), self.place, self.versions))

    def keep_bias(self, slope: Tensor) -> None:
        if self.bias_place is not None:
            self.tape.kept.append(Kept(SUM, None, _rows(slope), self.bias_place.unsqueeze(0), self.versions))

    def there(self, x: Tensor, bias: bool = True) -> Tensor:
        return _times(x, self.matrix, self.bias if bias else None)

    def back(self, slope: Tensor) -> Tensor:
        return _times(slope, self.matrix.mT, None)


class _Scales(_Use):
    """`y = x ∘ w + b`."""

    def keep(self, x: Tensor, slope: Tensor) -> None:
        self.tape.kept.append(Kept(SUM, None, _rows(x * slope), self.place.unsqueeze(0), self.versions))

    def there(self, x: Tensor, bias: bool = True) -> Tensor:
        rows = x.reshape(len(self.matrix), -1, x.shape[-1]) if self.matrix.ndim == 2 else x
        scale, shift = (one if one is None or one.ndim == 1 else one.unsqueeze(1) for one in (self.matrix, self.bias))
        assert scale is not None
        return (rows * scale if shift is None or not bias else torch.addcmul(shift, rows, scale)).view_as(x)

    def back(self, slope: Tensor) -> Tensor:
        return self.there(slope, bias=False)


def _rows(x: Tensor) -> Tensor:
    return x.detach().reshape(-1, x.shape[-1]).contiguous()


def _times(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    if matrix.ndim == 2:
        rows = x.reshape(-1, x.shape[-1])
        found = rows @ matrix if bias is None else torch.addmm(bias, rows, matrix)
    else:
        rows = x.reshape(len(matrix), -1, x.shape[-1])
        found = torch.bmm(rows, matrix) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, matrix)
    return found.view(*x.shape[:-1], matrix.shape[-1])


class _Map(Function):
    """`y = x W + b`, differentiable twice; a pass that makes no graph is the one that keeps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, use: _Use) -> Tensor:
        ctx.save_for_backward(x, anchor)
        ctx.use = use
        return use.there(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        (x, anchor), use = ctx.saved_tensors, ctx.use
        asked = native.wanted(ctx, x, anchor)[0]
        if torch.is_grad_enabled():
            return _Slope.apply(slope, anchor, use) if asked else None, None, None
        use.keep(x, slope)
        use.keep_bias(slope)
        return use.back(slope) if asked else None, None, None


class _Slope(Function):
    """`x̄ = ȳ Wᵀ`."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, anchor: Tensor, use: _Use) -> Tensor:
        ctx.save_for_backward(slope, anchor)
        ctx.use = use
        return use.back(slope)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, partner: Tensor) -> Any:
        (slope, anchor), use = ctx.saved_tensors, ctx.use
        use.keep(partner, slope)
        return use.there(partner, bias=False) if native.wanted(ctx, slope, anchor)[0] else None, None, None


class _Table(Function):
    """Rows of a table."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, index: Tensor, table: Tensor, place: Tensor, tape: Tape) -> Tensor:
        ctx.given, ctx.versions = (index, place, tape), tape.versions
        if table.ndim == 2:
            return table.index_select(0, index)
        first = torch.arange(len(table), device=index.device).unsqueeze(1) * table.shape[1]
        return table.flatten(0, 1).index_select(0, (index.view(len(table), -1) + first).flatten())

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        index, place, tape = ctx.given
        if not torch.is_grad_enabled():
            tape.kept.append(Kept(TABLE, index.contiguous(), _rows(slope), place, ctx.versions))
        return None, None, None, None, None


def _use(weight: Any, bias: Any, turned: bool, kind: type[_Use] = _Use) -> _Use:
    matrix = weight.as_subclass(Tensor)
    return kind(
        matrix.mT if turned else matrix, None if bias is None else bias.as_subclass(Tensor), weight.place,
        None if bias is None else bias.place, turned, weight.tape, weight.tape.versions,
    )  # fmt: skip


def _linear(x: Tensor, weight: Any, bias: Any = None) -> Tensor:
    return _Map.apply(x, weight.tape.anchor, _use(weight, bias, True))


def _product(x: Tensor, weight: Any) -> Tensor:
    return _Map.apply(x, weight.tape.anchor, _use(weight, None, False))


def _embedding(index: Tensor, weight: Any, *_: Any, **__: Any) -> Tensor:
    return _Table.apply(weight.tape.anchor, index, weight.as_subclass(Tensor), weight.place, weight.tape)


def _layer_norm(x: Tensor, shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    return _Map.apply(functional.layer_norm(x, shape, eps=eps), weight.tape.anchor, _use(weight, bias, False, _Scales))


_MAPS: dict[Any, Callable[..., Any]] = {
    functional.linear: _linear, functional.embedding: _embedding, functional.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm, torch.matmul: _product, Tensor.matmul: _product, Tensor.__matmul__: _product,
    Tensor.__rmatmul__: lambda weight, x: _product(x, weight),
}  # fmt: skip
