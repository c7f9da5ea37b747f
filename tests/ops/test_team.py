"""Loops on PyTorch's threads: the same numbers for every number of them, and no thread waited for that is not there."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from mlipkit.ops import native, team

numba = pytest.importorskip("numba")
KERNELS: Any = native.kernels()
pytestmark = pytest.mark.skipif(KERNELS is None, reason="numba does not fit")
gnu = pytest.mark.skipif(team._openmp() is None, reason="PyTorch does not run on GNU's OpenMP")


@pytest.fixture(autouse=True)
def every_loop_is_split(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(native, "SPLIT_ABOVE", 0)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def apart(monkeypatch):
    """Loops that ran on threads of our own."""
    ran, own = [], native._run_apart
    monkeypatch.setattr(native, "_run_apart", lambda *arguments: (ran.append(arguments[0]), own(*arguments)))
    return ran


def edges(width: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """x [7,width], w [40,width], senders, receivers."""
    rng = torch.Generator().manual_seed(width)
    ends = torch.randint(0, 7, (2, 40), generator=rng)
    return [torch.randn(k, width, dtype=dtype, generator=rng) for k in (7, 40)] + list(ends)


def summed(x: torch.Tensor, w: torch.Tensor, sender: torch.Tensor, receiver: torch.Tensor) -> torch.Tensor:
    kernel, out = KERNELS.scalar_sum, torch.full_like(x, torch.nan)
    native.run(kernel, x.shape[1], 1, x, sender.numpy(), receiver.numpy(), True, x.shape[1], len(x), x, w, out)
    return out


def expected(x: torch.Tensor, w: torch.Tensor, sender: torch.Tensor, receiver: torch.Tensor) -> torch.Tensor:
    there = torch.zeros_like(x).index_add_(0, receiver, x[sender] * w)
    return there.index_add_(0, sender, x[receiver] * w)


@gnu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [3, 15, 16, 33, 48, 100])
def test_every_number_of_threads(width, dtype, apart):
    given, seen = edges(width, dtype), []
    for threads in (1, 2, 3, 2, 1, 3):
        torch.set_num_threads(threads)
        seen.append(summed(*given))
    assert torch.allclose(seen[0], expected(*given), atol=1e-4 if dtype is torch.float32 else 1e-12)
    assert all(torch.equal(seen[0], other) for other in seen)
    assert not apart


@numba.njit(nogil=True)
def marks(start, stop, like, where, thread):
    for row in range(start, stop):
        where[row] += thread * 1000 + start + 1


@gnu
@pytest.mark.parametrize("rows", [2, 31, 32, 64, 65, 100])
def test_each_row_once_and_whole_vectors(rows):
    torch.set_num_threads(2)
    where = np.zeros(rows, np.int64)
    native.run(marks, rows, 1, torch.zeros(1), where, 5)
    middle = rows // 2 // 16 * 16
    assert where.tolist() == [5001] * middle + [5001 + middle] * (rows - middle)


@numba.njit(nogil=True)
def refuses(start, stop, like, bad):
    for row in range(start, stop):
        if row == bad:
            raise ValueError("this row")


@gnu
def test_an_error_in_any_thread_is_raised(apart):
    torch.set_num_threads(2)
    for bad in (0, 70):
        with pytest.raises(ValueError, match="this row"):
            native.run(refuses, 80, 1, torch.zeros(1), bad)
    native.run(refuses, 80, 1, torch.zeros(1), 80)
    assert not apart


@numba.njit(nogil=True)
def scales(start, stop, like, factor, where):
    for row in range(start, stop):
        where[row] *= factor


def test_without_openmp_or_with_arguments_that_are_no_words(apart, monkeypatch):
    torch.set_num_threads(2)
    where = np.arange(40)
    native.run(scales, 40, 1, torch.zeros(1), 2.0, where)
    assert where.tolist() == list(range(0, 80, 2))
    assert apart == [scales]
    monkeypatch.setattr(team, "_openmp", lambda: None)
    given = edges(33)
    assert torch.allclose(summed(*given), expected(*given), atol=1e-4)
    assert apart == [scales, KERNELS.scalar_sum]


@gnu
def test_from_several_threads_at_once(apart):
    problems = [edges(width) for width in (32, 48, 64, 80)]
    alone = [summed(*given) for given in problems]

    def work(k: int) -> bool:
        torch.set_num_threads(2 + k % 2)
        return all(torch.equal(summed(*problems[k]), alone[k]) for _ in range(10))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
    assert not apart


def forked(work: Callable[[], list]) -> list:
    """What `work` gives in a forked child."""
    context = multiprocessing.get_context("fork")
    near, far = context.Pipe(duplex=False)
    child = context.Process(target=lambda: far.send(work()))
    child.start()
    try:
        assert near.poll(60), "the child hangs"
        return near.recv()
    finally:
        child.kill()
        child.join()


@gnu
@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_after_a_fork(apart):
    torch.set_num_threads(2)
    given, many = edges(64), torch.ones(1 << 18)
    alone = summed(*given).tolist()

    def work() -> list:
        return [summed(*given).tolist(), many.add(1).sum().item(), len(apart)]

    assert work() == forked(work) == forked(lambda: forked(work)) == work() == [alone, 1 << 19, 0]


@gnu
@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_after_a_fork_that_found_the_threads_there(apart, monkeypatch):
    torch.set_num_threads(2)
    given = edges(64)
    alone = summed(*given).tolist()
    monkeypatch.setattr(team._forks, "home", os.getpid() + 1)
    assert forked(lambda: [summed(*given).tolist(), len(apart)]) == [alone, 1]
