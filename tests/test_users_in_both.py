"""Users of two months are found as a join in memory finds them, but in memory that does not grow with them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_jobs.errors import InputError
from spark_jobs.following import files, in_both
from spark_jobs.outputs import tables

# Their order as UTF-8 is not the order that people, UTF-16 or a locale put them in.
LETTERS = ["", "a", "A", "z", "é", "ß", "\x00", "0", "10", "9", "\uffff", "\U0001f600", "ü", "u\u0308", "語", "\ue000"]


def ids(random: np.random.Generator, count: int) -> list[str]:
    """Distinct ids of up to five of LETTERS, not empty."""
    drawn = {"".join(random.choice(LETTERS, random.integers(1, 6)).tolist()) for _ in range(count)}
    return sorted(drawn - {""}, key=str.encode)


def batches(users: Sequence[str], number: str, random: np.random.Generator, sizes: int) -> list[pa.RecordBatch]:
    """Users in batches of 0 to `sizes`, with numbers from 0 to 3."""
    whole = pa.table({"user_id": pa.array(users, pa.string()), number: random.integers(0, 4, len(users))})
    made, start = [], 0
    while start < len(users):
        end = start + int(random.integers(0, sizes + 1))
        rows = whole.slice(start, end - start).combine_chunks().to_batches()
        made += rows or [pa.RecordBatch.from_pylist([], whole.schema)]
        start = end
    return made


@pytest.mark.parametrize("seed", range(40))
def test_all_who_are_in_both_are_found_once_whatever_the_batches(seed: int) -> None:
    random = np.random.default_rng(seed)
    everybody = ids(random, 300)
    sides = [
        batches([user for user in everybody if random.random() < kept], number, random, int(random.integers(1, 60)))
        for number, kept in (("left", random.choice([0.0, 0.1, 0.8, 1.0])), ("right", random.random()))
    ]
    found = [
        (left["user_id"], left["left"], right["right"], right["user_id"])
        for here, there in in_both.in_both(*map(in_both.rising, sides))
        for left, right in zip(here.to_pylist(), there.to_pylist(), strict=True)
    ]
    left, right = ({row["user_id"]: row for batch in side for row in batch.to_pylist()} for side in sides)
    expected = [user for user in everybody if user in left and user in right]
    assert found == [(user, left[user]["left"], right[user]["right"], user) for user in expected]


def test_no_more_than_a_batch_of_each_is_read_ahead() -> None:
    random, read = np.random.default_rng(0), [0, 0]
    users = [f"u{number:04}" for number in range(1000)]

    def counted(side: int) -> list[pa.RecordBatch]:
        def each():  # type: ignore[no-untyped-def]
            for batch in batches(users, "number", random, 20):
                read[side] += len(batch)
                yield batch

        return each()  # type: ignore[no-any-return]

    given = 0
    for here, _ in in_both.in_both(counted(0), counted(1)):
        assert max(read) <= given + 2 * 20
        given += len(here)
    assert given == 1000


@pytest.mark.parametrize(
    "swapped", [(["b", "a"], []), (["a"], ["a"]), (["z"], ["é", "b"]), (["\U0001f600"], ["\uffff"])]
)
def test_rows_in_another_order_are_an_error_and_nobody_is_missed(swapped: tuple[list[str], list[str]]) -> None:
    parts = [pa.RecordBatch.from_pydict({"user_id": pa.array(users, pa.string())}) for users in swapped]
    with pytest.raises(ValueError, match="not in the order of user_id"):
        list(in_both.rising(parts))


# --- from files


def write_month(folder: Path, users: Sequence[str], group: np.ndarray, cluster: np.ndarray) -> None:
    """The members of a month's segments and the assignments of its clusters, written as the jobs do."""
    folder.mkdir()
    members = pa.table({"user_id": pa.array(users, pa.string()), "group": pa.array(group, pa.int32())})
    pq.write_table(members, folder / "members.parquet", row_group_size=50)
    assigned = {"user_id": pa.array(users, pa.string()), "cluster_id": pa.array(cluster, pa.int32())}
    scores = dict.fromkeys(("distance", "confidence"), np.zeros(len(users)))
    pq.write_table(pa.table({**assigned, **scores}), folder / "assignments.parquet", row_group_size=70)


@pytest.mark.parametrize("seed", range(5))
def test_who_returned_is_counted_as_a_join_of_whole_tables_counts(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BATCH_ROWS", 33)
    random = np.random.default_rng(seed)
    everybody = ids(random, 600)
    for name in ("before", "now"):
        users = [user for user in everybody if random.random() < 0.8]
        write_month(tmp_path / name, users, random.integers(0, 3, len(users)), random.integers(0, 4, len(users)))
    returned = files.read_returned(str(tmp_path / "before"), 3, str(tmp_path / "now"), 4)
    were, are = pq.read_table(tmp_path / "before/members.parquet"), pq.read_table(tmp_path / "now/assignments.parquet")
    both = were.join(are, "user_id", join_type="inner").to_pylist()
    people = [[sum((row["group"], row["cluster_id"]) == (g, c) for row in both) for c in range(4)] for g in range(3)]
    assert returned.people.tolist() == people
    assert returned.before.tolist() == np.bincount(were["group"].to_numpy(), minlength=3).tolist()
    assert returned.now.tolist() == np.bincount(are["cluster_id"].to_numpy(), minlength=4).tolist()


def test_a_table_in_another_order_is_named_with_the_way_out(tmp_path: Path) -> None:
    for name, users in (("before", ["b", "a"]), ("now", ["a", "b"])):
        write_month(tmp_path / name, users, np.zeros(2, int), np.zeros(2, int))
    with pytest.raises(InputError, match=r"before/members\.parquet can't be read: .*order of user_id.* Delete "):
        files.read_returned(str(tmp_path / "before"), 1, str(tmp_path / "now"), 1)
