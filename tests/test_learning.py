"""Clusters are learned from those who did enough, and everybody is placed in the nearest one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from spark_jobs.clusters import published
from spark_jobs.clusters.in_memory import learn_and_place
from spark_jobs.config import FIT_MIN_ACTIONS, KMeansConfig
from spark_jobs.vectors.clustering_inputs import enough_to_learn
from tests.conftest import Engine
from tests.golden import read_json_lines

ACTIVE = FIT_MIN_ACTIONS + 2


@pytest.mark.parametrize(
    ("people", "profiles", "k", "enough"),
    [(20, 2, 2, True), (19, 19, 2, False), (20, 1, 2, False), (10, 1, 1, True), (9, 9, 1, False), (0, 0, 0, True)],
)
def test_ten_people_a_cluster_are_enough_to_learn_from(people: int, profiles: int, k: int, enough: bool) -> None:
    assert enough_to_learn(people, profiles, k) is enough


def test_those_who_did_little_move_no_center_and_are_counted() -> None:
    random = np.random.default_rng(0)
    profiles = sp.csr_matrix(np.unique(random.poisson(3, (200, 4)), axis=0).astype(float))
    fit_weight = random.integers(0, 3, profiles.shape[0])
    few, many = fit_weight + 1, fit_weight + random.integers(1, 50, profiles.shape[0])
    models = [learn_and_place(profiles, weight, fit_weight, 4, KMeansConfig(n_init=3)) for weight in (few, many)]
    assert [model.users.sum() for _, model in models] == [few.sum(), many.sum()]
    centers = [sorted(map(tuple, placed.centers)) for _, placed in models]
    assert centers[0] == centers[1] == sorted(map(tuple, models[0][0].centers))
    assert models[0][0].users.sum() == models[1][0].users.sum() == fit_weight.sum()


# --- the job

Write = Callable[[dict[str, dict[str, int]]], Path]


@pytest.fixture
def made(tmp_path: Path, local: Engine, write_category: Callable[..., Path]) -> Write:
    """Make unscaled clustering inputs of what users did on the pages p and q; where they are."""

    def make(users: dict[str, dict[str, int]]) -> Path:
        rows = [{"user_id": user, "page_like": pages} for user, pages in users.items()]
        (tmp_path / "users.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        options = ("--category", write_category("x", "p", "q"), "--scaling", "none")
        local.run("make_clustering_inputs", tmp_path / "users.jsonl", tmp_path / "in", *options)
        return tmp_path / "in"

    return make


def tastes(people: int) -> dict[str, dict[str, int]]:
    """So many active users on each of two pages."""
    return {f"{page}{user:02}": {page: ACTIVE} for page in "pq" for user in range(people)}


def result(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]], list[list[float]]]:
    """The summary, the row of each user, and the centers."""
    rows = pq.read_table(folder / "assignments.parquet").to_pylist()
    centers = pq.read_table(folder / "centers.parquet")["center"].to_pylist()
    return json.loads((folder / "summary.json").read_text()), {row["user_id"]: row for row in rows}, centers


def test_everybody_is_in_the_nearest_cluster_and_the_active_make_them(
    made: Write, local: Engine, tmp_path: Path
) -> None:
    little = {f"z{user}": {"p": 1, "q": 3} for user in range(50)} | {"one": {"p": 1}, "both": {"p": 2, "q": 2}}
    local.run("kmeans", made({**tastes(10), **little}), tmp_path / "out", "--k", 2)
    summary, of, centers = result(tmp_path / "out")
    assert summary["learned_from"] == {"users": 20, "min_actions": FIT_MIN_ACTIONS, "wssse": 0.0}
    assert sorted(centers) == [[0, ACTIVE], [ACTIVE, 0]]
    assert len(of) == 72
    assert sum(row["cluster_member_count"] for row in read_json_lines(tmp_path / "out" / "meta-data.json")) == 72
    assert of["p00"]["confidence"] == of["q00"]["confidence"] == 1
    assert of["both"]["confidence"] == pytest.approx(0)
    near, far = np.hypot(ACTIVE - 1, 0), np.hypot(1, ACTIVE)
    assert of["one"]["cluster_id"] == of["p00"]["cluster_id"] != of["z0"]["cluster_id"] == of["q00"]["cluster_id"]
    assert of["one"]["distance"] == pytest.approx(near)
    assert of["one"]["confidence"] == pytest.approx(1 - near / far)
    assert summary["wssse"] == pytest.approx(sum(row["distance"] ** 2 for row in of.values()))
    assert [row["solidity"] for row in summary["solidity"]] == ["solid", "solid"]


def test_with_too_few_active_users_it_is_learned_from_all_and_says_so(
    made: Write, local: Engine, tmp_path: Path
) -> None:
    little = {f"z{user}": {"q": 1} for user in range(3)}
    said = local.run("kmeans", made({**tastes(9), **little}), tmp_path / "out", "--k", 2)
    summary, of, _ = result(tmp_path / "out")
    assert (summary["learned_from"]["users"], summary["learned_from"]["min_actions"]) == (20, 0)
    # Here and in summary.json, people are rounded.
    assert f"learned from all users: 20 have {FIT_MIN_ACTIONS} actions or more, too few for 2 clusters" in said.stderr
    assert len(of) == 21


@pytest.mark.parametrize("at_least", [1, ACTIVE, ACTIVE + 1])
def test_who_is_learned_from_is_an_option(made: Write, local: Engine, tmp_path: Path, at_least: int) -> None:
    more = {f"z{user:02}": {"p": 30, "q": 30} for user in range(20)} | {f"y{user}": {"p": 1} for user in range(5)}
    local.run("kmeans", made({**tastes(15), **more}), tmp_path / "out", "--k", 1, "--fit-min-actions", at_least)
    summary, _, centers = result(tmp_path / "out")
    users = {1: 55, ACTIVE: 50, ACTIVE + 1: 20}[at_least]
    assert (summary["learned_from"]["users"], summary["learned_from"]["min_actions"]) == (
        published.count(users, 10),
        at_least,
    )
    total = {1: 5, ACTIVE: 0, ACTIVE + 1: 0}[at_least] + 20 * 30 + (15 * ACTIVE if at_least <= ACTIVE else 0)
    assert centers == [pytest.approx([total / users, (total - (5 if at_least == 1 else 0)) / users])]


@pytest.mark.spark
@pytest.mark.parametrize("people", [9, 10])
def test_mllib_learns_from_the_same_users(
    made: Write, spark: Engine, local: Engine, tmp_path: Path, people: int
) -> None:
    little = {f"z{user}": {"p": 1, "q": 3} for user in range(12)}
    place = made({**tastes(people), **little})
    for at_least in (FIT_MIN_ACTIONS, 4, FIT_MIN_ACTIONS - 1):
        options = ("--k", 2, "--fit-min-actions", at_least, "--params", "kmeans||,100,0")
        local.run("kmeans", place, tmp_path / f"here{at_least}", *options)
        spark.run("kmeans", place, tmp_path / f"there{at_least}", *options, "--library", "mllib")
        here, there = (result(tmp_path / f"{name}{at_least}") for name in ("here", "there"))
        assert there[0]["learned_from"] == {
            **here[0]["learned_from"],
            "wssse": pytest.approx(here[0]["learned_from"]["wssse"]),
        }
        assert there[2] == [pytest.approx(center) for center in here[2]]
        for user, row in here[1].items():
            assert there[1][user] == {
                name: pytest.approx(value) if isinstance(value, float) else value for name, value in row.items()
            }
