"""Numba for the fused versions: compiled on first use, kept on disk, run over ranges of rows by torch's threads.

Numba is optional (`pip install "mlipkit[fast]"`); `kernels()` is None without it. A kernel is a plain loop that takes
its range of rows (atoms, edges or features) first and writes only those, so that the result never depends on the number
of threads.
Tensors reach it as addresses: making NumPy arrays of them would take longer than a small kernel runs.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from mlipkit.ops import team

SPLIT_ABOVE: Final = 1 << 19
"""Numbers read, from which a kernel is worth more than one thread: some 30 µs of one; to call a second takes 8."""
_TENSORS = {Tensor, torch.nn.Parameter}
_LIKE = {torch.float32: np.float32(0), torch.float64: np.float64(0)}
_positions_only: ContextVar[bool] = ContextVar("positions_only", default=False)
_counter: ContextVar[Callable[[Tensor], object] | None] = ContextVar("counter", default=None)
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


@cache
def kernels(name: str = "kernels") -> ModuleType | None:
    """Module of `mlipkit.ops` with kernels, or None where Numba is missing or does not fit the installed NumPy."""
    if importlib.util.find_spec("numba") is None:
        return None
    try:
        return importlib.import_module(f"mlipkit.ops.{name}")
    except (ImportError, OSError):  # too old for this NumPy; a library of it missing
        return None


@contextmanager
def positions_only(yes: bool = True) -> Iterator[None]:
    """Inside, nobody will ask for slopes in weights, nor for slopes of slopes."""
    token = _positions_only.set(yes)
    try:
        yield
    finally:
        _positions_only.reset(token)


def only_positions() -> bool:
    """Whether `positions_only` is in force."""
    return _positions_only.get()


@contextmanager
def counted(count: Callable[[Tensor], object]) -> Iterator[None]:
    """Inside, `count` is told of tensors kept for a backward pass that autograd's own hooks never see."""
    token = _counter.set(count)
    try:
        yield
    finally:
        _counter.reset(token)


def counter() -> Callable[[Tensor], object] | None:
    """Whom `counted` tells, if anybody."""
    return _counter.get()


def serves(x: Tensor) -> bool:
    """Whether compiled kernels can take this tensor."""
    return x.device.type == "cpu" and pairs_pay(x.dtype)


def pairs_pay(dtype: torch.dtype) -> bool:
    """Whether mirrored edges are worth making on the CPU: there are compiled kernels, and they may be used."""
    return (
        dtype in _LIKE
        and kernels() is not None
        and not torch._C._are_functorch_transforms_active()
        and not torch.is_autocast_enabled("cpu")
    )


def run(kernel: Any, rows: int, work: int, like: Tensor, *arguments: Any) -> None:
    """Call ``kernel(start, stop, like, *arguments)`` over all rows, split over torch's threads where `work` pays.

    Tensors among the arguments are passed as addresses, None as address 0.
    """
    given = [a.data_ptr() if type(a) in _TENSORS else 0 if a is None else a for a in arguments]
    zero = _LIKE[like.dtype]
    threads = torch.get_num_threads()
    if threads == 1 or work < SPLIT_ABOVE or rows < threads:
        kernel(0, rows, zero, *given)
        return
    if not team.run(kernel, rows, threads, zero, given):
        _run_apart(kernel, rows, threads, zero, given)


def _run_apart(kernel: Any, rows: int, threads: int, zero: Any, given: list[Any]) -> None:
    """On threads of our own."""
    bounds = [*(rows * part // threads // team.WHOLE * team.WHOLE for part in range(threads)), rows]
    # A pool does not survive a fork.
    key = (os.getpid(), threads - 1)
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(threads - 1, thread_name_prefix="mlipkit-ops")
    others = [_pools[key].submit(kernel, start, stop, zero, *given) for start, stop in pairwise(bounds[1:])]
    kernel(bounds[0], bounds[1], zero, *given)
    for other in others:
        other.result()


def wanted(ctx: Any, *arguments: Tensor | None) -> tuple[bool, ...]:
    """Which of the leading arguments of a function need their gradient in the backward pass under way.

    `needs_input_grad` only says which could ever have one: the weights in the pass that makes forces could, and the
    positions in the pass that makes the gradient of the weights.

    Args:
        ctx: of the function.
        arguments: all tensors that it was applied to, None where it was given None, in order.
    """
    nodes = iter(ctx.next_functions)  # of the tensors alone
    flags = []
    for argument, possible in zip(arguments, ctx.needs_input_grad, strict=False):
        node = None if argument is None else next(nodes)[0]
        flags.append(bool(possible) and (node is None or _runs(node)))
    return tuple(flags)


def _runs(node: Any) -> bool:
    try:
        return torch._C._will_engine_execute_node(node)
    except (AttributeError, RuntimeError):  # a leaf that `torch.autograd.grad` was asked for; another torch
        return True
