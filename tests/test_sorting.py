"""Sorting: whole numbers of any size, with the indices that put them in order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs.sorting import sort_with_order, without_shared_bits


@given(st.lists(st.one_of(st.integers(0, 9), st.integers(0, 2**63 - 1))))
def test_numbers_are_sorted_with_the_indices_that_put_them_in_order(numbers: list[int]) -> None:
    values = np.array(numbers, np.int64)
    in_order, order = sort_with_order(values)
    assert in_order.tolist() == sorted(numbers)
    assert values[order].tolist() == sorted(numbers)
    assert sorted(order.tolist()) == list(range(len(numbers)))


@given(st.lists(st.integers(0, 2**64 - 1)), st.integers(0, 2**64 - 1))
def test_without_the_bits_that_all_share_numbers_keep_their_order(numbers: list[int], differ: int) -> None:
    values = np.array([number & differ for number in numbers], np.uint64)
    shorter = without_shared_bits(values)
    assert np.array_equal(np.argsort(shorter, kind="stable"), np.argsort(values, kind="stable"))
    assert len(set(shorter.tolist())) == len(set(values.tolist()))
    assert all(number.bit_length() <= differ.bit_count() for number in shorter.tolist())
