"""C from compiled Python: call a function at an address, read what lies at one.

Every address comes from ctypes over FreeType's own structures (`atlas`). ctypes costs about a microsecond a call and
half of one a field, which is as long as FreeType takes to draw a small Latin letter.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def call_int(typing: Any, address: Any, first: Any, second: Any, third: Any) -> Any:
    """`int f(int64, int64, int64)` at `address`, integers and pointers alike.

    Arguments narrower than 64 bits are passed in the low half of a register, where x86-64 and AArch64 callees look for
    them; a function of two arguments ignores the third.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(64)] * 3)
        function = builder.inttoptr(arguments[0], kind.as_pointer())
        return builder.sext(builder.call(function, arguments[1:]), ir.IntType(64))

    return types.int64(*[types.int64] * 4), generate


@intrinsic
def read_int32(typing: Any, address: Any) -> Any:
    """The int32 at `address`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(builder.inttoptr(arguments[0], ir.IntType(32).as_pointer()))
        return builder.sext(value, ir.IntType(64))

    return types.int64(types.int64), generate


@intrinsic
def read_int64(typing: Any, address: Any) -> Any:
    """The int64 or pointer at `address`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))

    return types.int64(types.int64), generate


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Ask for the cache line of `address`, which may be any, and wait for nothing."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [builder.inttoptr(arguments[0], byte), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def write_uint64(typing: Any, address: Any, value: Any) -> Any:
    """Write the uint64 `value` to the eight bytes from `address` on, which need not be aligned."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), generate


LANES = ir.VectorType(ir.IntType(16), 4)
"""Four 16-bit numbers in one of 64 bits, the first lowest: the channels of a pixel and one to spare."""
_BYTES = ir.VectorType(ir.IntType(8), 4)


@intrinsic
def read_lanes(typing: Any, address: Any) -> Any:
    """The four bytes from `address` on, each in 16 bits of a uint64, the first lowest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = builder.load(builder.inttoptr(arguments[0], ir.IntType(32).as_pointer()), align=1)
        return builder.bitcast(builder.zext(builder.bitcast(word, _BYTES), LANES), ir.IntType(64))

    return types.uint64(types.uint64), generate


@intrinsic
def write_lanes(typing: Any, address: Any, lanes: Any) -> Any:
    """The way back: the low bytes of the four 16-bit numbers, to the four bytes from `address` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = builder.bitcast(builder.trunc(builder.bitcast(arguments[1], LANES), _BYTES), ir.IntType(32))
        builder.store(word, builder.inttoptr(arguments[0], ir.IntType(32).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), generate


@intrinsic
def _copy(typing: Any, target: Any, source: Any, count: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        target, source = (builder.inttoptr(argument, byte) for argument in arguments[:2])
        cgutils.raw_memcpy(builder, target, source, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@njit(cache=True, nogil=True)
def copy_bytes(target: npt.NDArray[np.uint8], offset: int, source: int, count: int) -> None:
    """`count` bytes from the address `source` into `target[offset:]`, which must hold them."""
    _copy(target.ctypes.data + offset, source, count)
