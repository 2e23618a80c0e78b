"""Grouping: one row a user, in order, counts conserved, gender by the contract's rule."""

from collections import Counter, defaultdict

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs.config import ACTIONS
from spark_jobs.grouping import nest_users

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3)
rows = st.lists(
    st.tuples(ids, ids, st.sampled_from(["0", "1", "2", "x"]), st.sampled_from(ACTIONS), st.integers(1, 2**53))
)


def table(actions: list[tuple[str, str, str, str, int]]) -> pa.Table:
    return pa.table(
        {
            "user_id": pa.array([a[0] for a in actions], pa.string()),
            "page_id": pa.array([a[1] for a in actions], pa.string()),
            "gender": pa.array([a[2] for a in actions], pa.string()),
            **{name: pa.array([a[4] if a[3] == name else 0 for a in actions], pa.int64()) for name in ACTIONS},
        }
    )


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
