"""Sorting whole numbers, many at a time, in the order of which other columns are then put."""

import numpy as np

_BITS = 63  # of a whole number that is not negative


def sort_with_order(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (n,) from 0 in order, and the indices (n,), int64, that put them in order.

    Where a number and its index fit into 64 bits together, they are sorted as one: numpy sorts numbers two to three
    times as fast as the indices of numbers.
    """
    width = max(1, len(numbers) - 1).bit_length()
    if not len(numbers) or int(numbers.max()).bit_length() + width > _BITS:
        order = np.argsort(numbers)
        return numbers[order], order
    together = (numbers.astype(np.int64) << width) | np.arange(len(numbers))
    together.sort()
    return together >> width, together & ((1 << width) - 1)


def without_shared_bits(numbers: np.ndarray) -> np.ndarray:
    """Numbers (n,), uint64, in the same order, without the bits that all of them share: the digits of an id share half.

    A run of bits that differ is moved down as a whole; where there are none that all share, nothing is done.
    """
    if not len(numbers):
        return numbers
    differ = int(np.bitwise_or.reduce(numbers) & ~np.bitwise_and.reduce(numbers))
    result, place = np.zeros_like(numbers), 0
    while differ:
        start = (differ & -differ).bit_length() - 1
        run = differ >> start
        length = (~run & (run + 1)).bit_length() - 1
        result |= ((numbers >> np.uint64(start)) & np.uint64((1 << length) - 1)) << np.uint64(place)
        differ &= ~(((1 << length) - 1) << start)
        place += length
    return result


def run_starts(values: np.ndarray) -> np.ndarray:
    """Where each run of equal values starts."""
    if not len(values):
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
