"""Compiled loops on PyTorch's own OpenMP threads.

After each parallel operation PyTorch's threads spin for some milliseconds, waiting for the next: other threads find
no free core then, and two are no quicker than one. So the loops are given to the same threads, through the entry
of GNU's OpenMP that compilers use (`GOMP_parallel`), in the library that PyTorch itself has loaded.

What a thread runs is a few machine instructions made for each list of argument types: take my share of the rows, call
the kernel's machine code, as Numba made it (or read it from disk), with the arguments that lie in a table of words.
Where any of this is missing (other systems, other OpenMP), `run` says so and does nothing.
"""

from __future__ import annotations

import ctypes
import os
import sys
from array import array
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import torch

WHOLE: Final = 16
"""Rows of a share are a multiple of this: no two threads then write to one cache line."""
_HEAD: Final = 3
"""Words of the table before the arguments: address of the kernel, rows, whether it failed anywhere."""
_OWN: Final = 5
"""What Numba's machine code takes before the arguments: where to put result and error, the range, the zero."""
_SOFT: Final = 1  # omp_pause_soft


class _OpenMP(NamedTuple):
    """Of the library that PyTorch calls."""

    parallel: Any
    pause: Any
    number: int
    """Address of `omp_get_thread_num`."""
    count: int
    """Address of `omp_get_num_threads`."""


@cache
def _openmp() -> _OpenMP | None:
    """None where PyTorch does not run on GNU's OpenMP."""
    if sys.platform != "linux" or not torch.backends.openmp.is_available():
        return None
    try:
        # What is loaded before all others comes first, as it does for PyTorch.
        library = next(lib for lib in map(ctypes.CDLL, (None, torch._C.__file__)) if hasattr(lib, "GOMP_parallel"))
        parallel, pause = library.GOMP_parallel, library.omp_pause_resource_all
        number, count = (
            ctypes.cast(f, ctypes.c_void_p).value for f in (library.omp_get_thread_num, library.omp_get_num_threads)
        )
    except (OSError, AttributeError, StopIteration):
        return None
    parallel.restype, pause.restype, pause.argtypes = None, ctypes.c_int, [ctypes.c_int]
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    return _OpenMP(parallel, pause, number or 0, count or 0)


class _Forks:
    """Threads do not survive a fork, and the child would wait for them for ever: they are dismissed before it."""

    def __init__(self) -> None:
        self.home = os.getpid()
        """Process in which a team can be called."""
        self._dismissed = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._before, after_in_child=self._in_child)

    def _before(self) -> None:
        openmp = _openmp()
        self._dismissed = openmp is not None and os.getpid() == self.home and openmp.pause(_SOFT) == 0

    def _in_child(self) -> None:
        if self._dismissed:
            self.home = os.getpid()


_forks = _Forks()


class _Call(NamedTuple):
    entry: int
    """What each thread runs."""
    kernel: int


_parts: dict[str, tuple[int, Any]] = {}
_calls: dict[tuple[Any, ...], _Call | None] = {}


def run(kernel: Any, rows: int, threads: int, zero: Any, given: list[Any]) -> bool:
    """Call ``kernel(start, stop, zero, *given)`` over all rows, split over threads; False if nothing was done."""
    openmp = _openmp()
    # Asked each time: not every fork tells us.
    if openmp is None or os.getpid() != _forks.home:
        return False
    key = (kernel, type(zero), *[(a.dtype, a.flags.num) if type(a) is np.ndarray else type(a) for a in given])
    try:
        call = _calls[key]
    except KeyError:
        call = _calls[key] = _made(openmp, kernel, zero, given)
    if call is None:
        return False
    table = array("q", (call.kernel, rows, 0))
    for a in given:
        if type(a) is np.ndarray:
            table.extend((0, 0, a.size, a.itemsize, a.ctypes.data, *a.shape, *a.strides))  # as Numba lays it out
        else:
            table.append(a)
    openmp.parallel(call.entry, table.buffer_info()[0], threads, 0)
    if table[2]:
        kernel(0, rows, zero, *given)  # raises what it raised there
    return True


def _made(openmp: _OpenMP, kernel: Any, zero: Any, given: list[Any]) -> _Call | None:
    """None where the kernel cannot be called this way."""
    from llvmlite import ir
    from numba import typeof
    from numba.core.compiler_lock import global_compiler_lock

    types = tuple(typeof(a) for a in (0, 0, zero, *given))
    kernel.compile(types)
    compiled = kernel.overloads[types]
    context, described = compiled.target_context, compiled.fndesc
    address = compiled.library.get_pointer_to_function(described.llvm_func_name)
    signature = context.call_conv.get_function_type(described.restype, described.argtypes)
    words = sum(5 + 2 * a.ndim if type(a) is np.ndarray else 1 for a in given)
    places = signature.args[_OWN:]
    if not address or len(places) != words or not all(isinstance(k, (ir.IntType, ir.PointerType)) for k in places):
        return None
    with global_compiler_lock:
        if str(signature) not in _parts:
            _parts[str(signature)] = _part(context.codegen(), signature, openmp)
    entry, _ = _parts[str(signature)]
    return _Call(entry, address)


def _part(codegen: Any, signature: Any, openmp: _OpenMP) -> tuple[int, Any]:
    """Address of the function of the table that each thread runs, and the library that keeps it."""
    from llvmlite import ir

    i32, word, name = ir.IntType(32), ir.IntType(64), f"mlipkit_part_{len(_parts)}"
    library = codegen.create_library(name)
    module = library.create_ir_module(name)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [word.as_pointer()]), name)
    entry = function.append_basic_block()
    working, failed, done = (function.append_basic_block() for _ in range(3))
    build = ir.IRBuilder(entry)

    def place(k: int) -> Any:
        return build.gep(function.args[0], [ir.Constant(word, k)])

    def called(address: int) -> Any:
        kind = ir.FunctionType(i32, [])
        return build.sext(build.call(build.inttoptr(ir.Constant(word, address), kind.as_pointer()), []), word)

    number, count, rows = called(openmp.number), called(openmp.count), build.load(place(1))
    one, whole = ir.Constant(word, 1), ir.Constant(word, WHOLE)
    following = build.add(number, one)
    start, stop = (
        build.mul(build.sdiv(build.sdiv(build.mul(rows, part), count), whole), whole) for part in (number, following)
    )
    stop = build.select(build.icmp_signed("==", following, count), rows, stop)
    result, error = (build.bitcast(build.alloca(word), kind) for kind in signature.args[:2])
    build.cbranch(build.icmp_signed("<", start, stop), working, done)

    build.position_at_end(working)
    arguments = [result, error, start, stop, ir.Constant(signature.args[4], 0.0)]
    for k, kind in enumerate(signature.args[_OWN:], _HEAD):
        value = build.load(place(k))
        if isinstance(kind, ir.PointerType):
            value = build.inttoptr(value, kind)
        arguments.append(build.trunc(value, kind) if isinstance(kind, ir.IntType) and kind.width < 64 else value)
    kernel = build.inttoptr(build.load(place(0)), signature.as_pointer())
    status = build.call(kernel, arguments)
    build.cbranch(build.icmp_signed("==", status, ir.Constant(i32, 0)), done, failed)

    build.position_at_end(failed)
    build.store(one, place(2))
    build.branch(done)
    build.position_at_end(done)
    build.ret_void()
    library.add_ir_module(module)
    library.finalize()
    return library.get_pointer_to_function(name), library
