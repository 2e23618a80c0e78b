"""Profiles: the distinct vectors of a category's users, scaled as asked."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from spark_jobs.categories import Category, Page
from spark_jobs.config import ACTIONS
from spark_jobs.grouping import CODED_USER
from spark_jobs.profiles import VECTOR, PageIndex, build_inputs, from_table, scale, to_table, vectors_of

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


def inputs(batch: pa.RecordBatch, wanted: Category, scaling: Any = "none", min_actions: int = 1) -> Any:
    vectors = [vectors for _, vectors in vectors_of(batch, PageIndex([wanted]), ONES, min_actions)]
    return build_inputs(wanted, pa.Table.from_batches(vectors or [NOBODY]), scaling)


def dense(made: Any) -> list[list[float]]:
    matrix, _ = from_table(made.profiles, made.dimensions.num_rows)
    return matrix.toarray().tolist()


def test_users_with_the_same_vector_share_a_profile() -> None:
    made = inputs(users(a={"p": 1}, b={"q": 2}, c={"p": 1}), category("x", "p", "q"))
    assert dense(made) == [[1, 0], [0, 2]]
    assert made.profiles["weight"].to_pylist() == [2, 1]
    assert made.members.to_pylist() == [
        {"user_id": "a", "gender": "0", "profile_id": 0},
        {"user_id": "b", "gender": "0", "profile_id": 1},
        {"user_id": "c", "gender": "0", "profile_id": 0},
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


RAW = sp.csr_matrix(np.array([[1.0, 0, 3], [2, 0, 6], [0, 4, 0], [0, 0, 0]]))
WEIGHT = np.array([1, 2, 3, 4])


def test_scaling_max_has_one_factor_for_all_and_stays_below_one() -> None:
    scaled, factor = scale(RAW, WEIGHT, "max")
    assert factor == pytest.approx(1 / 7)
    np.testing.assert_allclose(scaled.toarray(), RAW.toarray() / 7)
    assert scaled.max() < 1


def test_scaling_log1p_and_none() -> None:
    np.testing.assert_allclose(scale(RAW, WEIGHT, "log1p")[0].toarray(), np.log1p(RAW.toarray()))
    np.testing.assert_array_equal(scale(RAW, WEIGHT, "none")[0].toarray(), RAW.toarray())


def test_scaling_tfidf_is_that_of_scikit_learn_over_the_users() -> None:
    from sklearn.feature_extraction.text import TfidfTransformer

    by_user = RAW[np.repeat(np.arange(4), WEIGHT)]
    expected = TfidfTransformer(norm=None, smooth_idf=True).fit_transform(by_user).toarray()
    got = scale(RAW, WEIGHT, "tfidf")[0].toarray()
    np.testing.assert_allclose(got[np.repeat(np.arange(4), WEIGHT)], expected)


def test_scaling_l2_merges_profiles_that_become_the_same() -> None:
    made = inputs(users(a={"p": 1, "q": 1}, b={"p": 7, "q": 7}, c={"p": 1}), category("x", "p", "q"), "l2")
    np.testing.assert_allclose(dense(made), [[math.sqrt(0.5)] * 2, [1, 0]])
    assert made.profiles["weight"].to_pylist() == [2, 1]
    assert made.members["profile_id"].to_pylist() == [0, 0, 1]


def test_tables_keep_profiles_as_they_are() -> None:
    matrix, weight = from_table(to_table(RAW, WEIGHT), 3)
    np.testing.assert_array_equal(matrix.toarray(), RAW.toarray())
    np.testing.assert_array_equal(weight, WEIGHT)
