"""What the compiled loops over edges share: rows that never overlap, and SiLU with its slopes on vector units.

`read` and `write` tell the compiler that what a loop reads is never what it writes, and that outputs of different
`slot` are different arrays: it then needs no checks, and a loop may fill several rows at once. `exp` is a polynomial:
calls into the mathematical library would keep a loop from the vector units.

Machine code kept on disk knows only the file of its own loop: after a change here delete `__pycache__`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from mlipkit.ops.kernels import FAST, compiled

SLOTS = 9
"""Arrays that a loop may write."""


def _built(literal: bool = False) -> Any:
    """`intrinsic`, called without its first argument."""
    return intrinsic(prefer_literal=True) if literal else intrinsic


def _strict(function):
    """Without reordering: the two parts of a logarithm must not be joined."""
    options = {"nogil": True, "error_model": "numpy", "fastmath": False}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        return njit(**options)(function)


@_built()
def rows(context, address, like):
    """Pointer to the numbers that lie at an address."""
    kind = types.CPointer(like)

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(kind))

    return kind(address, like), generate


def _scopes(module):
    """Alias scopes: one for all that is read, one for each slot that is written."""
    domain = module.add_metadata([ir.MetaDataString(module, "mlipkit")])
    names = ["read", *(f"slot{k}" for k in range(SLOTS))]
    return [module.add_metadata([ir.MetaDataString(module, name), domain]) for name in names]


def _marked(module, instruction, own):
    scopes = _scopes(module)
    instruction.set_metadata("alias.scope", module.add_metadata([scopes[own]]))
    instruction.set_metadata("noalias", module.add_metadata([s for k, s in enumerate(scopes) if k != own]))
    return instruction


@_built()
def read(context, pointer, index):
    def generate(context, builder, signature, arguments):
        place = cgutils.gep_inbounds(builder, arguments[0], arguments[1])
        return _marked(builder.module, builder.load(place), 0)

    return pointer.dtype(pointer, types.int64), generate


@_built(literal=True)
def write(context, slot, pointer, index, value):
    """`pointer[index] = value`; read back only through `again` and `add` of the same slot."""
    number = slot.literal_value

    def generate(context, builder, signature, arguments):
        place = cgutils.gep_inbounds(builder, arguments[1], arguments[2])
        _marked(builder.module, builder.store(arguments[3], place), 1 + number)
        return context.get_dummy_value()

    return types.void(slot, pointer, types.int64, pointer.dtype), generate


@_built(literal=True)
def again(context, slot, pointer, index):
    number = slot.literal_value

    def generate(context, builder, signature, arguments):
        place = cgutils.gep_inbounds(builder, arguments[1], arguments[2])
        return _marked(builder.module, builder.load(place), 1 + number)

    return pointer.dtype(slot, pointer, types.int64), generate


@_built(literal=True)
def add(context, slot, pointer, index, value):
    """`pointer[index] += value`"""
    number = slot.literal_value

    def generate(context, builder, signature, arguments):
        place = cgutils.gep_inbounds(builder, arguments[1], arguments[2])
        before = _marked(builder.module, builder.load(place), 1 + number)
        total = builder.fadd(before, arguments[3], flags=FAST)
        _marked(builder.module, builder.store(total, place), 1 + number)
        return context.get_dummy_value()

    return types.void(slot, pointer, types.int64, pointer.dtype), generate


@_built()
def clear(context, pointer, begin, count):
    """`pointer[begin : begin + count] = 0`"""

    def generate(context, builder, signature, arguments):
        place = cgutils.gep_inbounds(builder, arguments[0], arguments[1])
        size = context.get_abi_sizeof(context.get_data_type(pointer.dtype))
        cgutils.memset(builder, place, builder.mul(arguments[2], arguments[2].type(size)), 0)
        return context.get_dummy_value()

    return types.void(pointer, types.int64, types.int64), generate


@_built()
def _power(context, shifted):
    """2^n from n + 1.5 2^m, where m is the length of the mantissa: n stands in the lowest bits."""
    width, mantissa, bias = (32, 23, 127) if shifted is types.float32 else (64, 52, 1023)

    def generate(context, builder, signature, arguments):
        bits = builder.bitcast(arguments[0], ir.IntType(width))
        bits = builder.shl(builder.add(bits, bits.type(bias)), bits.type(mantissa))
        return builder.bitcast(bits, context.get_value_type(shifted))

    return shifted(shifted), generate


@_built()
def of(context, like, value):
    """A constant in the type of `like`."""

    def generate(context, builder, signature, arguments):
        return context.cast(builder, arguments[1], signature.args[1], signature.return_type)

    return like(like, value), generate


@_strict
def _exp32(x):
    x = of(x, -80.0) if x < of(x, -80.0) else x
    x = of(x, 80.0) if x > of(x, 80.0) else x
    shifted = x * of(x, 1.4426950408889634) + of(x, 12582912.0)
    n = shifted - of(x, 12582912.0)
    r = x - n * of(x, 0.693359375) + n * of(x, 2.12194440e-4)
    p = of(x, 1 / 5040) * r + of(x, 1 / 720)
    p = p * r + of(x, 1 / 120)
    p = p * r + of(x, 1 / 24)
    p = p * r + of(x, 1 / 6)
    p = p * r + of(x, 0.5)
    p = p * r + of(x, 1.0)
    p = p * r + of(x, 1.0)
    return p * _power(shifted)


@_strict
def _exp64(x):
    x = of(x, -600.0) if x < of(x, -600.0) else x
    x = of(x, 600.0) if x > of(x, 600.0) else x
    shifted = x * of(x, 1.4426950408889634) + of(x, 6755399441055744.0)
    n = shifted - of(x, 6755399441055744.0)
    r = x - n * of(x, 0.6931471803691238) - n * of(x, 1.9082149292705877e-10)
    p = of(x, 1 / 6227020800) * r + of(x, 1 / 479001600)
    p = p * r + of(x, 1 / 39916800)
    p = p * r + of(x, 1 / 3628800)
    p = p * r + of(x, 1 / 362880)
    p = p * r + of(x, 1 / 40320)
    p = p * r + of(x, 1 / 5040)
    p = p * r + of(x, 1 / 720)
    p = p * r + of(x, 1 / 120)
    p = p * r + of(x, 1 / 24)
    p = p * r + of(x, 1 / 6)
    p = p * r + of(x, 0.5)
    p = p * r + of(x, 1.0)
    p = p * r + of(x, 1.0)
    return p * _power(shifted)


def _exp(x):
    raise NotImplementedError


@overload(_exp)
def _(x):
    return (lambda x: _exp32(x)) if x is types.float32 else (lambda x: _exp64(x))


@_strict
def sigmoid(x):
    """`1 / (1 + e^-x)`, to the last bit or two; NaN stays NaN."""
    return of(x, 1.0) / (of(x, 1.0) + _exp(-x))


@compiled
def bend(x, o):
    """Slope of `x o` where o is its sigmoid."""
    return o * (of(x, 1.0) + x * (of(x, 1.0) - o))


@compiled
def twist(x, o):
    """Second derivative of `x o`."""
    return o * (of(x, 1.0) - o) * (of(x, 2.0) + x * (of(x, 1.0) - o - o))
