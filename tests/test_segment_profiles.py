"""What is said of segments: what sets them apart, their names, and nothing of a few people."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from benchmarks.segments import distinctive, nulls
from benchmarks.segments.designs import Design, draw
from spark_jobs import demo_audience
from spark_jobs.clusters import names, published, segment_profiles
from spark_jobs.clusters.lifts import Lifts, lifts
from spark_jobs.clusters.likes import STRATA, Likes, count_held_out, count_likes
from spark_jobs.clusters.traits import Quartiles, Traits
from spark_jobs.outputs import read_manifest
from tests.conftest import Engine
from tests.golden import read_json_lines

# --- what may be published


@pytest.mark.parametrize(
    ("people", "said"), [(0, None), (9, None), (10, 10), (14, 10), (15, 20), (24, 20), (1234, 1230)]
)
def test_people_are_said_in_tens_and_fewer_than_ten_not_at_all(people: int, said: int | None) -> None:
    assert published.count(people, 10) == said


@pytest.mark.parametrize("min_people", [1, 2, 3, 7, 10, 25])
def test_no_rounded_count_is_of_one_number_of_people_alone(min_people: int) -> None:
    said = [published.count(people, min_people) for people in range(20 * min_people)]
    assert said[:min_people] == [None] * min_people
    rounded = [each for each in said if each is not None]
    assert all(each % min_people == 0 for each in rounded)
    assert all(before <= after for before, after in pairwise(rounded))
    assert max(abs(each - people) for people, each in enumerate(said) if each is not None) <= min_people / 2


def test_shares_are_of_rounded_counts_in_percents_and_never_above_all() -> None:
    assert published.share(16, 118, 10) == round(20 / 120, 2)
    assert published.share(9, 118, 10) is None
    assert published.share(14, 14, 10) == published.share(10, 10, 10) == 1.0
    assert published.share(15, 14, 10) == 1.0


def test_lifts_have_two_digits_and_what_is_not_known_is_none() -> None:
    assert [published.ratio(value) for value in (1.2345, 123.4, 0.01234, np.nan, np.inf)] == [
        1.2,
        120,
        0.012,
        None,
        None,
    ]
    assert [published.z_score(value) for value in (3.14159, -0.01, np.nan)] == [3.1, 0.0, None]


# --- counting who likes what


@pytest.fixture
def fans() -> sp.csr_matrix:
    """People by the pages they like: two like page 0 alone, others like pages together; of length 1."""
    liked = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 1, 1]], float)
    return sp.csr_matrix(liked / np.linalg.norm(liked, axis=1, keepdims=True))


def test_who_likes_a_page_is_counted_where_the_others_put_them(fans: sp.csr_matrix) -> None:
    """As if each page of each person were taken away, and the rest placed anew."""
    centers = np.array([[0.9, 0.5, 0, 0], [0, 0.1, 0.7, 0.7], [0.2, 0.8, 0.3, 0]])
    weight = np.array([7, 1, 2, 3, 4])
    found = count_likes(fans, weight, centers, keep_length=True)
    expected = np.zeros_like(found.held_out)
    for person, vector in enumerate(fans.toarray()):
        for page in np.flatnonzero(vector):
            rest = np.where(np.arange(4) == page, 0, vector)
            if rest.any():
                nearest = ((rest / np.linalg.norm(rest) - centers) ** 2).sum(axis=1).argmin()
                expected[nearest, np.count_nonzero(rest) - 1, page] += weight[person]
    assert np.array_equal(found.held_out, expected)
    assert found.people.sum() == weight.sum()
    assert np.array_equal(found.fans.sum(axis=(0, 1)), weight @ (fans > 0))


def test_who_likes_nothing_else_says_nothing_of_a_page(fans: sp.csr_matrix) -> None:
    """They are in a cluster because of it."""
    centers = np.eye(4)[:2]
    without, with_them = (count_likes(fans, np.array([n, 1, 1, 1, 1]), centers, True) for n in (0, 100))
    assert np.array_equal(without.held_out, with_them.held_out)
    assert np.array_equal(without.comparable[:, :, 0], with_them.comparable[:, :, 0])


def test_likes_do_not_depend_on_how_profiles_are_cut_into_blocks(
    monkeypatch: pytest.MonkeyPatch, fans: sp.csr_matrix
) -> None:
    centers, weight = np.eye(4), np.arange(1, 6)
    whole = count_likes(fans, weight, centers, keep_length=True)
    monkeypatch.setattr("spark_jobs.clusters.likes._ENTRIES", 2)
    cut = count_likes(fans, weight, centers, keep_length=True)
    assert all(np.array_equal(a, b) for a, b in zip(vars(whole).values(), vars(cut).values(), strict=True))


def test_everybody_is_counted_once_whoever_is_learned_from() -> None:
    random = np.random.default_rng(0)
    profiles = sp.csr_matrix((random.random((300, 8)) < 0.4).astype(float))
    profiles = profiles[np.flatnonzero(profiles.sum(axis=1) > 0)]
    weight = random.integers(1, 9, profiles.shape[0])
    for learned in (weight, weight // 2, np.zeros_like(weight) + (np.arange(len(weight)) < 2)):
        found = count_held_out(profiles, weight, learned, profiles[:3].toarray(), False, seed=1)
        assert found.people.sum() == weight.sum()
        assert np.array_equal(found.fans.sum(axis=(0, 1)), weight @ (profiles > 0))


def test_with_nobody_to_learn_from_nothing_is_compared() -> None:
    profiles = sp.csr_matrix(np.eye(3))
    found = count_held_out(profiles, np.ones(3, int), np.zeros(3, int), np.eye(3), True, seed=0)
    assert not found.people.any()
    assert np.isnan(lifts(found, 10).low).all()


# --- how much likelier


def likes_of(*strata: tuple[int, int, int, int]) -> Likes:
    """Two clusters and a page: of each stratum, who likes it among how many, in the first and in the second."""
    g = len(STRATA)
    people, liking = np.zeros((2, g), np.int64), np.zeros((2, g, 1), np.int64)
    for stratum, (first, of_first, second, of_second) in enumerate(strata):
        people[:, stratum] = of_first, of_second
        liking[:, stratum, 0] = first, second
    return Likes(people, liking, liking)


def test_the_lift_is_the_ratio_of_shares_where_there_is_one_stratum() -> None:
    found = lifts(likes_of((60, 100, 90, 300)), 10)
    assert found.lift[0, 0] == pytest.approx(2.0)
    # Greenland and Robins (1985) give with one stratum the variance of Katz et al. (1978).
    error = np.sqrt(1 / 60 - 1 / 100 + 1 / 90 - 1 / 300)
    t_of_59 = 2.000995
    assert found.low[0, 0] == pytest.approx(2 * np.exp(-t_of_59 * error))
    assert found.high[0, 0] == pytest.approx(2 * np.exp(t_of_59 * error))
    assert found.distinctive[:, 0].tolist() == [True, False]


def test_loud_people_are_not_into_everything() -> None:
    """The first cluster likes the page three times as often, only because its people are loud."""
    found = lifts(likes_of((10, 100, 90, 900), (450, 900, 50, 100)), 10)
    assert found.lift[0, 0] == pytest.approx(1.0)
    assert not found.distinctive.any()


def test_a_page_of_a_few_people_has_no_figures_and_of_a_few_others_only_a_lower_end() -> None:
    few_here = lifts(likes_of((9, 100, 50, 100)), 10)
    assert np.isnan([few_here.lift[0, 0], few_here.low[0, 0], few_here.high[0, 0], few_here.z[0, 0]]).all()
    few_others = [lifts(likes_of((80, 100, others, 1000)), 10) for others in (0, 3, 9)]
    for found in few_others:
        assert np.isnan([found.lift[0, 0], found.high[0, 0]]).all()
        assert found.distinctive[0, 0]
    assert len({float(found.low[0, 0]) for found in few_others}) == 1, "how many others there are must not be seen"
    assert few_others[0].low[0, 0] < lifts(likes_of((80, 100, 10, 1000)), 10).lift[0, 0]


def test_a_small_difference_sets_nobody_apart_however_sure_it_is() -> None:
    found = lifts(likes_of((55_000, 100_000, 50_000, 100_000)), 10)
    assert found.low[0, 0] > 1
    assert found.z[0, 0] > 10
    assert not found.distinctive.any()


# --- what holds on data that is generated here; `benchmarks.segments.distinctive` has the table


def compared(design: Design, k: int, seed: int) -> tuple[Lifts, np.ndarray, sp.csr_matrix, np.ndarray]:
    audience = draw(design, seed)
    return (*distinctive.compare(audience.counts, k), audience.counts, audience.segment)


def test_without_structure_few_intervals_exclude_none_and_no_page_is_distinctive() -> None:
    cells = excluding = named = 0
    for design in (Design("none", 1000), Design("none, Pareto", 1500, activity="pareto")):
        for k in (3, 6):
            for seed in range(2):
                found, _, _, _ = compared(design, k, seed)
                known = np.isfinite(found.high)
                cells += int(known.sum())
                excluding += int((known & ((found.low > 1) | (found.high < 1))).sum())
                named += int(found.distinctive.any(axis=1).sum())
    assert cells > 1000
    assert excluding <= 0.06 * cells
    assert named == 0


def test_the_planted_pages_are_those_that_set_segments_apart() -> None:
    design = Design("4 segments, Pareto", 2000, (0.25,) * 4, activity="pareto")
    found, labels, _, segment = compared(design, 4, 0)
    for cluster in range(4):
        planted = np.bincount(segment[labels == cluster]).argmax()
        own = design.common + np.arange(design.own) + planted * design.own
        assert set(np.argsort(-np.nan_to_num(found.z[cluster]))[: design.own]) == set(own)
        assert found.distinctive[cluster, own].all()
        assert not found.distinctive[cluster, : design.common].any()


def test_a_shuffled_audience_has_no_distinctive_pages() -> None:
    counts = draw(Design("4 segments, Pareto", 1500, (0.25,) * 4, activity="pareto"), 1).counts
    found, _ = distinctive.compare(nulls.shuffled(counts, 0), 4)
    assert not found.distinctive.any()


# --- names


def test_names_are_short_and_unique_whatever_the_pages_are_called() -> None:
    long = "The Society for the Preservation of\nVery Long Names of Pages"
    given = names.names_of([["Espresso", "Latte Art", "Grinders"], ["Espresso", "Latte Art"], [], [], [long, long]])
    assert given == [
        "Espresso, Latte Art",
        "Espresso, Latte Art (2)",
        "Mixed",
        "Mixed (2)",
        "The Society for the Preserv…, The Society for the Preserv…",
    ]
    assert max(map(len, given)) <= 60


def test_one_segment_is_everybody_whatever_they_like() -> None:
    assert names.names_of([["Espresso"]]) == ["Everybody"]


# --- what kind of people


def test_traits_are_counted_over_all_batches() -> None:
    traits = Traits(2)
    traits.add(np.array([0, 0, 1]), pa.array(["1", "2", "1"]), pa.array([4, 1, 9]))
    traits.add(np.array([0, 1, 0]), pa.array(["0", "1", "1"]), pa.array([2, 9, 3]))
    assert (traits.genders(0), traits.genders(1)) == ({"0": 1, "1": 2, "2": 1}, {"1": 2})
    assert traits.activity() == [Quartiles(1, 2, 3), Quartiles(9, 9, 9)]


def test_activity_of_inputs_that_do_not_say_it_is_not_known() -> None:
    traits = Traits(1)
    traits.add(np.array([0]), pa.array(["1"]), pa.array([None], pa.int64()))
    assert traits.activity() == [None]


# --- the job


@pytest.fixture(scope="module")
def inputs(local: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clustering inputs of a small coffee audience."""
    place = tmp_path_factory.mktemp("profiles")
    demo_audience.make(str(place), users=6_000)
    local.run("group_by_user", place / "raw" / f"month={demo_audience.MONTHS[0]}", place / "users")
    local.run(
        *("make_clustering_inputs", place / "users", place / "inputs"),
        *("--category", place / "categories" / "coffee.json"),
    )
    return place / "inputs"


@pytest.fixture(scope="module")
def made(inputs: Path, local: Engine) -> Path:
    """Its clusters."""
    local.run("kmeans", inputs, inputs.parent / "out", "--k", 4)
    return inputs.parent / "out"


def test_segments_are_named_by_their_own_pages_and_all_files_agree(made: Path) -> None:
    segments = json.loads((made / "summary.json").read_text())["segments"]
    described = read_json_lines(made / "meta-data.json")
    group = {page: name for name, pages in demo_audience.CATEGORIES["coffee"].items() for page in pages}
    assert {frozenset(group[page] for page in segment["name"].split(", ")) for segment in segments} == {
        frozenset([name]) for name in group.values() if name != "everybody"
    }
    profiles = pq.read_table(made / "profiles.parquet").to_pylist()
    total = sum(line["cluster_member_count"] for line in described)
    for segment, line in zip(segments, described, strict=True):
        assert (segment["name"], segment["solidity"]) == (line["cluster_name"], line["cluster_solidity"])
        assert segment["people"] == published.count(line["cluster_member_count"], 10)
        assert line["cluster_share"] == round(line["cluster_member_count"] / total, 6)
        own = [row for row in profiles if row["cluster_id"] == line["cluster_id"]]
        apart = {row["dimension_id"]: row for row in own if row["distinctive"]}
        assert list(apart)
        assert set(line["distinctive_pages"]) == set(apart)
        assert [page["dimension_id"] for page in segment["distinctive"]] == line["distinctive_pages"][:8]
        for page in segment["distinctive"]:
            row = apart[page["dimension_id"]]
            of_row = [row[name] for name in ("people", "share", "rest_share", "lift", "lift_low", "lift_high")]
            assert [page[name] for name in ("people", "share", "rest_share", "lift", "low", "high")] == of_row
        assert set(segment["typical"]) >= {page["dimension_name"] for page in segment["distinctive"][:2]}


def test_the_month_is_one_more_baseline(made: Path, inputs: Path) -> None:
    month = read_manifest(str(inputs.parent / "users"), "grouped_users")["summary"]["users"]
    fans = pq.read_table(inputs / "dimensions.parquet")["users"].to_pylist()
    shares = pq.read_table(made / "profiles.parquet")["month_share"].to_pylist()
    assert shares == [published.share(people, month, 10) for people in fans] * 4


def numbers(value: object) -> Iterator[int]:
    """The whole numbers in a JSON value that count people."""
    if isinstance(value, dict):
        yield from (n for name, part in value.items() for n in ([part] if name == "people" else numbers(part)) if n)
    if isinstance(value, list):
        yield from (n for part in value for n in numbers(part))


@pytest.mark.parametrize(
    ("people", "said"), [(19, [None] * 3), (20, [None, 5, None]), (39, [None, 5, None]), (40, [2, 5, 9])]
)
def test_quartiles_are_of_enough_people_on_each_side(people: int, said: list[int | None]) -> None:
    assert list(segment_profiles._activity(Quartiles(2, 5, 9), people, 10).values()) == said


@pytest.mark.parametrize("min_people", [1, 10, 300])
def test_nothing_published_is_of_fewer_people_than_asked(
    inputs: Path, local: Engine, tmp_path: Path, min_people: int
) -> None:
    local.run("kmeans", inputs, tmp_path / "out", "--k", 7, "--min-people", min_people)
    segments = json.loads((tmp_path / "out" / "summary.json").read_text())["segments"]
    table = pq.read_table(tmp_path / "out" / "profiles.parquet")
    said = [*numbers(segments), *table["people"].drop_null().to_pylist(), *table["rest_people"].drop_null().to_pylist()]
    assert said
    assert all(people >= min_people and people % min_people == 0 for people in said)
    exact = [
        page["member_count"]
        for line in read_json_lines(tmp_path / "out" / "meta-data.json")
        for page in line["dimensions"]
    ]
    for row, people in zip(table.to_pylist(), exact, strict=True):
        if people < min_people:
            assert {row[name] for name in ("people", "share", "lift", "lift_low", "lift_high", "z")} == {None}
            assert not row["distinctive"]


def test_no_user_is_named_in_what_is_published(made: Path) -> None:
    users = pq.read_table(made / "assignments.parquet")["user_id"].to_pylist()
    segments = json.dumps(json.loads((made / "summary.json").read_text())["segments"])
    assert not any(user in segments for user in users)


def test_one_segment_is_everybody_and_nothing_sets_it_apart(inputs: Path, local: Engine, tmp_path: Path) -> None:
    local.run("kmeans", inputs, tmp_path / "out", "--k", 1)
    (segment,) = json.loads((tmp_path / "out" / "summary.json").read_text())["segments"]
    assert (segment["name"], segment["share"], segment["distinctive"]) == ("Everybody", 1.0, [])
    assert segment["typical"]
    table = pq.read_table(tmp_path / "out" / "profiles.parquet")
    assert not any(table["distinctive"].to_pylist())
    assert table["rest_people"].null_count == table["lift"].null_count == table.num_rows
