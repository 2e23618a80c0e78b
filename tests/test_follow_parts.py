"""What decides of a month's segments, part by part."""

import numpy as np
import scipy.sparse as sp

from spark_jobs.following.tastes import People
from tests.test_following import PAGES, A, B, C, after, kinds, month


def test_a_segment_that_is_gone_is_not_taken_for_one_that_likes_only_pages_of_which_nothing_was_known() -> None:
    known, new = month(2, [[A], [B]]), 120
    fresh = sp.csr_matrix((np.random.default_rng(0).random((new, 6)) < 0.6).astype(float))
    visits = sp.csr_matrix(sp.block_diag([known.visits, fresh]))
    people = People(visits, np.repeat([0, 1, 2], new), (*PAGES, *(f"new{page}" for page in range(6))))
    _, second = after(month(1, [[A], [B], [C]]), people)
    assert not any(3 in group for group in second.groups)
    assert ("death", (3,), ()) in kinds(second)
