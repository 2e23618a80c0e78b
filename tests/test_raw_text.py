"""Lines of raw text: whatever ends them, every one of them is counted, and none can take all memory."""

import gzip
import io
import itertools
import json
import random
from pathlib import Path

import pytest

from spark_jobs.errors import UnreadableFile
from spark_jobs.raw import rules, text
from spark_jobs.users.grouped_users import read_json_lines
from tests.conftest import Engine
from tests.test_raw_actions import read

ENDS = {"cr": "\r", "crlf": "\r\n", "lf": "\n"}
HEADER = "user_id,page_id,action"


def write_text(path: Path, content: str) -> Path:
    data = content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def rows_of(name: str, users: int) -> list[str]:
    """The lines of a file with a row a user, `u0` and so on."""
    if name.endswith(".csv"):
        return [HEADER, *(f"u{user},p,page_like" for user in range(users))]
    return [json.dumps({"user_id": f"u{user}", "page_id": "p", "action": "page_like"}) for user in range(users)]


@pytest.mark.parametrize("block", [8 << 20, 61])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("ends", ["cr", "crlf", "lf", "mixed"])
def test_every_row_is_read_whatever_ends_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ends: str, block: int
) -> None:
    monkeypatch.setattr(text, "_BLOCK_BYTES", block)
    kinds = itertools.cycle([ENDS[ends]] if ends in ENDS else ["\r", "\n", "\r\n", "\n", "\r"])
    lines = rows_of(name, 100)
    path = write_text(tmp_path / name, "".join(line + next(kinds) for line in lines))
    accepted, rejected = read(path)
    assert [row["user_id"] for row in accepted] == [f"u{user}" for user in range(100)]
    assert rejected == []


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_rejected_line_has_the_same_number_whatever_ends_it(tmp_path: Path, name: str, end: str) -> None:
    lines = rows_of(name, 5)
    lines[3] = "{"
    _, rejected = read(write_text(tmp_path / name, end.join(lines)))
    assert rejected == [(4, rules.NOT_CSV if name.endswith(".csv") else rules.NOT_JSON)]


@pytest.mark.parametrize("beside", [[], ["x,y"]], ids=["good", "bad"])
def test_a_line_end_within_quotes_stays_as_it_is_beside_lines_that_cr_ends(tmp_path: Path, beside: list[str]) -> None:
    lines = [HEADER, '"a\rb",p,page_like', '"c\r\nd",p,page_like', '"e",p,page_like', "f,p,page_like", *beside]
    accepted, rejected = read(write_text(tmp_path / "a.csv", "\r".join(lines)))
    assert [row["user_id"] for row in accepted] == ["a\rb", "c\r\nd", "e", "f"]
    assert rejected == [(8, rules.NOT_CSV)] * len(beside)


def test_rows_in_are_rows_accepted_rejected_or_blank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands where: text without quotes, so that each line is a row of its own."""
    seeded = random.Random(15)
    for _ in range(60):
        monkeypatch.setattr(text, "_BLOCK_BYTES", seeded.choice([16, 33, 1 << 20]))
        pieces = ["u,p,page_like", "u,p", "\r", "\n", "\r\n", "\r", "", "\x0b", "\u2028", "\0", "\x85"]
        content = "".join(seeded.choices(pieces, k=40))
        path = write_text(tmp_path / "a.csv", f"{HEADER}\r{content}")
        accepted, rejected = read(path)
        lines = [line for line in content.encode().splitlines() if line.strip()]
        assert len(accepted) + len(rejected) == len(lines), repr(content)


def test_blocks_are_the_file_in_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = random.Random(1)
    for _ in range(200):
        monkeypatch.setattr(text, "_BLOCK_BYTES", seeded.randint(1, 12))
        data = bytes(seeded.choices(b"ab\r\n", k=seeded.randint(0, 40)))
        blocks = list(text.read_blocks(io.BytesIO(data), "a.csv"))
        assert b"".join(block.data for block in blocks) in (data, data + b"\n")
        lines = list(itertools.chain.from_iterable(block.split_lines() for block in blocks))
        assert [line.rstrip(b"\r\n") for line in lines] == data.splitlines()
        assert [block.first for block in blocks] == [
            1 + sum(block.lines for block in blocks[:place]) for place in range(len(blocks))
        ]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("end", ["\n", "\r", ""], ids=["lf", "cr", "none"])
def test_a_line_beyond_the_limit_is_named_with_its_file_and_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, end: str
) -> None:
    monkeypatch.setattr(text, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(text, "MAX_LINE_BYTES", 256)
    lines = rows_of(name, 2)
    for size, fits in ((256, True), (257, False)):
        path = write_text(tmp_path / name, "".join(f"{line}\n" for line in lines) + "x" * size + end)
        if fits:
            assert len(read(path)[1]) == 1
        else:
            with pytest.raises(UnreadableFile, match=f"line {len(lines) + 1} is longer than") as caught:
                read(path)
            assert str(path) in str(caught.value)


@pytest.mark.parametrize("beside", [[], ['"q",p,page_like'], ["x,y"]], ids=["alone", "quoted", "broken"])
def test_how_long_a_csv_field_may_be_does_not_depend_on_its_neighbours(tmp_path: Path, beside: list[str]) -> None:
    lines = [HEADER, f"{'u' * 200_000},p,page_like", f"u,{'p' * 5_000_000},page_like", *beside]
    accepted, _ = read(write_text(tmp_path / "a.csv", "\n".join(lines)))
    assert [(len(row["user_id"]), len(row["page_id"])) for row in accepted[:2]] == [(200_000, 1), (1, 5_000_000)]


def test_a_month_with_every_line_end_keeps_all_its_users(tmp_path: Path, engine: Engine) -> None:
    raw = tmp_path / "month=2024-01"
    raw.mkdir()
    for number, (kind, end) in enumerate(ENDS.items()):
        for name in ("csv", "jsonl", "jsonl.gz"):
            write_text(raw / f"{kind}.{name}", end.join(rows_of(name if name != "csv" else ".csv", 10 + number)))
    said = engine.run("group_by_user", raw, tmp_path / "out")
    (output,) = said.outputs
    assert (output["users"], output["actions"], output["rejected"]) == (12, 3 * (10 + 11 + 12), 0)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_lines_of_grouped_users_end_as_raw_ones_do(tmp_path: Path, end: str) -> None:
    lines = [json.dumps({"user_id": user, "page_like": {"p": 1}}) for user in "ab"]
    path = write_text(tmp_path / "users.jsonl", end.join(lines))
    assert [row["user_id"] for batch in read_json_lines(str(path)) for row in batch.to_pylist()] == ["a", "b"]
    write_text(path, end.join([*lines, "[" * 100_000]))
    with pytest.raises(UnreadableFile, match=r"users\.jsonl, line 3"):
        list(read_json_lines(str(path)))


@pytest.mark.parametrize("beside", [[], ["{"]], ids=["alone", "beside a broken line"])
def test_a_row_nested_beyond_all_measure_is_a_reject_or_a_row_and_no_crash(tmp_path: Path, beside: list[str]) -> None:
    deep = '{"user_id": "u", "page_id": "p", "action": "page_like", "more": ' + "[" * 100_000 + "]" * 100_000 + "}"
    lines = [*rows_of("a.jsonl", 1), deep, *beside]
    accepted, rejected = read(write_text(tmp_path / "a.jsonl", "\n".join(lines)))
    assert len(accepted) + len(rejected) == len(lines)
