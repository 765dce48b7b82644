"""Deflate for pictures: Huffman codes of single bytes and runs of zeros, nothing else searched for (RFC 1951).

After a filter of PNG's a photograph holds next to no repetitions: a match finder takes most of the time of a general
deflate and finds little. Integers alone, so the bytes are equal on every processor.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from render_engine.native import write_uint64

MAX_CODE_BITS = 12
"""Four codes fit the 57 bits that are free once whole bytes are written."""
_END_OF_BLOCK = 256
_LONGEST_RUN = 258
_LONGEST_RUN_SYMBOL = 285
_SYMBOLS = 286
_BLOCK_WORDS = 32768
"""Words of 8 bytes with Huffman codes of their own: 256 KiB. Of 64 KiB the files were .2 % larger and took a fifth more
time."""
_SAMPLED_WORDS = 8
"""One word in so many is counted for the codes of its block."""
_CODE_LENGTH_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15])


def _run_codes() -> npt.NDArray[np.int64]:
    """(259, 3) length of a run -> its symbol, extra bits, their number (RFC 1951, 3.2.5)."""
    codes = np.zeros((_LONGEST_RUN + 1, 3), np.int64)
    length, symbol = 3, 257
    while symbol < 285:
        extra = max(0, (symbol - 261) // 4)
        for offset in range(1 << extra):
            codes[length + offset] = symbol, offset, extra
        length += 1 << extra
        symbol += 1
    codes[_LONGEST_RUN] = 285, 0, 0
    return codes


_RUNS = _run_codes()

Bits = tuple[np.uint64, np.uint64, np.uint64]
"""Bytes written, bits that wait for their byte to be full (first bit lowest), their number."""


def deflate(words: npt.NDArray[np.uint64], byte_count: int) -> npt.NDArray[np.uint8]:
    """The first `byte_count` bytes of `words` (little-endian) as a raw deflate stream.

    `words` must reach to the end of the last byte's word. At most 12 bits a byte and 200 bytes a block of 64 KiB.
    """
    blocks = max(1, -(-byte_count // (8 * _BLOCK_WORDS)))
    out = np.empty(byte_count * MAX_CODE_BITS // 8 + 200 * blocks + 16, np.uint8)
    return out[: _deflate(words, byte_count, out)]


@njit(cache=True, nogil=True)
def _code_lengths(counts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> None:
    """Lengths of Huffman's codes for `counts` (all above 0), none above MAX_CODE_BITS."""
    n = len(counts)
    order = np.argsort(counts, kind="mergesort")
    weights = np.empty(2 * n, np.int64)
    parents = np.zeros(2 * n, np.int64)
    for i in range(n):
        weights[i] = counts[order[i]]
    leaf = 0
    tree = n
    for node in range(n, 2 * n - 1):
        total = np.int64(0)
        for _ in range(2):
            if leaf < n and (tree >= node or weights[leaf] <= weights[tree]):
                taken = leaf
                leaf += 1
            else:
                taken = tree
                tree += 1
            total += weights[taken]
            parents[taken] = node
        weights[node] = total
    depths = np.zeros(2 * n, np.int64)
    for node in range(2 * n - 3, -1, -1):
        depths[node] = depths[parents[node]] + 1
    # Codes that are too long become MAX_CODE_BITS long; the room they take is given back by the rarest shorter ones.
    room = np.int64(1) << MAX_CODE_BITS
    for i in range(n):
        depths[i] = min(depths[i], MAX_CODE_BITS)
        room -= np.int64(1) << (MAX_CODE_BITS - depths[i])
    while room < 0:
        for i in range(n):
            if depths[i] < MAX_CODE_BITS:
                room += np.int64(1) << (MAX_CODE_BITS - depths[i] - 1)
                depths[i] += 1
                if room >= 0:
                    break
    for i in range(n - 1, -1, -1):  # and what is left over shortens the most frequent
        while depths[i] > 1 and room >= np.int64(1) << (MAX_CODE_BITS - depths[i]):
            room -= np.int64(1) << (MAX_CODE_BITS - depths[i])
            depths[i] -= 1
    for i in range(n):
        lengths[order[i]] = depths[i]


@njit(cache=True, nogil=True)
def _codes(lengths: npt.NDArray[np.int64], codes: npt.NDArray[np.uint64]) -> None:
    """Canonical codes, first bit lowest, `code | length << 32` (RFC 1951, 3.2.2)."""
    code = np.int64(0)
    for bits in range(1, MAX_CODE_BITS + 1):
        code <<= 1
        for symbol in range(len(lengths)):
            if lengths[symbol] == bits:
                mirrored = np.int64(0)
                for bit in range(bits):
                    mirrored |= ((code >> bit) & 1) << (bits - 1 - bit)
                codes[symbol] = np.uint64(mirrored | bits << 32)
                code += 1


@njit(cache=True, nogil=True)
def _join_pairs(codes: npt.NDArray[np.uint64], pairs: npt.NDArray[np.uint32]) -> None:
    """The codes of two bytes one behind the other, `code | length << 24`, at `first | second << 8`."""
    for second in range(256):
        second_code = np.uint32(codes[second])
        second_length = np.uint32(codes[second] >> np.uint64(32))
        for first in range(256):
            length = np.uint32(codes[first] >> np.uint64(32))
            code = np.uint32(codes[first]) | second_code << length
            pairs[second * 256 + first] = code | (length + second_length) << np.uint32(24)


@njit(cache=True, nogil=True)
def _flushed(base: np.uint64, at: np.uint64, waiting: np.uint64, held: np.uint64) -> Bits:
    """Write the whole bytes of the `held` bits `waiting`; the new (at, waiting, held), held below 8."""
    write_uint64(base + at, waiting)
    return at + (held >> np.uint64(3)), waiting >> (held & np.uint64(56)), held & np.uint64(7)


@njit(cache=True, nogil=True)
def _write_header(
    lengths: npt.NDArray[np.int64], closes: bool, base: np.uint64, at: np.uint64, waiting: np.uint64, held: np.uint64
) -> Bits:
    """A block's start: dynamic codes, the code lengths as plain 4-bit numbers, one distance (1) of one bit."""
    waiting |= np.uint64((1 if closes else 0) | 2 << 1 | (_SYMBOLS - 257) << 3 | 15 << 13) << held
    at, waiting, held = _flushed(base, at, waiting, held + np.uint64(17))
    for symbol in _CODE_LENGTH_ORDER:
        waiting |= np.uint64(4 if symbol < 16 else 0) << held
        at, waiting, held = _flushed(base, at, waiting, held + np.uint64(3))
    for symbol in range(_SYMBOLS + 1):
        bits = lengths[symbol] if symbol < _SYMBOLS else 1
        waiting |= np.uint64((bits & 1) << 3 | (bits & 2) << 1 | (bits & 4) >> 1 | (bits & 8) >> 3) << held
        at, waiting, held = _flushed(base, at, waiting, held + np.uint64(4))
    return at, waiting, held


@njit(cache=True, nogil=True)
def _deflate(words: npt.NDArray[np.uint64], byte_count: int, out: npt.NDArray[np.uint8]) -> int:
    """See `deflate`. Returns the number of bytes written."""
    n_words = byte_count // 8
    counts = np.empty(_SYMBOLS, np.int64)
    lengths = np.empty(_SYMBOLS, np.int64)
    codes = np.empty(_SYMBOLS, np.uint64)
    pairs = np.empty(1 << 16, np.uint32)
    runs = np.empty(_LONGEST_RUN + 1, np.uint64)
    byte, code_bits, to_length = np.uint64(0xFF), np.uint64(0xFFFFFFFF), np.uint64(32)
    two_bytes, pair_bits = np.uint64(0xFFFF), np.uint64(0xFFFFFF)
    base = np.uint64(out.ctypes.data)
    at = np.uint64(0)
    waiting = np.uint64(0)
    held = np.uint64(0)
    first = 0
    while True:
        last = min(first + _BLOCK_WORDS, n_words)
        closes = last == n_words
        counts[:] = 1
        for w in range(first, last, _SAMPLED_WORDS):
            word = words[w]
            if word == 0:
                counts[_LONGEST_RUN_SYMBOL] += 1
                continue
            for _ in range(8):
                counts[word & byte] += 4
                word >>= np.uint64(8)
        _code_lengths(counts, lengths)
        _codes(lengths, codes)
        _join_pairs(codes, pairs)
        for run in range(3, _LONGEST_RUN + 1):  # the symbol, its extra bits, and the distance: one bit of 0
            code = codes[_RUNS[run, 0]]
            length = code >> to_length
            extra = np.uint64(_RUNS[run, 1]) << length
            runs[run] = (code & code_bits) | extra | (length + np.uint64(_RUNS[run, 2] + 1)) << to_length
        at, waiting, held = _write_header(lengths, closes, base, at, waiting, held)
        word_at, end = np.uint64(first), np.uint64(last)
        while word_at < end:
            word = words[word_at]
            word_at += np.uint64(1)
            if word != 0:
                for _ in range(2):
                    for _ in range(2):
                        pair = np.uint64(pairs[word & two_bytes])
                        word >>= np.uint64(16)
                        waiting |= (pair & pair_bits) << held
                        held += pair >> np.uint64(24)
                    at, waiting, held = _flushed(base, at, waiting, held)
                continue
            zeros = 7
            while word_at < end and words[word_at] == 0:
                zeros += 8
                word_at += np.uint64(1)
            code = codes[0]
            while True:
                waiting |= (code & code_bits) << held
                at, waiting, held = _flushed(base, at, waiting, held + (code >> to_length))
                if zeros == 0:
                    break
                # A rest of 1 or 2 could not be written as a run of its own.
                run = zeros if zeros <= _LONGEST_RUN else min(_LONGEST_RUN, zeros - 3)
                code = runs[run]
                zeros -= run
        if closes:
            for index in range(byte_count & 7):
                code = codes[(words[n_words] >> np.uint64(8 * index)) & byte]
                waiting |= (code & code_bits) << held
                at, waiting, held = _flushed(base, at, waiting, held + (code >> to_length))
        code = codes[_END_OF_BLOCK]
        waiting |= (code & code_bits) << held
        at, waiting, held = _flushed(base, at, waiting, held + (code >> to_length))
        first = last
        if closes:
            write_uint64(base + at, waiting)
            return int(at + (held + np.uint64(7)) // np.uint64(8))
