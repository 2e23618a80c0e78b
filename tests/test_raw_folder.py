"""A month's folder of raw files: whatever lies there is read, or refused by name."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spark_jobs import outputs, storage
from spark_jobs.errors import InputError
from spark_jobs.raw.folder import list_raw_files
from spark_jobs.raw.rules import CheckedRows, Month
from spark_jobs.users import shuffle
from tests.conftest import Engine

GOOD = '{"user_id": "u", "page_id": "p", "action": "page_like"}\n'


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "month=2024-01"
    folder.mkdir()
    (folder / "a.jsonl").write_text(GOOD)
    return folder


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "part-0.parquet").write_text("")


STRAYS: dict[str, Callable[[Path], None]] = {
    "is a folder": make_folder,
    "is a link to what does not exist": lambda path: path.symlink_to("gone"),
    "is neither a file nor a folder": os.mkfifo,
}


@pytest.mark.parametrize("name", ["part.parquet", "b.jsonl", "strange"])
@pytest.mark.parametrize(("says", "make"), STRAYS.items(), ids=["folder", "broken link", "pipe"])
def test_what_is_not_a_raw_file_is_refused_by_name_with_the_way_out(
    raw: Path, name: str, says: str, make: Callable[[Path], None]
) -> None:
    make(raw / name)
    with pytest.raises(InputError, match=rf"{says}.*[Rr]emove it") as caught:
        list_raw_files(str(raw))
    assert str(raw / name) in str(caught.value)


@pytest.mark.parametrize("name", ["_temporary", ".part.parquet", "_gone.jsonl"])
@pytest.mark.parametrize("make", STRAYS.values(), ids=["folder", "broken link", "pipe"])
def test_names_that_begin_with_an_underscore_or_a_dot_are_left_alone(
    raw: Path, name: str, make: Callable[[Path], None]
) -> None:
    make(raw / name)
    assert [file.name for file in list_raw_files(str(raw))] == ["a.jsonl"]


def test_a_link_to_a_file_is_a_file(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(GOOD)
    (raw / "b.jsonl").symlink_to(tmp_path / "elsewhere")
    assert [file.name for file in list_raw_files(str(raw))] == ["a.jsonl", "b.jsonl"]


def test_a_name_that_is_not_utf8_is_refused_in_letters_that_can_be_printed(raw: Path) -> None:
    Path(os.fsdecode(os.fsencode(raw) + b"/b\xff.jsonl")).write_text(GOOD)
    with pytest.raises(InputError, match="name that is not UTF-8") as caught:
        list_raw_files(str(raw))
    str(caught.value).encode()


def test_of_several_problems_one_is_named_and_all_are_counted(raw: Path) -> None:
    make_folder(raw / "b.parquet")
    (raw / "c.txt").write_text("")
    (raw / "d.csv").symlink_to("gone")
    with pytest.raises(InputError, match=r"b\.parquet is a folder.* \(And 2 more\.\)$"):
        list_raw_files(str(raw))


def test_links_that_lead_back_are_followed_once_and_refused_by_name(raw: Path, tmp_path: Path, local: Engine) -> None:
    (raw / "a.csv").symlink_to(".")
    (raw / "b.csv").symlink_to("..")
    assert len(storage.list_below(str(raw))) <= len(list(raw.iterdir()))
    with pytest.raises(InputError, match=rf"^{raw}/a.csv is a folder"):
        local.run("group_by_user", raw, tmp_path / "out")


def test_a_job_does_not_pass_over_a_folder_as_spark_writes_it(raw: Path, tmp_path: Path, local: Engine) -> None:
    make_folder(raw / "part.parquet")
    with pytest.raises(InputError, match=r"part\.parquet is a folder"):
        local.run("group_by_user", raw, tmp_path / "out")
    assert not outputs.is_finished(str(tmp_path / "out"))


@pytest.mark.parametrize("refused", ["iterdir", "open"])
def test_what_may_not_be_read_is_named_in_a_line(raw: Path, monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    """Tests may run as root, who may read all."""

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, refused, refuse)
    named = raw if refused == "iterdir" else raw / "a.jsonl"
    with pytest.raises(InputError, match=f"{named} can't be read: Permission denied"):
        list_raw_files(str(raw))


def change(file: Path) -> None:
    """Another content of the same size, as quickly as it may be."""
    before = file.stat()
    file.write_text(GOOD.replace('"u"', '"v"'))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 4_000_000))


@pytest.mark.parametrize("what", [change, Path.unlink, lambda file: file.write_text(GOOD * 2)])
@pytest.mark.parametrize("when", ["after it was read", "after its fingerprint was taken"])
def test_a_raw_file_that_changes_while_it_is_read_fails_the_step(
    raw: Path, tmp_path: Path, local: Engine, monkeypatch: pytest.MonkeyPatch, what: Callable[[Path], None], when: str
) -> None:
    read, describe = shuffle.read_file, storage.describe

    def read_file(location: str, month: Month) -> Iterator[CheckedRows]:
        yield from read(location, month)
        what(raw / "a.jsonl")

    def describe_file(path: Path) -> storage.StoredFile:
        described = describe(path)
        what(raw / "a.jsonl")
        return described

    if when == "after it was read":
        monkeypatch.setattr(shuffle, "read_file", read_file)
    else:
        monkeypatch.setattr(storage, "describe", describe_file)
    with pytest.raises(InputError, match=r"a\.jsonl (changed|vanished) while it was read\. Run again"):
        local.run("group_by_user", raw, tmp_path / "out")
    assert not outputs.is_finished(str(tmp_path / "out"))


def test_a_raw_file_that_comes_while_others_are_read_is_for_the_next_run(
    raw: Path, tmp_path: Path, local: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = shuffle.read_file

    def read_file(location: str, month: Month) -> Iterator[CheckedRows]:
        yield from read(location, month)
        (raw / "b.jsonl").write_text(GOOD)

    monkeypatch.setattr(shuffle, "read_file", read_file)
    (first,) = local.run("group_by_user", raw, tmp_path / "out").outputs
    monkeypatch.undo()
    (again,) = local.run("group_by_user", raw, tmp_path / "again").outputs
    assert (first["raw_files"], again["raw_files"]) == (1, 2)
