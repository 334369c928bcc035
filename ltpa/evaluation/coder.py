"""An arithmetic coder in whole numbers of any length (Witten, Neal, Cleary 1987, without their finite registers).

A message is a number in an interval whose share of [0, 1) is the probability of its symbols, so it takes no more than
one bit beyond -log2 p, rounded up. Encoder and decoder need the same counts for each symbol, in order.
"""

import numpy as np

PRECISION = 24  # bits of a symbol's counts; each level keeps a count of at least 1
TOTAL = 1 << PRECISION


def counts_of(probabilities: np.ndarray) -> np.ndarray:
    """Whole counts (..., K) int64 of sum `TOTAL` and at least 1, as near to probabilities (..., K) as may be."""
    counts = 1 + np.floor(probabilities * (TOTAL - probabilities.shape[-1])).astype(np.int64)
    rest = TOTAL - counts.sum(-1, keepdims=True)
    np.put_along_axis(
        counts,
        counts.argmax(-1)[..., None],
        np.take_along_axis(counts, counts.argmax(-1)[..., None], -1) + rest,
        -1,
    )
    return counts


class Encoder:
    """Takes symbols one by one; `message` gives the bits."""

    def __init__(self) -> None:
        self._low, self._range, self._scale = 0, 1, 0  # the interval in units of 2^-scale

    def put(self, counts: np.ndarray, symbol: int) -> None:
        """Encode a symbol of the levels with `counts` (K,)."""
        below = int(counts[:symbol].sum())
        self._low = (self._low << PRECISION) + self._range * below
        self._range *= int(counts[symbol])
        self._scale += PRECISION

    def message(self) -> tuple[int, int]:
        """A number and how many bits it has: the shortest binary fraction whose whole neighbourhood is inside."""
        length = self._scale - self._range.bit_length() + 2
        drop = self._scale - length
        if drop < 0:
            return self._low << -drop, length
        return -(-self._low >> drop), length


class Decoder:
    """Gives the symbols of a message back, one by one."""

    def __init__(self, message: int, length: int) -> None:
        self._message, self._length = message, length
        self._low, self._range, self._scale = 0, 1, 0

    def get(self, counts: np.ndarray) -> int:
        """The next symbol, of the levels with `counts` (K,)."""
        self._scale += PRECISION
        low = self._low << PRECISION
        shift = self._scale - self._length
        value = self._message << shift if shift >= 0 else self._message >> -shift
        ends = np.cumsum(counts)
        symbol = int(np.searchsorted(ends, (value - low) // self._range, side="right"))
        self._low = low + self._range * int(ends[symbol] - counts[symbol])
        self._range *= int(counts[symbol])
        return symbol
