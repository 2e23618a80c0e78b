"""Scaling: what each step does to the values of vectors, and what steps do one after another."""

import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp

from spark_jobs import config
from spark_jobs.config import DEFAULT_SCALING, parse_scaling
from spark_jobs.vectors.scaling import STEPS, scale

RAW = sp.csr_matrix(np.array([[1.0, 0, 3], [2, 0, 6], [0, 4, 0], [0, 0, 0]]))
WEIGHT = np.array([1, 2, 3, 4])


def scaled(*steps: str) -> np.ndarray:
    return np.asarray(scale(RAW, WEIGHT, steps)[0].toarray())


def test_every_step_that_the_config_knows_is_one() -> None:
    assert {*STEPS, "max"} == set(config._STEPS)


def test_max_has_one_factor_for_all_and_stays_below_one() -> None:
    got, factor = scale(RAW, WEIGHT, ["max"])
    assert factor == pytest.approx(1 / 7)
    np.testing.assert_allclose(got.toarray(), RAW.toarray() / 7)
    assert got.max() < 1


def test_log1p_and_none() -> None:
    np.testing.assert_allclose(scaled("log1p"), np.log1p(RAW.toarray()))
    np.testing.assert_array_equal(scaled("none"), RAW.toarray())
    np.testing.assert_allclose(scaled("loglog"), np.log1p(np.log1p(RAW.toarray())))


def test_idf_and_tfidf_are_the_idf_of_scikit_learn_over_the_users() -> None:
    from sklearn.feature_extraction.text import TfidfTransformer

    by_user = RAW[np.repeat(np.arange(4), WEIGHT)]
    expected = TfidfTransformer(norm=None, smooth_idf=True).fit_transform(by_user).toarray()
    for step in ("idf", "tfidf"):
        np.testing.assert_allclose(scaled(step)[np.repeat(np.arange(4), WEIGHT)], expected)


def test_with_idf_a_page_of_few_counts_as_one_of_a_twentieth_of_the_users() -> None:
    users = 1000
    pages = [np.arange(users) < have for have in (1000, 200, 50, 10, 1)]
    raw = sp.csr_matrix(np.column_stack(pages).astype(float))
    idf, tfidf = (scale(raw, np.ones(users, np.int64), [step])[0].toarray()[0] for step in ("idf", "tfidf"))
    assert idf[0] == tfidf[0] == 1
    np.testing.assert_array_equal(idf[:3], tfidf[:3])
    np.testing.assert_array_equal(idf[3:], idf[2])
    assert idf[2] < tfidf[3] < tfidf[4]


def test_steps_are_applied_in_order() -> None:
    from sklearn.feature_extraction.text import TfidfTransformer

    by_user = RAW.log1p()[np.repeat(np.arange(4), WEIGHT)]
    expected = TfidfTransformer(norm="l2", smooth_idf=True).fit_transform(by_user).toarray()
    got = scaled("log1p", "idf", "l2")[np.repeat(np.arange(4), WEIGHT)]
    np.testing.assert_allclose(got, expected, atol=1e-12)
    assert np.abs(scaled("l2", "idf") - scaled("idf", "l2")).max() > 0.1


def test_equal_directions_are_equal_to_the_last_bit_after_l2() -> None:
    times = np.array([1, 3, 7, 1000, 10**9 + 7])[:, None]
    given = sp.csr_matrix(times * np.array([[1.0, 2, 5]]))
    for steps in (["l2"], ["idf", "l2"], ["l2", "idf"], ["l2", "max"]):
        got = scale(given, np.ones(5, np.int64), steps)[0].toarray()
        assert (got == got[0]).all(), steps


def test_max_after_other_steps_is_of_their_values() -> None:
    got, factor = scale(RAW, WEIGHT, ["log1p", "max"])
    assert factor == pytest.approx(1 / (1 + np.log1p(6)))
    np.testing.assert_allclose(got.toarray(), np.log1p(RAW.toarray()) * factor)


def test_what_was_given_stays_as_it_is_and_so_do_zeros() -> None:
    before = RAW.toarray()
    for steps in (["none"], ["max"], ["log1p", "idf", "l2", "max"]):
        got, _ = scale(RAW, WEIGHT, steps)
        np.testing.assert_array_equal(got.toarray() == 0, before == 0)
        np.testing.assert_array_equal(RAW.toarray(), before)


def test_nobody_is_scaled_to_nobody() -> None:
    for steps in (["max"], ["log1p", "idf", "l2", "max"]):
        got, _ = scale(sp.csr_matrix((0, 3)), np.zeros(0, np.int64), steps)
        assert got.shape == (0, 3)


def test_processors_without_avx_512_give_the_same_bytes() -> None:
    """numpy's own logarithm does not, where it finds AVX-512."""
    program = """if True:
        import hashlib, numpy as np, scipy.sparse as sp
        from spark_jobs.vectors.scaling import scale
        values = np.random.default_rng(0).integers(1, 10**6, (2000, 20)) * 0.1
        got, _ = scale(sp.csr_matrix(values), np.ones(2000, np.int64), ["log1p", "idf", "l2"])
        print(hashlib.sha256(got.data.tobytes()).hexdigest())
    """
    # Names of features that this numpy or this processor does not have are ignored, with a warning.
    old = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"}
    digests = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for environment in ({}, old)
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("max", ("max",)),
        ("none", ("none",)),
        ("tfidf", ("tfidf",)),
        (" log1p , l2 ", ("log1p", "l2")),
        ("log1p,tfidf,l2", ("log1p", "tfidf", "l2")),
        ("l2,idf", ("l2", "idf")),
        ("log1p,idf,l2,max", ("log1p", "idf", "l2", "max")),
    ],
)
def test_steps_are_separated_by_commas(text: str, steps: tuple[str, ...]) -> None:
    assert parse_scaling(text) == steps


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("min", "'min' is not a step of scaling; allowed are max, none, log1p"),
        ("log1p,", "'' is not a step"),
        ("", "'' is not a step"),
        ("log1p l2", f"'log1p l2' is not a step of scaling; allowed are .* by commas, such as {DEFAULT_SCALING}"),
        ("L2", "'L2' is not a step"),
        ("l2,idf,l2", "the step l2 is in 'l2,idf,l2' twice; write it once"),
        ("idf,tfidf", "idf and tfidf are both in 'idf,tfidf'; .* write one of them"),
        ("none,l2", "none is in 'none,l2' with other steps; write none alone, or leave it out"),
        ("l2,none", "none is in 'l2,none' with other steps"),
        ("l2,log1p", "log1p is not the first step of 'l2,log1p'; .* write it first"),
        ("log1p,loglog", "loglog is not the first step of 'log1p,loglog'; .* write it first"),
        ("max,l2", "max is not the last step of 'max,l2'; .* write it last"),
    ],
)
def test_steps_that_make_no_sense_are_refused_with_the_way_out(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        parse_scaling(text)
