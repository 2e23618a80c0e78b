"""What a segment is compared with: everybody, or one other segment."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.segments import baselines as benchmark
from benchmarks.segments.designs import Design, draw
from benchmarks.segments.distinctive import cluster
from spark_jobs import demo_audience
from spark_jobs.clusters import baselines, published
from spark_jobs.clusters.lifts import Lifts, lifts
from spark_jobs.clusters.likes import STRATA, Likes
from tests.conftest import Engine

MIN_PEOPLE = 10


def likes_of(people: list[list[int]], fans: list[list[int]]) -> Likes:
    """Clusters and a page: people of each in each stratum, and those of them who like it."""
    shape = (len(people), len(STRATA))
    of, liking = np.zeros(shape, np.int64), np.zeros((*shape, 1), np.int64)
    of[:, : len(people[0])], liking[:, : len(fans[0]), 0] = people, fans
    return Likes(of, liking, liking)


@pytest.fixture(scope="module")
def segments() -> Likes:
    """Four planted segments."""
    design = Design("4 segments, Pareto", 2000, (0.25,) * 4, activity="pareto")
    return cluster(draw(design, 0).counts, 4, 2000).likes


def of_pair(likes: Likes, one: int, other: int, min_people: int = MIN_PEOPLE) -> Lifts:
    found = baselines.against_each_other(likes, likes.fans.sum(axis=1), min_people)
    return next(lift for first, second, lift in found if (first, second) == (one, other))


# --- everybody


def test_against_everybody_people_are_compared_with_how_many_like_a_page_in_their_strata() -> None:
    likes = likes_of([[100, 50], [300, 150], [100, 0]], [[60, 40], [60, 30], [20, 0]])
    found = baselines.against_everybody(likes, lifts(likes, MIN_PEOPLE), MIN_PEOPLE)
    expected = 100 * (140 / 500) + 50 * (70 / 200)  # of the first segment's people
    assert found.lift[0, 0] == pytest.approx(100 / expected)


def test_against_everybody_pages_differ_as_surely_and_by_less(segments: Likes) -> None:
    rest = lifts(segments, MIN_PEOPLE)
    found = baselines.against_everybody(segments, rest, MIN_PEOPLE)
    known = np.isfinite(rest.high)
    assert known.sum() > 80
    before, after = rest.lift[known], found.lift[known]
    assert ((before > 1) == (after > 1)).all()
    assert (np.abs(np.log(after)) <= np.abs(np.log(before)) + 1e-12).all()
    excluding = [((of.low > 1) | (of.high < 1))[known] for of in (rest, found)]
    assert (excluding[0] == excluding[1]).mean() > 0.95
    assert np.array_equal(found.z, rest.z, equal_nan=True)
    assert not (found.distinctive & ~rest.distinctive).any()
    assert found.distinctive.any(axis=1).all()


def test_the_interval_against_everybody_is_that_of_a_part_of_a_whole_where_there_is_one_stratum() -> None:
    """Its variance is then 1/a - 1/n - 1/t + 2 (a/nt) - 1/N, of a fans among n people, and t among all N."""
    likes = likes_of([[400], [600]], [[120], [90]])
    found = baselines.against_everybody(likes, lifts(likes, MIN_PEOPLE), MIN_PEOPLE)
    assert found.lift[0, 0] == pytest.approx((120 / 400) / (210 / 1000))
    variance = 1 / 120 - 1 / 400 - 1 / 210 - 1 / 1000 + 2 * 120 / (400 * 210)
    t_of_89 = 1.986979
    assert np.log(found.high[0, 0] / found.lift[0, 0]) == pytest.approx(t_of_89 * np.sqrt(variance))


def test_against_everybody_only_the_lower_end_is_said_where_few_others_like_a_page() -> None:
    lows = set()
    for others in (0, 3, 9):
        likes = likes_of([[100], [1000]], [[80], [others]])
        found = baselines.against_everybody(likes, lifts(likes, MIN_PEOPLE), MIN_PEOPLE)
        assert np.isnan([found.lift[0, 0], found.high[0, 0]]).all()
        assert found.distinctive[0, 0]
        lows.add(float(found.low[0, 0]))
    assert len(lows) == 1, "how many others there are must not be seen"


# --- another segment


def test_two_segments_are_compared_as_if_there_were_no_other(segments: Likes) -> None:
    for one, other in ((0, 1), (3, 2)):
        alone = Likes(*(of[[one, other]] for of in vars(segments).values()))
        expected, found = lifts(alone, MIN_PEOPLE), of_pair(segments, one, other)
        known = np.isfinite(found.low)
        assert known.sum() > 20
        for name in ("low", "z", "distinctive"):
            assert np.array_equal(getattr(found, name)[known], getattr(expected, name)[0][known])
        said = np.isfinite(found.high)
        assert np.array_equal(found.lift[said], expected.lift[0][said])


def test_few_fans_in_a_segment_of_whom_many_are_placed_there_by_their_other_pages_are_compared_as_those_many() -> None:
    """As where one page alone cuts an audience in two: by all else, both like it as much."""
    likes = likes_of([[1000], [1000]], [[200], [200]])
    (found,) = (
        lift for one, _, lift in baselines.against_each_other(likes, np.array([[400], [0]]), MIN_PEOPLE) if one == 0
    )
    assert found.low[0] < 1
    assert not found.distinctive[0]
    assert np.isnan([found.lift[0], found.high[0]]).all()


def test_pairs_do_not_depend_on_how_many_are_compared_at_a_time(
    monkeypatch: pytest.MonkeyPatch, segments: Likes
) -> None:
    whole = of_pair(segments, 0, 3)
    monkeypatch.setattr(baselines, "_CELLS", 1)
    cut = of_pair(segments, 0, 3)
    assert all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(vars(whole).values(), vars(cut).values(), strict=True)
    )


def test_what_sets_a_segment_apart_from_another_need_not_set_it_apart_from_all() -> None:
    likes = likes_of([[1000], [1000], [4000]], [[400], [100], [1800]])
    assert not lifts(likes, MIN_PEOPLE).distinctive[0, 0]
    assert of_pair(likes, 0, 1).distinctive[0]


def test_how_few_people_of_another_segment_like_a_page_is_not_seen() -> None:
    lows = set()
    for few in (0, 4, 9):
        likes = likes_of([[1000], [1000], [1000]], [[400], [few], [15]])
        found = of_pair(likes, 0, 1)
        assert np.isnan([found.lift[0], found.high[0]]).all()
        lows.add(float(found.low[0]))
        assert np.isnan(of_pair(likes, 1, 0).low[0])
    assert len(lows) == 1


def test_what_few_people_do_does_not_follow_from_all_other_comparisons() -> None:
    """Of whom nothing is said are never fewer than asked, together: no difference of what is said is of so few."""
    random = np.random.default_rng(0)
    fans = random.integers(0, 30, (4, 2_000))
    few = fans < MIN_PEOPLE
    hidden = few | baselines.withheld(fans, few, MIN_PEOPLE)
    assert (hidden & ~few).any()
    together = np.where(hidden, fans, 0).sum(axis=0)
    assert ((together >= MIN_PEOPLE) | ~few.any(axis=0) | few.all(axis=0)).all()
    assert not (hidden & ~few)[:, ~few.any(axis=0)].any(), "where enough people like a page everywhere, all is said"
    likes = likes_of([[1000], [1000], [1000]], [[400], [15], [4]])
    assert np.isnan([of_pair(likes, 0, 1).low[0], of_pair(likes, 1, 0).low[0]]).all()


def test_without_structure_hardly_a_pair_differs_and_intervals_hold() -> None:
    """`benchmarks.segments.baselines` has the table."""
    designs = (Design("none", 1000), Design("none, Pareto", 1500, activity="pareto"))
    found = [benchmark.without_structure(design, seed) for design in designs for seed in range(2)]
    pairs, distinctive, cells, excluding = (
        sum(row[name] for row in found) for name in ("pairs", "distinctive", "cells", "excluding")
    )
    assert pairs == 4 * (4 * 3 + 8 * 7)
    assert distinctive <= 0.05 * pairs
    assert cells > 1000
    assert excluding <= 0.06 * cells


# --- rounding of many


def test_many_figures_are_rounded_as_one_is() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([10 ** random.uniform(-6, 6, 2_000), [0.0, 9.96, 99.6, 0.0996, 1.0, np.nan, np.inf]])
    assert [None if np.isnan(value) else value for value in published.ratios(values).tolist()] == [
        published.ratio(value) for value in values.tolist()
    ]
    scores = np.concatenate([random.normal(0, 30, 2_000), [-0.01, np.nan]])
    assert [None if np.isnan(value) else value for value in published.z_scores(scores).tolist()] == [
        published.z_score(value) for value in scores.tolist()
    ]


# --- the job


@pytest.fixture(scope="module")
def inputs(local: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clustering inputs of a small coffee audience."""
    place = tmp_path_factory.mktemp("baselines")
    demo_audience.make(str(place), users=3_000)
    local.run("group_by_user", place / "raw" / f"month={demo_audience.MONTHS[0]}", place / "users")
    local.run(
        *("make_clustering_inputs", place / "users", place / "inputs"),
        *("--category", place / "categories" / "coffee.json"),
    )
    return place / "inputs"


@pytest.mark.parametrize(("k", "min_people"), [(4, 10), (7, 50)])
def test_every_segment_is_compared_with_everybody_and_each_other_one(
    inputs: Path, local: Engine, tmp_path: Path, k: int, min_people: int
) -> None:
    local.run("kmeans", inputs, tmp_path, "--k", k, "--min-people", min_people, "--strict-schema", "true")
    rows = pq.read_table(tmp_path / "comparisons.parquet").to_pylist()
    profile = {
        (row["cluster_id"], row["dimension_id"]): row
        for row in pq.read_table(tmp_path / "profiles.parquet").to_pylist()
    }
    liked = {cell for cell, row in profile.items() if row["people"] is not None}
    expected = [
        (one, *baseline, page)
        for one in range(k)
        for baseline in [("everybody", None), *(("segment", other) for other in range(k) if other != one)]
        for cluster, page in profile
        if cluster == one and (cluster, page) in liked
    ]
    names = ("cluster_id", "baseline", "baseline_cluster_id", "dimension_id")
    assert [tuple(row[name] for name in names) for row in rows] == expected
    for row in rows:
        own = profile[row["cluster_id"], row["dimension_id"]]
        assert [row[name] for name in ("people", "share")] == [own[name] for name in ("people", "share")]
        if row["baseline"] == "segment":
            other = profile[row["baseline_cluster_id"], row["dimension_id"]]
            assert [row["baseline_people"], row["baseline_share"]] == [other["people"], other["share"]]
        else:
            assert row["baseline_people"] >= row["people"]
            assert row["z"] == own["z"]
        if row["baseline_people"] is None:
            assert [row["lift"], row["lift_high"]] == [None, None]
    assert any(row["distinctive"] and row["baseline"] == "segment" for row in rows)


def test_a_single_segment_is_compared_with_nobody(inputs: Path, local: Engine, tmp_path: Path) -> None:
    local.run("kmeans", inputs, tmp_path, "--k", 1)
    table = pq.read_table(tmp_path / "comparisons.parquet")
    assert table.num_rows == 0
    assert table.schema.equals(pa.schema(published.SEGMENT_COMPARISON))
