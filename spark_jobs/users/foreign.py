"""Checks of grouped users that other programs made: they keep the rules of our own, or are refused by file and row.

Our own are checked when they are written. All checks are of whole columns: they cost some hundredths of what is done
with the users next.
"""

from collections.abc import Iterator, Set

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.config import ACTIONS
from spark_jobs.errors import UnreadableFile
from spark_jobs.users.grouping import GROUPED_USER

RAW_ACTIONS = "it holds raw actions, not grouped users. Make these of them with group_by_user"
_RAW_ONLY = {"page_id", "action"}  # columns of raw actions, by which they are told from users


def is_raw(names: Set[str]) -> bool:
    """Whether columns of these names are those of raw actions."""
    return names >= _RAW_ONLY


def check_columns(schema: pa.Schema, location: str) -> None:
    """Check that a Parquet file has the columns of GROUPED_USER; texts and whole numbers may be of any width.

    Raises:
        UnreadableFile: It has not; the message names the column.
    """
    missing = [name for name in GROUPED_USER.names if name not in schema.names]
    if missing:
        raw = is_raw(set(schema.names))
        raise UnreadableFile(location, RAW_ACTIONS if raw else f"it has no column {', '.join(missing)}")
    for name in GROUPED_USER.names:
        if schema.names.count(name) > 1:
            raise UnreadableFile(location, f"it has two columns {name}")
    for name in ("user_id", "gender"):
        if not _is_text(schema.field(name).type):
            raise UnreadableFile(location, f"its column {name} is of type {schema.field(name).type}, not string")
    pages = schema.field("pages").type
    entry = pages.value_type if pa.types.is_list(pages) or pa.types.is_large_list(pages) else None
    if entry is None or not pa.types.is_struct(entry) or not _has_page_fields(entry):
        raise UnreadableFile(location, f"its column pages is of type {pages}, not {GROUPED_USER.field('pages').type}")


def check_users(users: pa.RecordBatch, first: int, location: str) -> None:
    """Check users as they were read.

    Args:
        users: Rows of CODED_USER.
        first: The number of the first row in the file, from 1.
        location: The file, for errors.

    Raises:
        UnreadableFile: One breaks a rule; the message names the row.
    """
    try:
        users.validate(full=True)
    except pa.ArrowInvalid as error:  # such as a text that is not UTF-8
        raise UnreadableFile(location, error) from error
    for rows, why in _broken(users):
        if len(rows):
            raise UnreadableFile(f"{location}, row {first + int(rows[0])}", why)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _has_page_fields(entry: pa.StructType) -> bool:
    kinds = {part.name: part.type for part in entry}
    return (
        len(kinds) == entry.num_fields
        and kinds.keys() == {"page_id", *ACTIONS}
        and _is_text(kinds["page_id"])
        and all(pa.types.is_integer(kinds[action]) for action in ACTIONS)
    )


def _broken(users: pa.RecordBatch) -> Iterator[tuple[np.ndarray, str]]:
    """Rows (m,) that break each rule, and the rule. A later rule is not looked at before those above it hold."""
    user_id, gender, pages = users.columns
    yield _nulls(user_id), "its user_id is missing"
    yield np.flatnonzero(pc.equal(pc.binary_length(user_id), 0)), "its user_id is empty"
    no_gender = pc.fill_null(pc.index_in(gender.dictionary, pa.array([""])), -1).to_numpy() == 0
    yield _nulls(gender), "its gender is missing; '0' stands for unknown"
    yield np.flatnonzero(no_gender[gender.indices.to_numpy()]), "its gender is empty; '0' stands for unknown"
    yield _nulls(pages), "its pages are missing; an empty list stands for none"

    entries = pages.flatten()
    row = np.repeat(np.arange(len(pages)), np.diff(pages.offsets.to_numpy()))
    yield row[_nulls(entries)], "one of its pages is missing"
    page = entries.field("page_id")
    yield row[_nulls(page)], "the page_id of one of its pages is missing"
    empty = pc.equal(page.dictionary, "").to_numpy(zero_copy_only=False)
    if empty.any():
        yield row[empty[page.indices.to_numpy()]], "the page_id of one of its pages is empty"
    for action in ACTIONS:
        count = entries.field(action)
        yield row[_nulls(count)], f"its {action} on one of its pages is missing; 0 stands for none"
        if len(count) and pc.min(count).as_py() < 0:
            yield row[count.to_numpy() < 0], f"its {action} on one of its pages is below 0"
    yield _with_page_twice(row, page), "one of its pages is listed twice"


def _nulls(column: pa.Array) -> np.ndarray:
    return np.flatnonzero(column.is_null()) if column.null_count else np.zeros(0, np.int64)


def _with_page_twice(row: np.ndarray, page: pa.DictionaryArray) -> np.ndarray:
    """Rows that have a page twice, given the row and the page of each entry, which come row by row."""
    if not len(page):
        return np.zeros(0, np.int64)
    ranks = pc.rank(page.dictionary, tiebreaker="dense").to_numpy().astype(np.int64)  # of equal texts the same
    key = row * (int(ranks.max()) + 1) + ranks[page.indices.to_numpy()]
    if (key[1:] > key[:-1]).all():  # as our own users are: each row's pages in order
        return np.zeros(0, np.int64)
    key.sort()
    return np.asarray(key[1:][key[1:] == key[:-1]] // (int(ranks.max()) + 1))
