"""Grouping: one row a user, in order, counts conserved, gender by the contract's rule."""

from collections import Counter, defaultdict

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs.config import ACTIONS
from spark_jobs.raw.rules import ACTION
from spark_jobs.texts import bucket_of
from spark_jobs.users.grouping import nest_users, split_by_user

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3)
rows = st.lists(
    st.tuples(ids, ids, st.sampled_from(["0", "1", "2", "x"]), st.sampled_from(ACTIONS), st.integers(1, 2**53))
)


def batch(actions: list[tuple[str, str, str, str, int]]) -> pa.RecordBatch:
    texts = [pa.array([a[column] for a in actions], pa.string()) for column in range(3)]
    texts[1:] = [text.dictionary_encode() for text in texts[1:]]
    numbers = [
        pa.array([ACTIONS.index(a[3]) for a in actions], pa.int8()),
        pa.array([a[4] for a in actions], pa.int64()),
    ]
    return pa.RecordBatch.from_arrays([*texts, *numbers], schema=ACTION)


def table(actions: list[tuple[str, str, str, str, int]]) -> pa.Table:
    """Batches of seven rows, each with dictionaries of its own."""
    return pa.Table.from_batches([batch(actions[n : n + 7]) for n in range(0, len(actions), 7)], ACTION)


@given(rows)
def test_counts_are_conserved_and_users_and_pages_are_in_order(actions: list[tuple[str, str, str, str, int]]) -> None:
    users = nest_users(table(actions)).to_pylist()
    found = {
        (user["user_id"], page["page_id"], action): page[action]
        for user in users
        for page in user["pages"]
        for action in ACTIONS
        if page[action]
    }
    expected: Counter[tuple[str, str, str]] = Counter()
    for user, page, _, action, count in actions:
        expected[user, page, action] += count
    assert found == expected
    assert [u["user_id"].encode() for u in users] == sorted({a[0].encode() for a in actions})
    for user in users:
        pages = [page["page_id"].encode() for page in user["pages"]]
        assert pages == sorted(set(pages))


@given(rows)
def test_gender_is_the_most_frequent_known_one_ties_to_the_smallest(
    actions: list[tuple[str, str, str, str, int]],
) -> None:
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for user, _, gender, _, count in actions:
        seen[user].update({gender: count} if gender != "0" else {})
    expected = {user: min(genders, key=lambda g: (-genders[g], g), default="0") for user, genders in seen.items()}
    assert {u["user_id"]: u["gender"] for u in nest_users(table(actions)).to_pylist()} == expected


@given(rows, st.integers(1, 5), st.integers(0, 3))
def test_splitting_by_user_loses_nothing_and_keeps_each_user_in_one_bucket(
    actions: list[tuple[str, str, str, str, int]], buckets: int, skipped: int
) -> None:
    whole = batch(actions).slice(skipped)  # its dictionaries have values that no row has
    parts = list(split_by_user(whole, buckets))
    assert all(part.num_rows for _, part in parts)
    split = [row for _, part in parts for row in part.to_pylist()]
    assert Counter(map(str, split)) == Counter(map(str, whole.to_pylist()))
    bucket = {row["user_id"]: number for number, part in parts for row in part.to_pylist()}
    assert bucket == {user: bucket_of(pa.array([user]), buckets)[0] for user in whole.column("user_id").to_pylist()}
    for _, part in parts:
        pages = part.column("page_id")
        assert sorted(pages.dictionary.to_pylist()) == sorted(set(pages.to_pylist()))
