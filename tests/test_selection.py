"""Whether there are segments, and how many: what is planted is found, and nothing else."""

import json
import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse as sp

from benchmarks.segments import nulls
from benchmarks.segments.designs import Audience, Design, draw
from spark_jobs import outputs, select_k
from spark_jobs.clusters import points, published, scores, selection
from spark_jobs.clusters.in_memory import learn_and_place
from spark_jobs.clusters.selection import ENOUGH_EVIDENCE, ENOUGH_PEOPLE, Selection
from spark_jobs.config import DEFAULT_SCALING, FIT_MIN_ACTIONS, KMeansConfig, KSelectionConfig, parse_scaling
from spark_jobs.errors import InputError
from spark_jobs.vectors.clustering_inputs import read_metadata
from spark_jobs.vectors.scaling import scale
from tests.conftest import Engine

QUICK = KSelectionConfig(k_max=4, n_init=2)
PEOPLE = 400


class Profiles(NamedTuple):
    """Profiles (n, d), their users, and those to learn from."""

    profiles: sp.csr_matrix
    fit_weight: np.ndarray
    weight: np.ndarray


def profiles_of(counts: sp.csr_matrix | np.ndarray, scaling: str = DEFAULT_SCALING) -> Profiles:
    """The profiles of people, given their actions on each page (n, d)."""
    dense = np.asarray(sp.csr_matrix(counts, dtype=float).toarray())
    distinct, weight = np.unique(dense, axis=0, return_counts=True)
    profiles, _ = scale(sp.csr_matrix(distinct), weight, parse_scaling(scaling))
    return Profiles(profiles, np.where(distinct.sum(axis=1) >= FIT_MIN_ACTIONS, weight, 0), weight)


def select(people: Profiles, config: KSelectionConfig = QUICK, **options: Any) -> Selection:
    found = selection.select(*people, int(people.weight.sum()), config, **options)
    json.dumps(found.tried, allow_nan=False)  # every score is a number, or None
    return found


@cache
def planted(k: int, people: int = PEOPLE, **facts: Any) -> Audience:
    """An audience of k segments of the same size, or of none, if k is 1."""
    shares = (1 / k,) * k if k > 1 else ()
    return draw(Design("planted", people, shares, **{"own": 6, "common": 8, "focus": 0.7, **facts}), 0)


# --- what is found


@pytest.mark.parametrize("activity", ["poisson", "pareto"])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_planted_segments_are_found_and_counted_exactly(k: int, activity: str) -> None:
    found = select(profiles_of(planted(k, activity=activity).counts), KSelectionConfig(k_max=6, n_init=3))
    assert (found.verdict, found.k) == ("segments", k)
    assert found.evidence is not None
    assert found.evidence >= ENOUGH_EVIDENCE
    assert found.why.startswith(f"{k} segments: ")


@pytest.mark.parametrize(
    "facts", [{}, {"activity": "pareto"}, {"bursts": 0.15}, {"activity": "pareto", "loud": 0.02}, {"dominant": 0.5}]
)
def test_an_audience_without_structure_has_no_segments(facts: dict[str, Any]) -> None:
    found = select(profiles_of(planted(1, **facts).counts))
    assert (found.verdict, found.k) == ("none", 1)
    assert found.why.startswith("No segments: ")


@pytest.mark.parametrize("activity", ["poisson", "pareto"])
def test_segments_are_gone_once_their_pages_are_shuffled(activity: str) -> None:
    counts = planted(3, activity=activity).counts
    assert select(profiles_of(counts)).verdict == "segments"
    assert select(profiles_of(nulls.shuffled(counts, 0))).verdict == "none"


def test_false_alarms_are_rare() -> None:
    config = KSelectionConfig(k_max=3, n_init=1)
    audiences = [draw(Design("none", 120, activity="pareto", bursts=0.1), seed) for seed in range(6)]
    assert [select(profiles_of(audience.counts), config).verdict for audience in audiences].count("segments") == 0


@pytest.mark.parametrize("scaling", sorted({DEFAULT_SCALING, "log1p,l2", "log1p,idf,l2", "l2"}))
@pytest.mark.parametrize("count", [10**12, 10**15])
def test_one_loud_person_changes_neither_verdict_nor_k(scaling: str, count: int) -> None:
    counts = planted(3, 250).counts.toarray()
    before = select(profiles_of(counts, scaling))
    assert (before.verdict, before.k) == ("segments", 3)
    counts[7, np.flatnonzero(counts[7])[0]] = count
    after = select(profiles_of(counts, scaling))
    assert (after.verdict, after.k) == ("segments", 3)


# --- who is too few


def test_fewer_people_than_it_takes_are_too_few_and_nothing_is_tried() -> None:
    config = KSelectionConfig(k_max=2, n_init=1)
    active = planted(2).counts[planted(2).actions >= FIT_MIN_ACTIONS].toarray()
    few, enough = (profiles_of(active[:people]) for people in (ENOUGH_PEOPLE - 1, ENOUGH_PEOPLE))
    found = select(few, config)
    assert (found.verdict, found.k, found.tried, found.evidence) == ("too_few", 1, [], None)
    assert found.why == (
        f"Too few people to tell: {ENOUGH_PEOPLE - 1} have {FIT_MIN_ACTIONS} actions or more on these pages, and"
        f" {ENOUGH_PEOPLE} are needed."
    )
    assert select(enough, config).verdict != "too_few"


def test_people_who_did_little_do_not_make_too_few_enough() -> None:
    active = planted(2).counts[planted(2).actions >= FIT_MIN_ACTIONS].toarray()[: ENOUGH_PEOPLE - 1]
    little = np.eye(active.shape[1])[np.arange(300) % active.shape[1]]
    assert select(profiles_of(np.vstack([active, little]))).verdict == "too_few"


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        (np.zeros((0, 3)), "too_few"),  # nobody
        (np.zeros((0, 0)), "too_few"),  # and no page
        (np.array([[9, 1, 0]]), "too_few"),  # one person
        (np.full((200, 8), 30), "none"),  # who all do the same
        (np.full((200, 1), 30), "none"),  # on one page
        (np.arange(30, 230)[:, None], "none"),  # the same page, in different amounts
        (np.random.default_rng(0).poisson(5, (200, 3)) + 10, "none"),  # too few pages to split them
        (np.repeat(np.eye(8) * 30, 30, axis=0), "none"),  # everybody on one page, so none says anything of another
    ],
)
@pytest.mark.parametrize("scaling", [DEFAULT_SCALING, "none", "max"])
def test_any_input_has_a_verdict_and_without_segments_k_is_1(counts: np.ndarray, verdict: str, scaling: str) -> None:
    found = select(profiles_of(counts, scaling), KSelectionConfig(k_max=4, n_init=1))
    assert (found.verdict, found.k) == (verdict, 1)


def test_people_whose_actions_weigh_nothing_make_no_segments() -> None:
    nothing = Profiles(sp.csr_matrix((1, 5)), np.array([300]), np.array([300]))
    assert select(nothing).verdict == "none"


def test_a_reason_that_names_the_evidence_agrees_with_it() -> None:
    """Everybody is on one page only: the test may say there is something, and the prediction says there is not."""
    found = select(profiles_of(np.repeat(np.eye(8) * 30, 100, axis=0)), KSelectionConfig(k_max=8, n_init=1))
    assert found.verdict == "none"
    assert found.evidence is None or found.evidence < ENOUGH_EVIDENCE or "are needed" not in found.why


# --- how large segments are


@pytest.mark.parametrize("criterion", ["prediction", "silhouette", "calinski_harabasz", "elbow"])
@pytest.mark.parametrize("at_least", [1, 10, 60, 170, 400])
def test_no_segment_that_is_chosen_is_too_small(at_least: int, criterion: str) -> None:
    people = profiles_of(draw(Design("unequal", 500, (0.5, 0.34, 0.13, 0.03), own=6, focus=0.7), 0).counts)
    config = QUICK.model_copy(update={"min_segment": at_least, "min_segment_share": 0, "criterion": criterion})
    found = select(people, config)
    assert found.k == 1 or min(users_of(people, found.k, config)) >= at_least
    if at_least == 400:
        assert found.verdict == "none"
        assert found.why == "No segments: with any number of them, one has fewer than 400 people."


def users_of(people: Profiles, k: int, config: KSelectionConfig) -> list[int]:
    """How many people are in each of the clusters that k-means makes of it."""
    same = KMeansConfig(n_init=config.n_init, seed=config.seed)
    _, model = learn_and_place(people.profiles, people.weight, people.fit_weight, k, same)
    users: list[int] = model.users.tolist()
    return users


@pytest.mark.parametrize(("share", "smallest"), [(0.02, 8), (0.1, 40), (0.31, 124)])
def test_a_share_of_the_people_counts_as_well(share: float, smallest: int) -> None:
    people = profiles_of(planted(3).counts)
    config = QUICK.model_copy(update={"min_segment": 1, "min_segment_share": share})
    found = select(people, config)
    assert found.k == 1 or min(users_of(people, found.k, config)) >= smallest


def test_sizes_are_of_everybody_and_not_of_those_learned_from_alone() -> None:
    people = profiles_of(planted(3, activity="pareto").counts)
    assert people.fit_weight.sum() < 0.8 * people.weight.sum()
    found = select(people)
    assert found.tried[0]["smallest_segment"] == people.weight.sum()
    assert found.tried[2]["smallest_segment"] == min(users_of(people, 3, QUICK))


def test_of_a_sample_sizes_are_scaled_up_to_all_people() -> None:
    people = profiles_of(planted(3).counts)
    found = selection.select(*people, 100 * int(people.weight.sum()), QUICK)
    assert found.tried[2]["smallest_segment"] == 100 * min(users_of(people, 3, QUICK))


def test_a_segment_of_whom_nobody_was_drawn_is_too_small() -> None:
    """People to learn from and people to place are drawn apart; a tiny cluster may have none of the second."""
    audience = draw(Design("tiny", 600, (0.45, 0.45, 0.1), own=6, focus=0.7), 0)
    people = profiles_of(audience.counts)
    of_third = np.array([np.argmax(row) for row in _pages_of_segments(people, 3)]) == 2
    drawn = people._replace(weight=np.where(of_third, 0, people.weight))
    found = select(drawn, QUICK.model_copy(update={"min_segment_share": 0}))
    assert found.k != 3
    assert all(row["smallest_segment"] == 0 for row in found.tried if row["k"] == 3)


def _pages_of_segments(people: Profiles, k: int) -> np.ndarray:
    """(n, k): what each profile has on the own pages of each segment, of which the last have six each."""
    own = people.profiles[:, -6 * k :].toarray()
    return np.asarray(own.reshape(len(own), k, 6).sum(axis=2))


# --- the number of segments


@pytest.mark.parametrize("criterion", ["silhouette", "calinski_harabasz", "elbow"])
def test_another_criterion_chooses_among_those_that_are_large_enough(criterion: str) -> None:
    config = QUICK.model_copy(update={"criterion": criterion})
    found = select(profiles_of(planted(3).counts), config)
    assert (found.verdict, found.k) == ("segments", 3)
    large_enough = [row for row in found.tried if row["k"] > 1 and row["smallest_segment"] >= 10]
    assert found.k == scores.choose_k(large_enough, criterion)
    assert f"by {criterion}" in found.why


def test_no_criterion_finds_segments_where_there_are_none() -> None:
    for criterion in ("silhouette", "calinski_harabasz", "elbow"):
        config = KSelectionConfig(k_max=4, n_init=1, criterion=criterion)
        assert select(profiles_of(planted(1).counts), config).verdict == "none"


@pytest.mark.parametrize("k_max", [1, 2, 4])
def test_every_k_up_to_the_largest_is_tried_and_reported(k_max: int) -> None:
    rows: list[dict[str, Any]] = []
    found = select(profiles_of(planted(5).counts), KSelectionConfig(k_max=k_max, n_init=1), progress=rows.append)
    assert [row["k"] for row in rows] == list(range(1, k_max + 1))
    assert rows == found.tried
    assert found.k <= k_max


def test_no_more_clusters_are_tried_than_there_are_distinct_profiles() -> None:
    counts = np.repeat(np.vstack([np.eye(4), np.ones((1, 4))]) * 30, 40, axis=0)
    assert [row["k"] for row in select(profiles_of(counts), KSelectionConfig(n_init=1)).tried] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("people", "largest"), [(59, 5), (60, 6)])
def test_a_k_is_tried_if_there_are_ten_active_people_a_segment(people: int, largest: int) -> None:
    counts = np.asarray(planted(3, people).counts.toarray()) * FIT_MIN_ACTIONS  # everybody is active
    assert select(profiles_of(counts), KSelectionConfig(n_init=1)).tried[-1]["k"] == largest


def test_clusters_predict_more_than_popularity_and_one_cluster_predicts_nothing() -> None:
    found = select(profiles_of(planted(3).counts))
    prediction = {row["k"]: row["prediction"] for row in found.tried}
    assert prediction[1] == pytest.approx(0, abs=0.01)
    assert prediction[3] == max(prediction.values()) > 0.1


def test_a_smaller_k_that_is_about_as_good_is_taken() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.5, 400)
    predicted = [np.zeros(400), np.full(400, 0.4), 1 + noise, 1.001 + noise, 0.9 + noise]
    assert selection._smallest_as_good([2, 3, 4, 5], predicted) == 3
    assert selection._smallest_as_good([2, 4, 5], predicted) == 4
    assert selection._smallest_as_good([2], predicted) == 2


# --- its parts


def test_the_mean_in_standard_errors() -> None:
    assert selection.standard_errors(np.full(9, 3.0)) == 0
    assert selection.standard_errors(np.array([0.0, 2.0] * 50)) == pytest.approx(10)
    assert selection.standard_errors(np.array([0.0, -2.0] * 50)) == pytest.approx(-10)


def test_a_stranger_is_another_person_of_the_same_stratum() -> None:
    random = np.random.default_rng(0)
    stratum = np.array([0, 1, 0, 2, 1, 0, 1, 1, 0])
    for _ in range(20):
        stranger = selection._stranger_in(stratum, random)
        np.testing.assert_array_equal(stratum[stranger], stratum)
        assert sorted(stranger) == list(range(9))
        assert [person for person in range(9) if stranger[person] == person] == [3]  # who is alone in theirs


def test_a_split_has_every_page_in_one_half_and_every_person_in_one_fold() -> None:
    people = planted(3).counts
    for split in selection.splits(people, 0):
        assert sum(half.mix.shape[1] for half in split.halves) == people.shape[1]
        assert len(np.unique(split.held_out)) == len(split.held_out) == PEOPLE - split.learned.shape[0]
        assert abs(len(split.held_out) - split.learned.shape[0]) <= 1
        for half in split.halves:  # each has about as much that is popular
            assert half.mix.shape[1] == people.shape[1] // 2
            total = np.asarray(half.mix.sum(axis=1)).ravel()
            assert ((total == 0) | np.isclose(total, 1)).all()


# --- always the same


def test_the_number_of_cores_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "BLOCK", 64)  # or there would be one block, and one thread
    people = profiles_of(planted(3).counts)
    assert select(people, cores=1) == select(people, cores=3)


def test_the_same_people_and_seed_give_the_same_answer() -> None:
    people = profiles_of(planted(3).counts)
    assert select(people) == select(people)
    other = select(people, QUICK.model_copy(update={"seed": 1}))
    assert (other.verdict, other.k) == ("segments", 3)
    assert other.evidence != select(people).evidence


# --- the job

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def made(local: Engine, tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Make clustering inputs of people, given their actions on each page, written in an order; where they are."""

    def make(counts: sp.csr_matrix, order: np.ndarray | None = None) -> Path:
        place = tmp_path_factory.mktemp("made")
        rows = [
            {"user_id": f"u{user:05}", "page_like": dict(zip(map(str, row.indices), map(int, row.data), strict=True))}
            for user, row in enumerate(counts)
        ]
        rows = [rows[user] for user in (range(len(rows)) if order is None else order)]
        (place / "users.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        pages = [{"id": str(page), "name": f"page {page}"} for page in range(counts.shape[1])]
        (place / "c.json").write_text(json.dumps({"id": 1, "facebook": pages}))
        local.run("make_clustering_inputs", place / "users.jsonl", place / "in", "--category", place / "c.json")
        return place / "in"

    return make


OPTIONS = ("--k-max", 4, "--n-init", 2)


def test_the_job_gives_verdict_number_and_reason_and_k_means_takes_them(
    made: Write, local: Engine, tmp_path: Path
) -> None:
    place = made(planted(3).counts)
    said = local.run("select_k", place, tmp_path / "k", *OPTIONS)
    choice = json.loads((tmp_path / "k" / "k.json").read_text())
    assert (choice["verdict"], choice["k"], choice["criterion"]) == ("segments", 3, "prediction")
    assert choice["why"] in said.stderr
    assert choice["people"] == choice["people_judged"] == (planted(3).actions >= FIT_MIN_ACTIONS).sum()
    assert choice["evidence"] > choice["evidence_needed"] == ENOUGH_EVIDENCE
    assert 0 < choice["false_alarm_rate"] <= 0.05
    manifest = outputs.read_manifest(str(tmp_path / "k"), "k_selection")
    assert all(check["passed"] for check in manifest["checks"].values())
    assert {name: manifest["summary"][name] for name in choice} == choice

    local.run("kmeans", place, tmp_path / "out", "--k-selection", tmp_path / "k", "--n-init", 2)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["k"], summary["verdict"]) == (3, "segments")
    assert [row["solidity"] for row in summary["solidity"]] == ["solid"] * 3
    smallest = json.loads((tmp_path / "out" / "meta-data.json").read_text().splitlines()[-1])["cluster_member_count"]
    assert smallest == choice["tried"][2]["smallest_segment"]


def test_order_of_rows_cores_and_engine_change_no_byte(made: Write, local: Engine, tmp_path: Path) -> None:
    counts = planted(2, 200).counts
    first, shuffled = made(counts), made(counts, np.random.default_rng(0).permutation(counts.shape[0]))
    options = ("--k-max", 3, "--n-init", 2)
    local.run("select_k", first, tmp_path / "a", *options, "--cores", 1)
    local.run("select_k", first, tmp_path / "b", *options, "--cores", 2)
    local.run("select_k", shuffled, tmp_path / "c", *options)
    Engine("local").run("select_k", first, tmp_path / "d", *options)
    assert len({(tmp_path / name / "k.json").read_bytes() for name in "abcd"}) == 1
    for place in (first, shuffled):
        local.run("kmeans", place, place.parent / "out", "--k", 2)
    for name in ("data.json", "meta-data.json", "assignments.parquet", "centers.parquet", "summary.json"):
        assert (first.parent / "out" / name).read_bytes() == (shuffled.parent / "out" / name).read_bytes(), name


def test_many_people_are_judged_on_a_sample_and_the_output_says_so(made: Write, local: Engine, tmp_path: Path) -> None:
    place = made(planted(3, 900).counts)
    few = {"LEARN": 300, "PLACE": 400}
    said = local.run("select_k", place, tmp_path / "k", *OPTIONS, patch=few)
    choice = json.loads((tmp_path / "k" / "k.json").read_text())
    everybody = int((planted(3, 900).actions >= FIT_MIN_ACTIONS).sum())
    assert (choice["verdict"], choice["k"]) == ("segments", 3)
    assert (choice["people"], choice["people_judged"]) == (everybody, 300)
    assert f"judged on 300 of {published.in_words(everybody)} people" in said.stderr
    assert choice["tried"][0]["smallest_segment"] == 900
    assert choice["tried"][2]["smallest_segment"] == pytest.approx(300, abs=60)
    local.run("select_k", place, tmp_path / "again", *OPTIONS, patch=few)
    assert (tmp_path / "k" / "k.json").read_bytes() == (tmp_path / "again" / "k.json").read_bytes()


def test_too_few_people_are_reported_and_k_means_makes_one_cluster(made: Write, local: Engine, tmp_path: Path) -> None:
    place = made(planted(2).counts[:20])
    said = local.run("select_k", place, tmp_path / "k")
    assert "Too few people to tell" in said.stderr
    local.run("kmeans", place, tmp_path / "out", "--k-selection", tmp_path / "k")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["k"], summary["verdict"]) == (1, "too_few")


def test_a_choice_of_code_version_2_is_read_as_segments(made: Write, local: Engine, tmp_path: Path) -> None:
    place = made(planted(2).counts[:80])
    local.run("select_k", place, tmp_path / "k", "--k-max", 2, "--n-init", 1)
    manifest = json.loads((tmp_path / "k" / "manifest.json").read_text())
    for name in ("verdict", "why", "evidence", "evidence_needed", "false_alarm_rate", "people", "people_judged"):
        del manifest["summary"][name]
    manifest["summary"]["k"], manifest["code_version"] = 2, "2"
    (tmp_path / "k" / "manifest.json").write_text(json.dumps(manifest))
    inputs = read_metadata(str(place), strict=True)
    assert select_k.read_choice(str(tmp_path / "k"), inputs) == (2, "segments", manifest["fingerprint"])
    local.run("kmeans", place, tmp_path / "out", "--k-selection", tmp_path / "k")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["k"], summary["requested_k"], summary["verdict"]) == (2, 2, "segments")


def test_smallest_shares_round_up() -> None:
    """2 % of 501 people are 11, not 10."""
    people = profiles_of(planted(2, 501).counts)
    assert people.weight.sum() == 501
    too_many = KSelectionConfig(k_max=2, n_init=1, min_segment_share=0.5)
    found = select(people, too_many)
    assert found.tried[1]["smallest_segment"] < math.ceil(250.5)
    assert "fewer than 251 people" in found.why


def test_k_means_refuses_a_k_that_was_chosen_for_other_inputs(made: Write, local: Engine, tmp_path: Path) -> None:
    one, other = (made(planted(2).counts[:people]) for people in (20, 21))
    local.run("select_k", one, tmp_path / "k")
    says = f"The k in {tmp_path / 'k'} was chosen for other clustering inputs than {other}"
    with pytest.raises(InputError, match=re.escape(says)):
        local.run("kmeans", other, tmp_path / "out", "--k-selection", tmp_path / "k")
    assert not (tmp_path / "out").exists(), "nothing is begun"
    local.run("kmeans", other, tmp_path / "out", "--k-selection", tmp_path / "k", "--k", 2)
