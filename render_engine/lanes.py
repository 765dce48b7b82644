"""Several pixels at a time in compiled Python: vectors that a compiler does not find by itself in rows this short.

Pixels are three bytes side by side, red first. LLVM's vectors are those of any processor; it splits or joins them.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

MIXED = 8
"""Pixels that `mix_pixels` reads and writes."""
SUMMED = 16
"""Pixels that `sum_pixels` needs at least."""
MOST_SUMMED = 256 * SUMMED
"""Pixels that it takes at most: a lane counts to 65,535."""
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))


def _constant(kind: Any, values: Sequence[int]) -> Any:
    return ir.Constant(ir.VectorType(kind, len(values)), list(values))


def _lanes(builder: Any, vector: Any, order: Sequence[int]) -> Any:
    """The lanes of `vector` in another order, some of them often."""
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), _constant(_I32, order))


def _vector(builder: Any, values: Sequence[Any]) -> Any:
    vector = ir.Constant(ir.VectorType(values[0].type, len(values)), ir.Undefined)
    for lane, value in enumerate(values):
        vector = builder.insert_element(vector, value, _I32(lane))
    return vector


def _pixels(builder: Any, address: Any, count: int) -> Any:
    """Where `count` pixels stand."""
    return builder.inttoptr(address, ir.VectorType(_I8, 3 * count).as_pointer())


@intrinsic
def mix_pixels(
    typing: Any, target: Any, coverages: Any, count: Any, opacity: Any, red: Any, green: Any, blue: Any
) -> Any:
    """`compose.mix` of an ink over the pixels from the address `target` on: `MIXED` of them, or `count` if fewer.

    coverages: address of that of the first. All `MIXED` are read and written, so they must be there.
    Two thirds of the time that one pixel after the other took.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, source, count, opacity, *ink = arguments
        channels = range(3 * MIXED)
        coverage = builder.load(builder.inttoptr(source, ir.VectorType(_I8, MIXED).as_pointer()), align=1)
        last = _lanes(builder, _vector(builder, [builder.trunc(count, _I32)]), [0] * MIXED)
        inside = builder.icmp_signed("<", _constant(_I32, range(MIXED)), last)
        coverage = builder.select(inside, coverage, _constant(_I8, [0] * MIXED))
        # As `compose.ink_share`.
        factor = _lanes(builder, _vector(builder, [builder.mul(opacity, _I32(33026))]), [0] * MIXED)
        share = builder.mul(builder.zext(coverage, factor.type), factor)
        share = builder.lshr(share, _constant(_I32, [15] * MIXED))
        share = _lanes(builder, share, [channel // 3 for channel in channels])
        inks = _lanes(builder, _vector(builder, ink), [channel % 3 for channel in channels])
        place = _pixels(builder, target, MIXED)
        below = builder.zext(builder.load(place, align=1), inks.type)
        change = builder.mul(builder.sub(inks, below), share)
        change = builder.add(change, _constant(_I32, [32768 for _ in channels]))
        mixed = builder.add(below, builder.ashr(change, _constant(_I32, [16 for _ in channels])))
        builder.store(builder.trunc(mixed, place.type.pointee), place, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.uint32, *[types.int32] * 3), generate


@intrinsic
def sum_pixels(typing: Any, address: Any, count: Any) -> Any:
    """The sums of red, green, blue, luma and squared luma of `SUMMED` to `MOST_SUMMED` pixels from `address` on.

    Luma is (77 red + 150 green + 29 blue) >> 8 (BT.601).
    """
    sums = types.UniTuple(types.uint32, 5)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, count = arguments

        def same(kind: Any, value: int) -> Any:
            return _constant(kind, [value] * SUMMED)

        totals = [cgutils.alloca_once_value(builder, same(_I16, 0)) for _ in range(4)]
        squares = cgutils.alloca_once_value(builder, same(_I32, 0))

        def add(address: Any, inside: Any) -> None:
            pixels = builder.load(_pixels(builder, address, SUMMED), align=1)
            colours = [_lanes(builder, pixels, range(channel, 3 * SUMMED, 3)) for channel in range(3)]
            if inside is not None:
                colours = [builder.select(inside, colour, same(_I8, 0)) for colour in colours]
            wide = [builder.zext(colour, same(_I16, 0).type) for colour in colours]
            weighted = [builder.mul(colour, same(_I16, k)) for colour, k in zip(wide, (77, 150, 29), strict=True)]
            luma = builder.lshr(builder.add(builder.add(*weighted[:2]), weighted[2]), same(_I16, 8))
            for total, values in zip(totals, (*wide, luma), strict=True):
                builder.store(builder.add(builder.load(total), values), total)
            squared = builder.zext(builder.mul(luma, luma), same(_I32, 0).type)
            builder.store(builder.add(builder.load(squares), squared), squares)

        with cgutils.for_range(builder, builder.udiv(count, _I64(SUMMED))) as loop:
            add(builder.add(address, builder.mul(loop.index, _I64(3 * SUMMED))), None)
        # What is left stands in the last lanes of the last pixels.
        left = builder.trunc(builder.urem(count, _I64(SUMMED)), _I32)
        first = _lanes(builder, _vector(builder, [builder.sub(_I32(SUMMED), left)]), [0] * SUMMED)
        end = builder.sub(count, _I64(SUMMED))
        add(
            builder.add(address, builder.mul(end, _I64(3))),
            builder.icmp_signed(">=", _constant(_I32, range(SUMMED)), first),
        )
        kind = ir.FunctionType(_I32, [same(_I32, 0).type])
        reduce = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.add.v{SUMMED}i32")
        wide = [builder.zext(builder.load(total), same(_I32, 0).type) for total in totals]
        found = [builder.call(reduce, [values]) for values in (*wide, builder.load(squares))]
        return context.make_tuple(builder, signature.return_type, found)

    return sums(types.int64, types.int64), generate
