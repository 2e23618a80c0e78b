"""Nothing is lost or counted twice from raw files to clusters, however rows lie in files and whatever fails on the way.

What each row must come to on both engines is held by `test_parity`, against the contract in plain loops.
More examples, and others each time: FUZZ_EXAMPLES=200 pytest tests/test_conservation.py
"""

import errno
import json
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random
from typing import IO, Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs import outputs, storage
from tests.conftest import Engine
from tests.generated import SEEDS, Month, Row, Time, months
from tests.golden import read_json_lines
from tests.parity import assert_same_bytes, users_in
from tests.reference import ACTIONS, group
from tests.test_fuzzed_input import fuzzed

_JOBS = ("group_by_user", "make_clustering_inputs", "kmeans")


def deal(rows: list[Row], files: int, random: Random, folder: Path) -> None:
    """Write rows as JSON lines, in any order, to so many files."""
    hands: list[list[str]] = [[] for _ in range(files)]
    for row in random.sample(rows, len(rows)):
        written = {name: value.text if isinstance(value, Time) else value for name, value in row.items()}
        random.choice(hands).append(json.dumps(written, ensure_ascii=random.random() < 0.5))
    for number, lines in enumerate(hands):
        (folder / f"{number}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


class Pipeline:
    """The jobs on a month, one after another, in a folder of their own."""

    def __init__(self, engine: Engine, raw: Path, category: Path, folder: Path):
        self._engine = engine
        self.grouped, self.inputs, self.clusters = (folder / job for job in _JOBS)
        self._arguments: dict[str, tuple[Any, ...]] = {
            "group_by_user": (raw, self.grouped, "--max-reject-ratio", 1),
            "make_clustering_inputs": (self.grouped, self.inputs, "--category", category, "--scaling", "log1p"),
            "kmeans": (self.inputs, self.clusters, "--k", 3, "--n-init", 1),
        }

    def run(self, job: str, **patch: Any) -> dict[str, Any]:
        """Run a job, and give what it reports of its output."""
        return self._engine.run(job, *self._arguments[job], patch=patch).outputs[0]

    def run_all(self) -> list[dict[str, Any]]:
        """Run all jobs."""
        return [self.run(job) for job in _JOBS]


def category_of(rows: list[Row], folder: Path) -> Path:
    """A category of all pages of accepted rows; there is at least one."""
    pages = dict.fromkeys(["page of nobody", *(row["page_id"] for row in rows)])
    file = folder / "all.json"
    file.write_text(json.dumps({"id": 0, "facebook": [{"id": page} for page in pages]}))
    return file


def assert_conserved(of: Pipeline, month: Month) -> None:
    """Every accepted action is in each step's counts, and every user is in each step once."""
    users = group(month.accepted)
    accepted = Counter(dict.fromkeys(ACTIONS, 0))
    for user in users.values():
        for counts in user.pages.values():
            accepted.update(counts)
    grouped = users_in(of.grouped)
    assert [user["user_id"] for user in grouped] == sorted(users)
    written = {action: sum(page[action] for user in grouped for page in user["pages"]) for action in ACTIONS}
    assert written == accepted
    members = pq.read_table(of.inputs / "members.parquet").to_pylist()
    assert [member["user_id"] for member in members] == sorted(users)
    if accepted.total() < 2**63:  # beyond that a user's sums are cut to 64 bits
        assert {action: sum(member[action] for member in members) for action in ACTIONS} == accepted
    profiles = pq.read_table(of.inputs / "profiles.parquet")
    assert sum(profiles["weight"].to_pylist()) == len(users)
    clusters = read_json_lines(of.clusters / "data.json")
    assert sorted(user for cluster in clusters for user in cluster["user_ids"]) == sorted(users)
    sizes = [cluster["cluster_member_count"] for cluster in read_json_lines(of.clusters / "meta-data.json")]
    assert sizes == [len(cluster["user_ids"]) for cluster in clusters]
    assert sorted(pq.read_table(of.clusters / "assignments.parquet")["user_id"].to_pylist()) == sorted(users)


@fuzzed(4)
@given(months(), SEEDS, st.integers(1, 9))
def test_how_rows_lie_in_files_changes_no_byte_and_every_one_is_counted_in_each_step(
    local: Engine, tmp_path_factory: pytest.TempPathFactory, month: Month, random: Random, files: int
) -> None:
    folder = tmp_path_factory.mktemp("month")
    category = category_of(month.accepted, folder)
    dealt = folder / "dealt" / f"month={month.key}"
    dealt.mkdir(parents=True)
    deal([row for _, _, row in month.rows], files, random, dealt)
    one = Pipeline(local, month.write(folder), category, folder / "one")
    other = Pipeline(local, dealt, category, folder / "other")
    for pipeline, broken in ((one, len(month.broken)), (other, 0)):
        said = pipeline.run_all()
        assert said[0]["rows"] == len(month.rows) + broken
        assert said[0]["rows"] - said[0]["rejected"] == len(month.accepted)
        assert {output["users"] for output in said} == {len(group(month.accepted))}
    assert_conserved(one, month)
    assert_same_bytes([one.grouped / "users", other.grouped / "users"])
    assert_same_bytes([one.inputs, other.inputs])
    for name in ("data.json", "meta-data.json", "assignments.parquet"):
        assert (one.clusters / name).read_bytes() == (other.clusters / name).read_bytes()


def failing_after(files: int) -> Callable[..., AbstractContextManager[IO[bytes]]]:
    """`storage.new_file` on a disk on which so many files can be written, and no more."""
    left, new_file = iter(range(files)), storage.new_file

    def fail(location: str, **options: Any) -> AbstractContextManager[IO[bytes]]:
        if next(left, None) is None:
            raise OSError(errno.EIO, "Input/output error", location)
        return new_file(location, **options)

    return fail


@fuzzed(4)
@given(months(), st.sampled_from(_JOBS), st.lists(st.integers(0, 8), min_size=1, max_size=3))
def test_what_failed_in_the_middle_and_was_run_again_gives_the_same_bytes(
    local: Engine, tmp_path_factory: pytest.TempPathFactory, month: Month, failing: str, after: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("month")
    raw, category = month.write(folder), category_of(month.accepted, folder)
    whole, again = (Pipeline(local, raw, category, folder / name) for name in ("whole", "again"))
    for job in _JOBS:
        expected = whole.run(job)
        output = {"group_by_user": again.grouped, "make_clustering_inputs": again.inputs, "kmeans": again.clusters}[job]
        for files in after if job == failing else []:
            if outputs.is_finished(str(output)):
                break
            try:
                again.run(job, **{"storage.new_file": failing_after(files)})
            except OSError:
                assert not outputs.is_finished(str(output))
        found = again.run(job)
        assert found["users"] == expected["users"]
    assert_conserved(again, month)
    for one, other in ((whole.grouped, again.grouped), (whole.inputs, again.inputs), (whole.clusters, again.clusters)):
        assert_same_bytes([one, other])
