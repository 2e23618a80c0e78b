"""Reading clustering inputs: who is learned from, samples, and outputs that an older code version made."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from spark_jobs import outputs
from spark_jobs.config import ACTIONS, FIT_MIN_ACTIONS
from spark_jobs.vectors import clustering_inputs
from tests.conftest import Engine
from tests.published_segments import list_again


@pytest.fixture
def made(tmp_path: Path, local: Engine, write_category: Callable[..., Path]) -> Path:
    """Clustering inputs of six users with two profiles."""
    enough = FIT_MIN_ACTIONS
    counts = {"a": {"p": 1}, "b": {"p": enough}, "c": {"p": 39}, "d": {"q": 2}, "e": {"q": enough - 1}, "f": {"p": 40}}
    rows = [{"user_id": user, "page_like": pages} for user, pages in counts.items()]
    (tmp_path / "users.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    category = write_category("x", "p", "q")
    local.run("make_clustering_inputs", tmp_path / "users.jsonl", tmp_path / "in", "--category", category)
    return tmp_path / "in"


def read(folder: Path) -> clustering_inputs.Inputs:
    return clustering_inputs.read(clustering_inputs.read_metadata(str(folder), strict=True), strict=True)


def as_of_version_1(folder: Path) -> None:
    """Make the output one of the code version that knew nothing of actions."""
    as_of_version_2(folder)
    _without(folder, {"profiles": ["fit_weight"], "members": ["actions"]}, ["fit_min_actions", "fit_users"], "1")


def as_of_version_2(folder: Path) -> None:
    """Make the output one of the code version that did not count each action."""
    _without(folder, {"members": list(ACTIONS)}, ["actions"], "2")


def _without(folder: Path, columns: dict[str, list[str]], facts: list[str], version: str) -> None:
    for name, dropped in columns.items():
        table = pq.read_table(folder / f"{name}.parquet").drop_columns(dropped)
        pq.write_table(table, folder / f"{name}.parquet")
    manifest = json.loads((folder / "manifest.json").read_text())
    for fact in facts:
        del manifest["summary"][fact]
    (folder / "manifest.json").write_text(json.dumps({**manifest, "code_version": version}))
    list_again(folder)


def test_the_fit_weight_is_of_those_with_so_many_actions(made: Path) -> None:
    inputs = read(made)
    assert inputs.weight.tolist() == [4, 2]
    assert inputs.fit_weight.tolist() == [3, 0]
    summary = outputs.read_manifest(str(made), "clustering_inputs")["summary"]
    assert (summary["fit_min_actions"], summary["fit_users"]) == (FIT_MIN_ACTIONS, 3)


def test_the_summary_has_how_often_each_action_was_done(made: Path) -> None:
    summary = outputs.read_manifest(str(made), "clustering_inputs")["summary"]
    assert summary["actions"] == {**dict.fromkeys(ACTIONS, 0), "page_like": 1 + 8 + 39 + 2 + 7 + 40}


@pytest.mark.parametrize(
    ("at_least", "expected"),
    [
        (0, [4, 2]),
        (1, [4, 2]),
        (2, [3, 2]),
        (FIT_MIN_ACTIONS - 1, [3, 1]),
        (FIT_MIN_ACTIONS, [3, 0]),
        (FIT_MIN_ACTIONS + 1, [2, 0]),
        (40, [1, 0]),
        (41, [0, 0]),
    ],
)
def test_another_least_number_is_counted_from_the_members(made: Path, at_least: int, expected: list[int]) -> None:
    found = clustering_inputs.fit_weight(read(made), at_least)
    assert found.dtype == np.int64
    assert found.tolist() == expected


def test_inputs_of_code_version_1_are_read_and_everybody_is_learned_from(made: Path, local: Engine) -> None:
    as_of_version_1(made)
    inputs = read(made)
    for at_least in (1, FIT_MIN_ACTIONS, 40):
        assert clustering_inputs.fit_weight(inputs, at_least).tolist() == inputs.weight.tolist() == [4, 2]
        drawn = sample(made, at_least)
        assert (drawn.fit_people, drawn.whole) == (6, True)
        assert drawn.fit_weight.tolist() == drawn.weight.tolist() == [4, 2]
    local.run("kmeans", made, made.parent / "out", "--k", 2)
    summary = json.loads((made.parent / "out" / "summary.json").read_text())
    assert (summary["k"], summary["learned_from"]) == (2, {"users": None, "min_actions": 0, "wssse": 0.0})
    local.run("select_k", made, made.parent / "k")
    assert json.loads((made.parent / "k" / "k.json").read_text())["people"] == 6


def test_of_inputs_of_code_version_2_the_mix_of_actions_is_left_out_and_that_is_said(
    made: Path, engine: Engine, tmp_path: Path
) -> None:
    as_of_version_2(made)
    said = engine.run("kmeans", made, tmp_path / "out", "--k", 2, "--strict-schema", "true")
    assert "the mix of actions is left out: an older version made these clustering inputs" in said.stderr
    summary = json.loads((tmp_path / "out" / "manifest.json").read_text())["summary"]
    assert (summary["learned_from"]["users"], summary["actions"]) == (6, None)
    assert [segment["actions"] for segment in summary["segments"]] == [None, None]


@pytest.mark.spark
@pytest.mark.parametrize("as_of", [as_of_version_1, as_of_version_2])
def test_mllib_reads_inputs_that_do_not_count_each_action(
    made: Path, spark: Engine, as_of: Callable[[Path], None]
) -> None:
    as_of(made)
    said = spark.run("kmeans", made, made.parent / "out", "--library", "mllib", "--k", 2)
    assert "the mix of actions is left out" in said.stderr
    assert json.loads((made.parent / "out" / "summary.json").read_text())["actions"] is None


@pytest.mark.spark
def test_the_cluster_reads_inputs_of_code_version_1(made: Path, spark: Engine) -> None:
    as_of_version_1(made)
    spark.run("kmeans", made, made.parent / "out", "--library", "mllib", "--k", 2, "--strict-schema", "true")
    summary = json.loads((made.parent / "out" / "summary.json").read_text())
    assert (summary["k"], summary["learned_from"]) == (2, {"users": None, "min_actions": 0, "wssse": 0.0})


# --- a sample


def sample(folder: Path, at_least: int, learn: int = 100, place: int = 100, seed: int = 0) -> clustering_inputs.Sample:
    head = clustering_inputs.read_metadata(str(folder), strict=True)
    return clustering_inputs.sample(head, at_least, learn, place, seed, strict=True)


@pytest.mark.parametrize("at_least", [0, 1, 2, FIT_MIN_ACTIONS, 40, 41])
def test_where_all_people_fit_the_sample_is_whole(made: Path, at_least: int) -> None:
    drawn, inputs = sample(made, at_least, learn=6, place=6), read(made)
    assert drawn.whole
    kept = clustering_inputs.fit_weight(inputs, at_least)
    assert (drawn.fit_weight.tolist(), drawn.weight.tolist()) == (kept.tolist(), inputs.weight.tolist())
    assert drawn.fit_people == kept.sum()
    assert (drawn.profiles != inputs.profiles).nnz == 0


@pytest.mark.parametrize("at_least", [0, 1, 2, FIT_MIN_ACTIONS, 40])
def test_a_smaller_sample_has_as_many_people_as_asked_for(made: Path, at_least: int) -> None:
    there = int(clustering_inputs.fit_weight(read(made), at_least).sum())
    drawn = sample(made, at_least, learn=2, place=3)
    assert not drawn.whole
    assert (drawn.fit_weight.sum(), drawn.weight.sum(), drawn.fit_people) == (min(2, there), 3, there)


Batch = tuple[sp.csr_matrix, np.ndarray, np.ndarray]


def people(profiles: int, batches: int = 1, seed: int = 0) -> list[Batch]:
    """Profiles with some users each, of whom some are active, in batches."""
    random = np.random.default_rng(seed)
    matrix, weight = sp.csr_matrix(np.arange(1.0, profiles + 1)[:, None]), random.integers(1, 9, profiles)
    active = random.binomial(weight, 0.4)
    cuts = np.linspace(0, profiles, batches + 1).astype(int)
    parts = [slice(start, end) for start, end in itertools.pairwise(cuts)]
    return [(matrix[part], weight[part], active[part]) for part in parts]


def draw(batches: list[Batch], learn: int, place: int, seed: int = 0) -> clustering_inputs.Sample:
    users, active = (sum(int(batch[column].sum()) for batch in batches) for column in (1, 2))
    return clustering_inputs.draw(batches, 1, users, active, learn, place, seed)


def as_lists(drawn: clustering_inputs.Sample) -> list[list[float]]:
    return [drawn.profiles.toarray()[:, 0].tolist(), drawn.fit_weight.tolist(), drawn.weight.tolist()]


def test_a_sample_is_of_bounded_size_and_takes_nobody_twice() -> None:
    (matrix, weight, active), *_ = batches = people(1000)
    drawn = draw(batches, learn=100, place=200)
    assert (drawn.fit_weight.sum(), drawn.weight.sum(), drawn.whole) == (100, 200, False)
    assert drawn.profiles.shape[0] <= 300
    assert ((drawn.fit_weight > 0) | (drawn.weight > 0)).all()
    profile = drawn.profiles.toarray()[:, 0].astype(int) - 1
    assert (np.diff(profile) > 0).all()
    assert (drawn.fit_weight <= active[profile]).all()
    assert (drawn.weight <= weight[profile]).all()
    assert matrix.shape[0] == 1000


@pytest.mark.parametrize("batches", [2, 7, 1000])
def test_the_same_people_are_drawn_whatever_the_batches(batches: int) -> None:
    assert as_lists(draw(people(1000, batches), 100, 200)) == as_lists(draw(people(1000), 100, 200))


def test_the_seed_decides_who_is_drawn() -> None:
    assert as_lists(draw(people(1000), 100, 200)) == as_lists(draw(people(1000), 100, 200))
    assert as_lists(draw(people(1000), 100, 200)) != as_lists(draw(people(1000), 100, 200, seed=1))


def test_everybody_has_the_same_chance_to_be_drawn() -> None:
    ((_, weight, active),) = batches = people(40)
    learned, placed = np.zeros(40), np.zeros(40)
    for seed in range(400):
        drawn = draw(batches, 20, 50, seed)
        profile = drawn.profiles.toarray()[:, 0].astype(int) - 1
        learned[profile] += drawn.fit_weight
        placed[profile] += drawn.weight
    for found, there, size in ((learned, active, 20), (placed, weight, 50)):
        expected = 400 * size * there / there.sum()
        assert (np.abs(found - expected) <= 5 * np.sqrt(expected)).all()


def test_of_nobody_nobody_is_drawn() -> None:
    drawn = draw([], 100, 100)
    assert (drawn.profiles.shape, drawn.fit_people, drawn.whole) == ((0, 1), 0, True)
