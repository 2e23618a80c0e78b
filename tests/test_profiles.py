"""Profiles: the distinct vectors of a category's users, scaled as asked."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from spark_jobs.config import ACTIONS, FIT_MIN_ACTIONS
from spark_jobs.users.grouping import CODED_USER
from spark_jobs.vectors.category_files import Category, Page
from spark_jobs.vectors.profiles import VECTOR, PageIndex, build_inputs, from_table, to_table, vectors_of

ONES = [1.0] * 4
NOBODY = pa.RecordBatch.from_pylist([], schema=VECTOR)


def category(name: str, *pages: str) -> Category:
    return Category(name, 0, name, False, tuple(Page(page, page, "facebook") for page in pages))


def users(**pages_of_user: dict[str, int]) -> pa.RecordBatch:
    rows = [
        {
            "user_id": user,
            "gender": "0",
            "pages": [{"page_id": p, **dict.fromkeys(ACTIONS, 0), "page_like": n} for p, n in pages.items()],
        }
        for user, pages in pages_of_user.items()
    ]
    return pa.RecordBatch.from_pylist(rows, schema=CODED_USER)


def likes(number: int) -> dict[str, int]:
    """So many page likes, and no other action."""
    return {**dict.fromkeys(ACTIONS, 0), "page_like": number}


def inputs(batch: pa.RecordBatch, wanted: Category, scaling: str = "none", min_actions: int = 1) -> Any:
    vectors = [vectors for _, vectors in vectors_of(batch, PageIndex([wanted]), ONES, min_actions)]
    return build_inputs(wanted, pa.Table.from_batches(vectors or [NOBODY]), scaling)


def dense(made: Any) -> list[list[float]]:
    matrix, _, _ = from_table(made.profiles, made.dimensions.num_rows)
    return matrix.toarray().tolist()


def test_users_with_the_same_vector_share_a_profile() -> None:
    made = inputs(users(a={"p": 1}, b={"q": 2}, c={"p": 1}), category("x", "p", "q"))
    assert dense(made) == [[1, 0], [0, 2]]
    assert made.profiles["weight"].to_pylist() == [2, 1]
    assert made.members.to_pylist() == [
        {"user_id": "a", "gender": "0", "profile_id": 0, "actions": 1, **likes(1)},
        {"user_id": "b", "gender": "0", "profile_id": 1, "actions": 2, **likes(2)},
        {"user_id": "c", "gender": "0", "profile_id": 0, "actions": 1, **likes(1)},
    ]
    assert made.dimensions["users"].to_pylist() == [2, 1]
    assert made.dimensions["total"].to_pylist() == [2, 2]


def test_users_with_no_entry_are_left_out_and_one_of_zero_stays() -> None:
    made = inputs(users(a={"other": 5}, b={"p": 0}, c={}), category("x", "p"))
    assert made.members["user_id"].to_pylist() == ["b"]
    assert dense(made) == [[0]]


def test_a_page_of_several_categories_counts_in_each() -> None:
    both = [category("x", "p", "q"), category("y", "q")]
    vectors = vectors_of(users(a={"p": 1, "q": 2}, b={"q": 3}), PageIndex(both), ONES, 1)
    assert {place: rows.column("user_id").to_pylist() for place, rows in vectors} == {0: ["a", "b"], 1: ["a", "b"]}


def test_value_is_the_weighted_sum_of_actions() -> None:
    row = {"page_id": "p", "page_like": 1, "page_comment": 2, "post_like": 3, "post_comment": 4}
    batch = pa.RecordBatch.from_pylist([{"user_id": "a", "gender": "0", "pages": [row]}], schema=CODED_USER)
    [(_, vectors)] = vectors_of(batch, PageIndex([category("x", "p")]), [1.0, 10.0, 0.0, 0.5], 1)
    made = build_inputs(category("x", "p"), pa.Table.from_batches([vectors]), "none")
    assert dense(made) == [[1 + 20 + 2]]


def test_min_actions_leaves_out_users_with_fewer() -> None:
    batch = users(a={"p": 1, "q": 1}, b={"p": 1, "other": 9}, c={"p": 2})
    assert inputs(batch, category("x", "p", "q"), min_actions=2).members["user_id"].to_pylist() == ["a", "c"]


def test_a_sliced_batch_gives_the_vectors_of_its_own_users() -> None:
    batch = users(a={"p": 1}, b={"p": 2}, c={"p": 3})
    made = inputs(batch.slice(1, 1), category("x", "p"))
    assert made.members["user_id"].to_pylist() == ["b"]
    assert dense(made) == [[2]]


def test_nobody_gives_empty_inputs() -> None:
    made = inputs(users(), category("x", "p"))
    assert made.profiles.num_rows == made.members.num_rows == 0
    assert made.dimensions["users"].to_pylist() == [0]


def test_actions_are_counted_on_the_categorys_pages_whatever_their_weights() -> None:
    row = {"page_id": "p", "page_like": 1, "page_comment": 2, "post_like": 3, "post_comment": 4}
    pages = [row, {**row, "page_id": "q"}, {**row, "page_id": "other", "page_like": 100}]
    batch = pa.RecordBatch.from_pylist([{"user_id": "a", "gender": "0", "pages": pages}], schema=CODED_USER)
    both = [category("x", "p", "q"), category("y", "q")]
    vectors = vectors_of(batch, PageIndex(both), [0.0, 10.0, 0.5, 0.0], 1)
    vectors = list(vectors)
    assert [rows.column("actions").to_pylist() for _, rows in vectors] == [[20], [10]]
    assert [[rows.column(action)[0].as_py() for action in ACTIONS] for _, rows in vectors] == [
        [2, 4, 6, 8],
        [1, 2, 3, 4],
    ]


def test_members_have_the_number_of_each_action_in_the_order_of_their_ids() -> None:
    pages = {
        "b": [{"page_id": "p", "page_like": 1, "page_comment": 0, "post_like": 5, "post_comment": 0}],
        "a": [
            {"page_id": "p", "page_like": 0, "page_comment": 2, "post_like": 0, "post_comment": 0},
            {"page_id": "q", "page_like": 0, "page_comment": 3, "post_like": 0, "post_comment": 4},
        ],
    }
    rows = [{"user_id": user, "gender": "0", "pages": on} for user, on in pages.items()]
    made = inputs(pa.RecordBatch.from_pylist(rows, schema=CODED_USER), category("x", "p", "q"))
    assert made.members.select(["user_id", "actions", *ACTIONS]).to_pylist() == [
        {"user_id": "a", "actions": 9, "page_like": 0, "page_comment": 5, "post_like": 0, "post_comment": 4},
        {"user_id": "b", "actions": 6, "page_like": 1, "page_comment": 0, "post_like": 5, "post_comment": 0},
    ]


def test_the_fit_weight_is_the_users_who_do_enough() -> None:
    enough = FIT_MIN_ACTIONS
    batch = users(a={"p": 1}, b={"p": enough}, c={"p": enough - 1}, d={"p": enough + 1}, e={"q": 1}, f={"q": 1})
    made = inputs(batch, category("x", "p", "q"), "l2")
    assert dense(made) == [[1, 0], [0, 1]]
    assert made.profiles["weight"].to_pylist() == [4, 2]
    assert made.profiles["fit_weight"].to_pylist() == [2, 0]
    assert made.members["actions"].to_pylist() == [1, enough, enough - 1, enough + 1, 1, 1]


def test_more_actions_than_64_bits_hold_are_as_many_as_they_hold() -> None:
    largest = 2**63 - 1
    many = {f"p{n}": largest for n in range(5)}
    batch = users(a=many, b={"p0": largest}, c={"p0": largest - 7, "p1": 6}, d={"p0": 1, "p1": largest}, e={"p0": 3})
    all_of_both = {"page_like": largest, "page_comment": largest, "post_like": 1, "post_comment": 5}
    pages = [{"page_id": "p0", **all_of_both}]
    batch = pa.concat_batches(
        [batch, pa.RecordBatch.from_pylist([{"user_id": "f", "gender": "0", "pages": pages}], schema=CODED_USER)]
    )
    wanted = category("x", *many)
    expected = [largest, largest, largest - 1, largest, 3, largest]
    members = inputs(batch, wanted).members
    assert members["actions"].to_pylist() == expected
    assert members["page_like"].to_pylist() == [largest, largest, largest - 1, largest, 3, largest]
    assert members["page_comment"].to_pylist() == [0] * 5 + [largest]
    assert inputs(batch, wanted, min_actions=largest).members["user_id"].to_pylist() == ["a", "b", "d", "f"]


def test_scaling_l2_merges_profiles_that_become_the_same() -> None:
    made = inputs(users(a={"p": 1, "q": 1}, b={"p": 7, "q": 7}, c={"p": 1}), category("x", "p", "q"), "l2")
    np.testing.assert_allclose(dense(made), [[math.sqrt(0.5)] * 2, [1, 0]])
    assert made.profiles["weight"].to_pylist() == [2, 1]
    assert made.members["profile_id"].to_pylist() == [0, 0, 1]


def test_tables_keep_profiles_as_they_are() -> None:
    given = sp.csr_matrix(np.array([[1.0, 0, 3], [2, 0, 6], [0, 4, 0], [0, 0, 0]]))
    users_of, fit_users_of = np.array([1, 2, 3, 4]), np.array([0, 2, 1, 0])
    matrix, weight, fit_weight = from_table(to_table(given, users_of, fit_users_of), 3)
    np.testing.assert_array_equal(matrix.toarray(), given.toarray())
    np.testing.assert_array_equal(weight, users_of)
    np.testing.assert_array_equal(fit_weight, fit_users_of)
