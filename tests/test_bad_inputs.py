"""Bad inputs: each is refused by an error that names the file, or its rows are counted."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from spark_jobs import outputs
from spark_jobs.errors import InputError
from spark_jobs.raw import rules
from spark_jobs.raw.files import read_file
from spark_jobs.raw.folder import list_raw_files
from spark_jobs.raw.rules import Month
from spark_jobs.vectors.category_files import read_category
from tests.bad_categories import categories
from tests.bad_inputs import BadInput, Rows, in_folder, raw_parquet, raw_rows, raw_texts, strange_rows
from tests.bad_users import users
from tests.conftest import Engine

JANUARY = Month.parse("2024-01")


def each(inputs: Sequence[BadInput]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("bad", [pytest.param(bad, id=ascii(bad.what)) for bad in inputs])


RAW_ROWS, RAW_FILES = list(raw_rows()), [*raw_texts(), *raw_parquet()]
STRANGE_ROWS = list(strange_rows())
IN_FOLDER, CATEGORIES, USERS = list(in_folder()), list(categories()), list(users())


def counted(raw: Path) -> Rows:
    """What the files of a month's folder hold, read as the job reads them."""
    accepted, rejected = 0, Counter[str]()
    for file in list_raw_files(str(raw)):
        for rows in read_file(file.location, JANUARY):
            accepted += rows.accepted.num_rows
            rejected.update(rows.rejected.column("reason").to_pylist())
    return Rows(accepted, dict(rejected))


def assert_refused(error: InputError, path: Path, says: str) -> None:
    """The error is a line that names the file, or its folder, and says what is wrong."""
    message = str(error)
    assert says in message
    assert any(name in message for name in (str(path), repr(str(path)), str(path.parent)))
    assert message.count("\n") == str(path).count("\n")
    message.encode()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "month=2024-01"
    folder.mkdir()
    return folder


@each(RAW_ROWS)
def test_a_row_that_breaks_a_rule_is_counted_whatever_is_beside_it(raw: Path, bad: BadInput) -> None:
    assert isinstance(bad.expected, Rows)
    path = bad.write(raw)
    assert counted(raw) == bad.expected
    # A line that is nothing makes the reader careful.
    with path.open("ab") as file:
        file.write(b"nothing")
    (found,) = bad.expected.rejected
    nothing = rules.NOT_CSV if path.suffix == ".csv" else rules.NOT_JSON
    assert counted(raw) == Rows(2, Counter([found, nothing]))


@each(STRANGE_ROWS)
def test_a_row_that_looks_bad_and_is_not_is_accepted_whatever_is_beside_it(raw: Path, bad: BadInput) -> None:
    path = bad.write(raw)
    assert counted(raw) == Rows(2)
    with path.open("ab") as file:
        file.write(b"nothing")
    assert counted(raw) == Rows(2, {rules.NOT_JSON: 1})


@each([*RAW_FILES, *IN_FOLDER])
def test_a_bad_raw_file_is_refused_by_name_or_its_rows_are_counted(raw: Path, bad: BadInput) -> None:
    path = bad.write(raw)
    if isinstance(bad.expected, Rows):
        assert counted(raw) == bad.expected
        return
    with pytest.raises(InputError) as caught:
        counted(raw)
    assert_refused(caught.value, path, bad.expected)


@each(CATEGORIES)
def test_a_bad_category_file_is_refused_by_name(tmp_path: Path, bad: BadInput) -> None:
    path = bad.write(tmp_path)
    if isinstance(bad.expected, Rows):
        assert len(read_category(str(path)).pages) == bad.expected.accepted
        return
    with pytest.raises(InputError) as caught:
        read_category(str(path))
    assert_refused(caught.value, path, bad.expected)


@each(USERS)
def test_bad_grouped_users_are_refused_by_name(
    tmp_path: Path, local: Engine, bad: BadInput, write_category: Callable[..., Path]
) -> None:
    path = bad.write(tmp_path)
    arguments = ("make_clustering_inputs", path, tmp_path / "out", "--category", write_category("x", "p", "q"))
    unchecked = ("--strict-schema", "false")  # what is asserted holds without it
    if isinstance(bad.expected, Rows):
        assert local.run(*arguments, *unchecked).outputs[0]["users"] == bad.expected.accepted
        return
    with pytest.raises(InputError) as caught:
        local.run(*arguments, *unchecked)
    assert_refused(caught.value, path, bad.expected)
    assert not outputs.is_finished(str(tmp_path / "out"))


def test_the_corpus_has_at_least_600_inputs_that_differ() -> None:
    corpora = {
        "raw": [*RAW_ROWS, *STRANGE_ROWS, *RAW_FILES],
        "folder": IN_FOLDER,
        "category": CATEGORIES,
        "users": USERS,
    }
    seen = Counter((corpus, bad.file, bad.content) for corpus, inputs in corpora.items() for bad in inputs)
    assert [what for what, times in seen.items() if times > 1] == []
    assert len(seen) >= 600
