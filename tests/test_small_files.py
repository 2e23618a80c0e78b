"""Small raw files that are read together give what each gives alone."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.client import BaseClient
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from spark_jobs.engines import local as local_engine
from spark_jobs.errors import InputError
from spark_jobs.raw import files, small_files
from spark_jobs.raw.small_files import put_together, read_together
from spark_jobs.storage import StoredFile
from spark_jobs.users import shuffle
from tests.bad_inputs import BadInput, Rows, raw_parquet, raw_rows, raw_texts
from tests.conftest import Engine
from tests.parity import assert_same_bytes
from tests.test_fuzzed_input import _CSV, _JSON, MONTH, fuzzed

CORPUS = [bad for bad in (*raw_rows(), *raw_texts(), *raw_parquet()) if isinstance(bad.content, bytes)]
GOOD = '{"user_id": "u", "page_id": "p", "action": "page_like"}\n'


def as_text(row: dict[str, Any]) -> str:
    return repr(sorted(row.items()))


def together(contents: Sequence[tuple[str, bytes]], folder: Path) -> tuple[list[str], dict[str, list[Any]], set[str]]:
    """Of files that are read together: the accepted rows, the rejects of each file by batch, who must be read alone."""
    for name, data in contents:
        (folder / name).write_bytes(data)
    locations = [str(folder / name) for name, _ in contents]
    found = read_together(locations, MONTH)
    accepted = sorted(as_text(row) for rows in found.rows for row in rows.accepted.to_pylist())
    rejects = {locations[place]: [batch.to_pylist() for batch in of_file] for place, of_file in found.rejects.items()}
    return accepted, rejects, {locations[place] for place in found.alone}


def alone(locations: Iterable[str]) -> tuple[list[str], dict[str, list[Any]]]:
    """The same of files that are read one by one. None of them may be unreadable."""
    accepted, rejects = [], {}
    for location in locations:
        read = list(files.check_read(location, io.BytesIO(Path(location).read_bytes()), MONTH))
        accepted += [as_text(row) for rows in read for row in rows.accepted.to_pylist()]
        if of_file := [rows.rejected.to_pylist() for rows in read if rows.rejected.num_rows]:
            rejects[location] = of_file
    return sorted(accepted), rejects


def assert_alike(contents: Sequence[tuple[str, bytes]], folder: Path) -> set[str]:
    accepted, rejects, left = together(contents, folder)
    assert (accepted, rejects) == alone(str(folder / name) for name, _ in contents if str(folder / name) not in left)
    return left


def named(inputs: Iterable[BadInput]) -> list[tuple[str, bytes]]:
    return [(f"{number:04d}-{bad.file}", bytes(bad.content)) for number, bad in enumerate(inputs)]  # type: ignore[arg-type]


def test_all_bad_inputs_together_give_what_each_gives_alone(tmp_path: Path) -> None:
    left = assert_alike(named(CORPUS), tmp_path)
    unreadable = {
        str(tmp_path / name)
        for (name, _), bad in zip(named(CORPUS), CORPUS, strict=True)
        if not isinstance(bad.expected, Rows)
    }
    assert unreadable <= left, "what can't be read is left to the reader that says why"
    assert len(CORPUS) - len(left) > 150, "most of the files that can be read are read together"


@fuzzed(40)
@given(st.lists(st.tuples(st.just("csv"), _CSV) | st.tuples(st.just("jsonl"), _JSON), min_size=2, max_size=6))
def test_any_texts_together_give_what_each_gives_alone(
    tmp_path_factory: pytest.TempPathFactory, contents: list[tuple[str, bytes]]
) -> None:
    assert_alike(
        [(f"{number}.{kind}", data) for number, (kind, data) in enumerate(contents)], tmp_path_factory.mktemp("t")
    )


def month_of(inputs: Iterable[BadInput], folder: Path) -> Path:
    raw = folder / "month=2024-01"
    raw.mkdir()
    for name, data in named(inputs):
        (raw / name).write_bytes(data)
    for number in range(30):  # so that rejects are found among what is read together
        (raw / f"good-{number:02d}.jsonl").write_text(GOOD if number % 3 else GOOD + GOOD.replace("_like", "").strip())
    pq.write_table(
        pa.table(
            {"user_id": pa.array(["u", ""]).dictionary_encode(), "page_id": ["p", "q"], "action": ["page_like"] * 2}
        ),
        raw / "coded.parquet",
    )
    return raw


def test_a_month_of_small_files_gives_the_same_bytes_as_file_by_file(
    tmp_path: Path, engine: Engine, local: Engine
) -> None:
    raw = month_of([bad for bad in CORPUS if isinstance(bad.expected, Rows)][::25], tmp_path)
    options = ("--max-reject-ratio", 1)
    engine.run("group_by_user", raw, tmp_path / "together", *options)
    one = {"raw.small_files.FILES_TOGETHER": 1}
    local.run("group_by_user", raw, tmp_path / "alone", *options, patch=one)
    assert_same_bytes([tmp_path / "together", tmp_path / "alone"])
    assert len(list((tmp_path / "together/rejects").iterdir())) > 10


def test_all_small_files_that_cannot_be_read_are_named_in_their_order(tmp_path: Path, local: Engine) -> None:
    raw = month_of([bad for bad in CORPUS if not isinstance(bad.expected, Rows)][::10], tmp_path)
    messages = []
    for place, patch in (("a", {}), ("b", {"raw.small_files.FILES_TOGETHER": 1})):
        with pytest.raises(InputError) as caught:
            local.run("group_by_user", raw, tmp_path / place, patch=patch)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert messages[0].count("Replace or remove") > 3


def test_small_files_on_s3_take_one_request_each(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    asked: list[str] = []
    call = BaseClient._make_api_call

    def noted_call(client: BaseClient, action: str, params: dict[str, Any]) -> Any:
        asked.append(action)
        return call(client, action, params)

    with mock_aws():
        bucket = boto3.client("s3")
        bucket.create_bucket(Bucket="small")
        for number in range(20):
            bucket.put_object(Bucket="small", Key=f"{number}.jsonl", Body=GOOD.encode())
        monkeypatch.setattr(BaseClient, "_make_api_call", noted_call)
        found = read_together([f"s3://small/{number}.jsonl" for number in [*range(20), 99]], MONTH)
    assert sum(rows.accepted.num_rows for rows in found.rows) == 20
    assert found.alone == {20}, "one that is gone is left to the reader that says so"
    assert asked.count("GetObject") == 21
    assert set(asked) <= {"GetObject", "HeadBucket"}


def test_a_file_of_a_small_size_that_holds_much_is_read_alone(tmp_path: Path) -> None:
    rows = 200_000
    table = pa.table({"user_id": ["u"] * rows, "page_id": ["p"] * rows, "action": ["page_like"] * rows})
    pq.write_table(table, tmp_path / "much.parquet")
    (tmp_path / "little.jsonl").write_text(GOOD)
    names = ["much.parquet", "little.jsonl"]
    contents = [(name, (tmp_path / name).read_bytes()) for name in names]
    assert len(contents[0][1]) < 64 << 10
    assert assert_alike(contents, tmp_path) == {str(tmp_path / "much.parquet")}


def test_large_files_are_not_put_together_and_small_ones_only_up_to_a_limit() -> None:
    def of(*sizes: int) -> list[list[int]]:
        return put_together([StoredFile(f"{size}.csv", f"{size}.csv", size, "") for size in sizes])

    large = 1 << 20
    assert of(1, 2, large, large, 3, 4) == [[0, 1], [2], [3], [4, 5]]
    assert of(0, 0, large, 0, 0) == [[0, 1], [2], [3, 4]]
    assert [len(bundle) for bundle in of(*[1] * 600)] == [256, 256, 88]
    assert [len(bundle) for bundle in of(*[60_000] * 100)] == [69, 31], "at most 4 MiB"


def test_progress_counts_files_not_what_is_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = month_of([], tmp_path)
    said: list[str] = []
    split = local_engine._split_item
    monkeypatch.setattr(small_files, "FILES_TOGETHER", 20)
    found = [
        StoredFile(str(path), path.name, path.stat().st_size, "") for path in sorted(raw.iterdir())
    ]  # 31 files in two bundles
    work = shuffle.grouping_exchange(str(raw), found, MONTH, str(tmp_path / "out"), False)
    engine = local_engine.LocalEngine(local_engine.Resources(memory=8 << 30, cores=1, scratch=str(tmp_path)))

    def split_item(*arguments: Any) -> Any:
        said.append(engine.progress())
        return split(*arguments)

    monkeypatch.setattr(local_engine, "_split_item", split_item)
    engine.exchange(work)
    assert said == ["starting", "took apart 20 of 31 files"]
