"""Weights of S structures as one tensor that acts like those of one: rows of a batch meet those of their structure.

An encoder does few things with a weight: linear maps, tables, norms, slices. For a batch in which every structure has
equally many rows, one after the other, each of them is one batched operation on weights [S,...]. Everything else in the
encoder sees plain tensors of the whole batch, and takes its compiled loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mlipkit.errors import ModelError


class OwnWeights(Tensor):
    """`weights.as_subclass(OwnWeights)`: [S,*shape] in the place of a parameter of this shape."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule = RULES.get(func)
        with torch._C.DisableTorchFunctionSubclass():
            if rule is not None:
                return rule(*args, **(kwargs or {}))
            if getattr(func, "__name__", "") == "__get__":  # shape, dtype, device
                return func(*args, **(kwargs or {}))
        raise ModelError(
            f"an encoder with weights for each structure may not call {getattr(func, '__name__', func)} on them",
            where="adaptation", hint="Predict the structures one after the other",
        )  # fmt: skip


def _plain(weight: Any) -> Tensor:
    return weight.as_subclass(Tensor)


def _own(weight: Tensor) -> OwnWeights:
    return weight.as_subclass(OwnWeights)


def _blocks(x: Tensor, n_systems: int) -> Tensor:
    """Rows [S k, ..., D] as [S, k ..., D]."""
    return x.reshape(n_systems, -1, x.shape[-1])


def _product(x: Tensor, weight: Any) -> Tensor:
    """`x @ W` with W [S,in,out]."""
    matrix = _plain(weight)
    return torch.bmm(_blocks(x, len(matrix)), matrix).view(*x.shape[:-1], matrix.shape[-1])


def _linear(x: Tensor, weight: Any, bias: Any = None) -> Tensor:
    matrix = _plain(weight).mT
    rows = _blocks(x, len(matrix))
    out = torch.bmm(rows, matrix) if bias is None else torch.baddbmm(_plain(bias).unsqueeze(1), rows, matrix)
    return out.view(*x.shape[:-1], matrix.shape[-1])


def _added(x: Tensor, rows: Tensor, weight: Any) -> Tensor:
    """`x += rows @ W`."""
    matrix = _plain(weight)
    x.view(len(matrix), -1, x.shape[-1]).baddbmm_(_blocks(rows, len(matrix)), matrix)
    return x


def _embedding(index: Tensor, weight: Any, *_: Any, **__: Any) -> Tensor:
    tables = _plain(weight)
    first = torch.arange(len(tables), device=index.device).unsqueeze(1) * tables.shape[1]
    return tables.flatten(0, 1).index_select(0, (index.view(len(tables), -1) + first).flatten())


def _layer_norm(x: Tensor, shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    scale, shift = _plain(weight).unsqueeze(1), _plain(bias).unsqueeze(1)
    normal = functional.layer_norm(x, shape, eps=eps)
    return torch.addcmul(shift, _blocks(normal, len(scale)), scale).view_as(x)


def _part(weight: Any, index: Any) -> OwnWeights:
    return _own(_plain(weight)[(slice(None), *(index if isinstance(index, tuple) else (index,)))])


def _turned(weight: Any) -> OwnWeights:
    return _own(_plain(weight).mT)


def _widened(weight: Any, dim: int) -> OwnWeights:
    return _own(_plain(weight).unsqueeze(dim + 1))


def _split(weight: Any, sizes: list[int], dim: int = 0) -> tuple[OwnWeights, ...]:
    return tuple(_own(part) for part in _plain(weight).split(sizes, dim + 1))


def _joined(weights: Sequence[Any], dim: int = 0) -> OwnWeights:
    return _own(torch.cat([_plain(weight) for weight in weights], dim + 1))


RULES: dict[Any, Callable[..., Any]] = {
    functional.linear: _linear, functional.embedding: _embedding, functional.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm, torch.matmul: _product, Tensor.matmul: _product, Tensor.__matmul__: _product,
    Tensor.__rmatmul__: lambda weight, x: _product(x, weight), Tensor.addmm_: _added,
    Tensor.__getitem__: _part, Tensor.t: _turned,
    Tensor.unsqueeze: _widened, Tensor.split: _split, torch.cat: _joined,
}  # fmt: skip
