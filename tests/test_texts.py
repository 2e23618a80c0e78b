"""Texts: ranked by their UTF-8 bytes, spread over buckets in a way that never changes, and written as JSON."""

import json

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs.texts import bucket_of, json_items, rank


def test_users_spread_evenly_over_buckets_however_alike_their_ids_are() -> None:
    for ids in ([f"user-{n:010d}" for n in range(40_000)], [f"{n}@example.com" for n in range(40_000)]):
        users = np.bincount(bucket_of(pa.array(ids), 16), minlength=16)
        assert users.min() > 2300
        assert users.max() < 2700


def test_a_user_has_the_same_bucket_on_every_machine() -> None:
    assert bucket_of(pa.array(["a", "user-0000000001", "ünï", "x" * 50]), 1000).tolist() == [93, 905, 683, 549]


texts = st.lists(
    st.one_of(st.text(max_size=4), st.text(st.sampled_from("ab\0"), max_size=40), st.sampled_from(["x" * 70]))
)


@given(texts, st.text(st.sampled_from("ab"), max_size=9))
def test_texts_are_ranked_by_their_bytes(listed: list[str], prefix: str) -> None:
    listed = [prefix + text for text in listed]
    ranks, distinct = rank(pa.array(listed, pa.string()))
    assert distinct.to_pylist() == sorted(set(listed), key=str.encode)
    assert distinct.take(pa.array(ranks)).to_pylist() == listed


@given(texts, st.integers(0, 3))
def test_texts_are_written_as_json_is(listed: list[str], first: int) -> None:
    some = pa.array(listed, pa.string()).slice(first)
    assert json_items(some).decode() == json.dumps(listed[first:], ensure_ascii=False)[1:-1]
