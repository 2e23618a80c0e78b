"""Checks: a job reads back what it wrote and says what is wrong with it; each kind of wrong output is reported."""

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_jobs import outputs
from spark_jobs.clusters.checks import Assigned, UsersDigest, every_user_once, has_segments, k_in_range
from spark_jobs.clusters.selection import ENOUGH_PEOPLE
from spark_jobs.config import ACTIONS, FIT_MIN_ACTIONS
from spark_jobs.outputs.checks import CheckResult
from spark_jobs.users.checks import rejects_are_few_and_kept
from spark_jobs.users.counts import exact_sum
from spark_jobs.vectors import shuffle
from tests.conftest import Engine

USERS = 40

JOBS = {
    "group_by_user": ("grouped_users", {"schema", "conservation", "rejects"}),
    "make_clustering_inputs": ("clustering_inputs", {"schema", "conservation"}),
    "select_k": ("k_selection", {"schema", "k_in_range", "has_segments"}),
    "kmeans": ("kmeans", {"schema", "every_user_once", "centers_in_range", "figures_published"}),
}

CHECKED_BY = {
    "group_by_user": "check_grouped_users",
    "make_clustering_inputs": "check_clustering_inputs",
    "select_k": "check_choice",
    "kmeans": "check_clusters",
}


@pytest.fixture(scope="module")
def place(local: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A month of 40 users, one of whose rows is bad, and all that the jobs make of it."""
    place = tmp_path_factory.mktemp("checks")
    month = place / "month=2024-01"
    month.mkdir()
    rows = [
        {"user_id": f"u{n:02}", "page_id": f"p{page}", "action": ACTIONS[(n + page) % 4], "count": 1 + n % 5}
        for n in range(USERS)
        for page in range(n % 3 + 1)
    ]
    rows.append({"user_id": "x", "page_id": "p0", "action": "page_poke"})
    (month / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "c.json").write_text(json.dumps({"id": 1, "facebook": [{"id": f"p{n}", "name": "P"} for n in range(4)]}))
    for job in JOBS:
        run(local, place, job, place / job)
    return place


def run(local: Engine, place: Path, job: str, out: Path) -> dict[str, Any]:
    """Run a job on what is in `place`; the checks in the manifest."""
    arguments: dict[str, list[object]] = {
        "group_by_user": [place / "month=2024-01", out, "--max-reject-ratio", 0.05],
        "make_clustering_inputs": [place / "group_by_user", out, "--category", place / "c.json", "--scaling", "max"],
        "select_k": [place / "make_clustering_inputs", out, "--k-max", 4],
        "kmeans": [place / "make_clustering_inputs", out, "--k", 3],
    }
    local.run(job, *arguments[job])
    found: dict[str, Any] = outputs.read_manifest(str(out), JOBS[job][0])["checks"]
    return found


Change = Callable[[Path], None]


def parquet(name: str, change: Callable[[pa.Table], pa.Table]) -> Change:
    """Write a Parquet table of an output again, changed."""

    def write(folder: Path) -> None:
        table = pq.read_table(folder / name)
        assert not change(table).equals(table)
        pq.write_table(change(table), folder / name)

    return write


def text(name: str, old: str, new: str) -> Change:
    """Replace text of a file."""

    def write(folder: Path) -> None:
        before = (folder / name).read_text()
        assert old in before
        (folder / name).write_text(before.replace(old, new, 1))

    return write


def cut(name: str) -> Change:
    """Cut a file in the middle."""

    def write(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:-20])

    return write


def removed(name: str) -> Change:
    """Delete a file."""
    return lambda folder: (folder / name).unlink()


def with_column(column: str, change: Callable[[Any], Any]) -> Callable[[pa.Table], pa.Table]:
    """The table with one column's values changed."""

    def changed(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(column)
        values = change(table[column].to_pylist())
        return table.set_column(place, table.schema.field(column), pa.array(values, table.schema.field(column).type))

    return changed


def first(value: Any) -> Callable[[list[Any]], list[Any]]:
    """The values with another first one."""
    return lambda values: [value, *values[1:]]


def one_more_like(values: list[Any]) -> list[Any]:
    values[0][0]["page_like"] += 1
    return values


def likes_as_comments(values: list[Any]) -> list[Any]:
    for pages in values:
        for page in pages:
            page["page_like"], page["page_comment"] = page["page_comment"], page["page_like"]
    return values


def twice(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(0, 1), table])


def without_first(table: pa.Table) -> pa.Table:
    return table.slice(1)


PART = "users/part-00000.parquet"
ACTIVE = sum((1 + n % 5) * (n % 3 + 1) >= FIT_MIN_ACTIONS for n in range(USERS))
TOO_FEW = {
    "has_segments": f"^Too few people to tell: {ACTIVE} have {FIT_MIN_ACTIONS} actions or more on these pages, and"
    f" {ENOUGH_PEOPLE} are needed.$"
}

WRONG: list[tuple[str, Change, dict[str, str]]] = [
    # job, what is done to its files, and which checks fail, with a part of why
    ("group_by_user", parquet(PART, without_first), {"conservation": "accepted"}),
    ("group_by_user", parquet(PART, with_column("pages", one_more_like)), {"conservation": "page_like: .* accepted"}),
    (
        "group_by_user",
        parquet(PART, with_column("pages", likes_as_comments)),
        {"conservation": "page_like: .*; page_comment: "},
    ),
    ("group_by_user", removed(PART), {"conservation": "0 written"}),
    ("group_by_user", cut(PART), {"schema": r"part-00000.parquet can't be read back", "conservation": "0 written"}),
    ("group_by_user", parquet(PART, twice), {"schema": "user_id must rise", "conservation": "accepted"}),
    (
        "group_by_user",
        parquet(PART, with_column("gender", first(None))),
        {"schema": r"grouped users: column gender must have no null \(1 is not\)", "conservation": "0 written"},
    ),
    (
        "group_by_user",
        parquet(PART, lambda table: table.drop_columns(["gender"])),
        {"schema": "its columns must be user_id, gender, pages", "conservation": "0 written"},
    ),
    ("group_by_user", removed("rejects/part-00000.parquet"), {"rejects": "1 rows were rejected, and 0 are in"}),
    (
        "group_by_user",
        parquet("rejects/part-00000.parquet", with_column("line", first(0))),
        {"schema": "column line must be at least 1"},
    ),
    ("make_clustering_inputs", parquet("members.parquet", without_first), {"conservation": "39 are members"}),
    (
        "make_clustering_inputs",
        parquet("members.parquet", twice),
        {"schema": "user_id must rise", "conservation": "41 are members"},
    ),
    (
        "make_clustering_inputs",
        parquet("members.parquet", with_column("profile_id", first(999))),
        {"conservation": "1 members have a profile that is not there"},
    ),
    (
        "make_clustering_inputs",
        parquet(
            "members.parquet", with_column("profile_id", lambda ids: [next(i for i in ids if i != ids[0]), *ids[1:]])
        ),
        {"conservation": "profiles have a weight other than the number of their members"},
    ),
    (
        "make_clustering_inputs",
        parquet("profiles.parquet", with_column("weight", first(1))),
        {"conservation": "the profiles of all users"},
    ),
    (
        "make_clustering_inputs",
        parquet("profiles.parquet", with_column("weight", first(0))),
        {"schema": "column weight must be at least 1", "conservation": "profiles weigh"},
    ),
    (
        "make_clustering_inputs",
        parquet("profiles.parquet", with_column("fit_weight", first(999))),
        {"conservation": "1 profiles have a fit_weight above their weight; 1 profiles have a fit_weight other than"},
    ),
    (
        "make_clustering_inputs",
        parquet("members.parquet", with_column("actions", lambda actions: [0] * len(actions))),
        {
            "conservation": "profiles have a fit_weight other than the number of their members with at least"
            f" {FIT_MIN_ACTIONS} actions"
        },
    ),
    (
        "make_clustering_inputs",
        parquet("members.parquet", with_column("post_like", first(99))),
        {"conservation": "1 members have another number of actions than of all kinds together"},
    ),
    (
        "make_clustering_inputs",
        parquet("members.parquet", with_column("page_comment", first(-1))),
        {"schema": "column page_comment must be at least 0", "conservation": "39 are members|0 are members"},
    ),
    (
        "make_clustering_inputs",
        parquet("members.parquet", with_column("actions", first(-1))),
        {"schema": "column actions must be at least 0", "conservation": "0 are members"},
    ),
    (
        "make_clustering_inputs",
        parquet("profiles.parquet", with_column("indices", first([7]))),
        {"conservation": "an entry in dimension 7; there are 4"},
    ),
    (
        "make_clustering_inputs",
        parquet("profiles.parquet", with_column("values", first([float("nan")]))),
        {"schema": "column values must be finite", "conservation": "profiles weigh"},
    ),
    (
        "make_clustering_inputs",
        parquet("dimensions.parquet", with_column("users", first(1))),
        {"conservation": "1 dimensions have other users"},
    ),
    (
        "make_clustering_inputs",
        parquet("dimensions.parquet", lambda t: t.set_column(4, "users", t["users"].cast(pa.float64()))),
        {"schema": "column users must be int64, not double", "conservation": "an entry in dimension"},
    ),
    (
        "select_k",
        text("k.json", '"k": 1', '"k": 2'),
        {"k_in_range": "k is 2; without segments it must be 1", **TOO_FEW},
    ),
    (
        "select_k",
        text("k.json", '"k": 1', '"k": 0'),
        {
            "schema": "column k must be at least 1",
            "k_in_range": "0 choices",
            "has_segments": "0 choices",
        },
    ),
    (
        "select_k",
        text("k.json", '"too_few"', '"segments"'),
        {"k_in_range": "k is 1; with segments it must be one of those tried, from 2 to 4"},
    ),
    (
        "select_k",
        text("k.json", '"too_few"', '"many"'),
        {"k_in_range": "the verdict is many; it must be segments, none or too_few", **TOO_FEW},
    ),
    (
        "select_k",
        text("k.json", '"criterion"', '"rule"'),
        {"schema": "k.json: column criterion", "k_in_range": "0 choices", "has_segments": "0 choices"},
    ),
    (
        "select_k",
        text("k.json", '"tried"', '"tried'),
        {"schema": "can't be read back", "k_in_range": "0 choices", "has_segments": "0 choices"},
    ),
    ("kmeans", parquet("assignments.parquet", without_first), {"every_user_once": "39 users, the inputs 40"}),
    (
        "kmeans",
        parquet("assignments.parquet", twice),
        {"schema": "user_id must rise", "every_user_once": "41 users, the inputs 40"},
    ),
    (
        "kmeans",
        parquet("assignments.parquet", with_column("user_id", first("u"))),
        {"every_user_once": "40 users, the inputs 40, and they are not the same"},
    ),
    (
        "kmeans",
        parquet("assignments.parquet", with_column("cluster_id", lambda ids: [(ids[0] + 1) % 3, *ids[1:]])),
        {"every_user_once": "data.json has .* users in cluster 0"},
    ),
    (
        "kmeans",
        parquet("assignments.parquet", with_column("distance", first(float("inf")))),
        {"schema": "distance must be finite", "every_user_once": "0 users, the inputs 40"},
    ),
    (
        "kmeans",
        parquet("assignments.parquet", with_column("confidence", first(1.5))),
        {"schema": "confidence must be at most 1", "every_user_once": "0 users, the inputs 40"},
    ),
    (
        "kmeans",
        text("meta-data.json", '"cluster_stability": ', '"cluster_stability": 1'),
        {
            "schema": "cluster_stability must be at most 1",
            "every_user_once": "meta-data.json has other sizes",
            "centers_in_range": "other centers",
            "figures_published": "other pages or numbers of people",
        },
    ),
    ("kmeans", text("data.json", '"u00"', '"u00", "u00"'), {"every_user_once": "data.json has"}),
    ("kmeans", text("data.json", '"u00", ', ""), {"every_user_once": "data.json has"}),
    (
        "kmeans",
        text("data.json", '"cluster_id": 2', '"cluster_id": 1'),
        {"every_user_once": "data.json has 3 clusters, assignments.parquet has 3"},
    ),
    ("kmeans", cut("data.json"), {"schema": "data.json can't be read back", "every_user_once": "2 clusters"}),
    (
        "kmeans",
        text("meta-data.json", '"cluster_member_count": ', '"cluster_member_count": 1'),
        {"every_user_once": "meta-data.json has other sizes"},
    ),
    (
        "kmeans",
        text("meta-data.json", '"member_count"', '"members"'),
        {
            "schema": "dimensions.member_count must have no null",
            "every_user_once": "meta-data.json has other sizes",
            "centers_in_range": "other centers",
            "figures_published": "other pages or numbers of people",
        },
    ),
    (
        "kmeans",
        parquet("centers.parquet", with_column("center", lambda rows: [[5.0] * 4, *rows[1:]])),
        {"centers_in_range": "center 0 is 5 in dimension 0, where the data lie from 0.166667 to 0.833333"},
    ),
    (
        "kmeans",
        parquet("centers.parquet", with_column("center", lambda rows: [rows[0][:3], *rows[1:]])),
        {"centers_in_range": "center 0 has 3 dimensions, the data 4"},
    ),
    (
        "kmeans",
        parquet("centers.parquet", with_column("users", first(1))),
        {"every_user_once": "centers.parquet has other sizes"},
    ),
    (
        "kmeans",
        parquet("profiles.parquet", with_column("people", first(13))),
        {"figures_published": "other pages or numbers of people"},
    ),
    (
        "kmeans",
        parquet("profiles.parquet", with_column("share", first(1.3))),
        {"schema": "share must be at most 1", "figures_published": "other pages or numbers of people"},
    ),
    (
        "kmeans",
        parquet("profiles.parquet", with_column("lift_low", lambda lows: [2.0] * len(lows))),
        {"figures_published": "lifts on pages that too few people like"},
    ),
    (
        "kmeans",
        parquet("comparisons.parquet", with_column("people", first(13))),
        {"figures_published": "comparisons.parquet has other pages or numbers of people than profiles.parquet"},
    ),
    (
        "kmeans",
        parquet("comparisons.parquet", with_column("lift", lambda lifts: [2.0] * len(lifts))),
        {"figures_published": "comparisons.parquet has lifts against too few people"},
    ),
    (
        "kmeans",
        parquet("comparisons.parquet", with_column("baseline", first(""))),
        {"schema": "baseline must have no empty text", "figures_published": "other pages or numbers of people"},
    ),
    (
        "kmeans",
        text("meta-data.json", '"cluster_name": "Mixed (2)"', '"cluster_name": "Mixed"'),
        {"figures_published": "several clusters have the same name"},
    ),
]


def test_what_is_right_passes_and_says_what_was_found(place: Path) -> None:
    for job, (step, names) in JOBS.items():
        found = outputs.read_manifest(str(place / job), step)["checks"]
        assert set(found) == names
        assert all(check["passed"] and not check["why"] for name, check in found.items() if name not in TOO_FEW), found
        values = [value for check in found.values() for value in check["found"].values()]
        assert all(isinstance(value, int | float | str) for value in values)
    kmeans = outputs.read_manifest(str(place / "kmeans"), "kmeans")["checks"]
    assert kmeans["every_user_once"]["found"] == {"users": 40, "assigned": 40, "listed": 40, "clusters": 3}
    grouped = outputs.read_manifest(str(place / "group_by_user"), "grouped_users")["checks"]
    assert grouped["rejects"]["found"]["rejected"] == 1
    assert grouped["schema"]["found"] == {"grouped users": 40, "rejects": 1}


def test_a_month_with_nobody_passes(local: Engine, tmp_path: Path) -> None:
    (tmp_path / "month=2024-01").mkdir()
    (tmp_path / "month=2024-01" / "a.jsonl").touch()
    (tmp_path / "c.json").write_text('{"id": 1, "facebook": [{"id": "p", "name": "P"}]}')
    for job in JOBS:
        found = run(local, tmp_path, job, tmp_path / job)
        assert set(found) == JOBS[job][1]
        assert all(check["passed"] for name, check in found.items() if name not in TOO_FEW), found


@pytest.mark.parametrize(("job", "change", "fails"), WRONG)
def test_what_is_wrong_with_the_written_files_is_reported(
    local: Engine,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    job: str,
    change: Change,
    fails: dict[str, str],
) -> None:
    module = importlib.import_module(f"spark_jobs.{job}")
    check_output = getattr(module, CHECKED_BY[job])

    def check_changed_output(folder: str, *args: Any) -> dict[str, CheckResult]:
        change(Path(folder))
        found: dict[str, CheckResult] = check_output(folder, *args)
        return found

    monkeypatch.setattr(module, CHECKED_BY[job], check_changed_output)
    found = run(local, place, job, tmp_path / "out")
    assert {name for name, check in found.items() if not check["passed"]} == set(fails), found
    for name, why in fails.items():
        assert re.search(why, found[name]["why"]), found[name]


def test_users_lost_between_the_tasks_of_an_engine_are_reported(
    local: Engine, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = shuffle.build_inputs
    monkeypatch.setattr(shuffle, "build_inputs", lambda c, vectors, s: build(c, vectors.slice(3), s))
    found = run(local, place, "make_clustering_inputs", tmp_path / "out")
    assert not found["conservation"]["passed"]
    assert "40 users have a vector, 37 are members" in found["conservation"]["why"]


def test_only_the_first_things_that_are_wrong_are_listed() -> None:
    listed = [(number, digest_of("a")) for number in range(20)]
    found = every_user_once(UsersDigest(), Assigned(UsersDigest(), {}), listed, {})
    assert found.why.count(";") == 5
    assert found.why.endswith("and 16 more")


def test_sums_are_exact_beyond_64_bits() -> None:
    values = [2**63 - 1] * 5 + [7, -3]
    assert exact_sum(np.array(values)) == sum(values)
    assert exact_sum(np.array([], np.int64)) == 0


def digest_of(*users: str) -> UsersDigest:
    made = UsersDigest()
    made.add(pa.array(users, pa.string()))
    return made


def test_a_digest_depends_on_the_users_and_not_on_the_batches_they_came_in() -> None:
    parts = UsersDigest()
    parts.add(pa.array(["x", "a", "bc", "y"]).slice(1, 2))
    parts.add(pa.array([], pa.string()))
    parts.add(pa.array(["ü"]))
    assert parts.digest == digest_of("a", "bc", "ü").digest
    assert parts.count == 3
    others = [digest_of("ab", "c", "ü"), digest_of("bc", "a", "ü"), digest_of("a", "bc"), digest_of("a", "bc", "ü", "")]
    assert parts.digest not in [other.digest for other in others]


def choice(verdict: str, k: int, tried: list[int]) -> pa.RecordBatch:
    row = {"verdict": verdict, "k": k, "why": "It is so.", "people": 9, "tried": [{"k": n} for n in tried]}
    return pa.RecordBatch.from_pylist([row])


@pytest.mark.parametrize(
    ("verdict", "k", "tried", "passes"),
    [
        ("segments", 3, [1, 2, 3, 4], True),
        ("segments", 2, [1, 2], True),  # there are two distinct profiles
        ("segments", 4, [1, 2, 3, 4], True),
        ("none", 1, [1, 2, 3, 4], True),
        ("none", 1, [1], True),
        ("too_few", 1, [], True),
        ("segments", 1, [1, 2, 3, 4], False),
        ("segments", 5, [1, 2, 3, 4, 5], False),  # above the largest
        ("segments", 3, [1, 2], False),
        ("segments", 2, [], False),
        ("segments", 3, [1, 3], False),
        ("segments", 3, [2, 3], False),
        ("none", 2, [1, 2, 3, 4], False),
        ("none", 0, [1, 2], False),
        ("none", 1, [1, 2, 3, 4, 5], False),
        ("too_few", 2, [], False),
        ("perhaps", 1, [1], False),
    ],
)
def test_k_is_one_of_those_tried_and_1_without_segments(verdict: str, k: int, tried: list[int], passes: bool) -> None:
    assert k_in_range([choice(verdict, k, tried)], 4).passed is passes


def test_no_choice_or_two_fail_both_checks() -> None:
    for choices in ([], [choice("segments", 2, [1, 2])] * 2):
        for found in (k_in_range(choices, 4), has_segments(choices)):
            assert found.why == f"k.json holds {len(choices)} choices"


def test_a_category_without_segments_is_reported_with_why() -> None:
    found = has_segments([choice("segments", 2, [1, 2])])
    assert (found.why, found.found) == ("", {"verdict": "segments", "k": 2, "people": 9})
    for verdict in ("none", "too_few"):
        found = has_segments([choice(verdict, 1, [])])
        assert (found.passed, found.why) == (False, "It is so.")
        assert found.found["verdict"] == verdict


def test_rejects_that_come_near_what_fails_the_month_are_reported() -> None:
    assert rejects_are_few_and_kept(1000, 5, 5, 0.01).passed
    assert rejects_are_few_and_kept(0, 0, 0, 0).passed
    found = rejects_are_few_and_kept(1000, 6, 6, 0.01)
    assert found.why == "0.60% of the rows were rejected; more than 1.00% would fail the month"
    assert found.found == {"rows": 1000, "rejected": 6, "share": 0.006, "largest_share": 0.01}
