"""Reading grouped users: our own output, any Parquet of its layout, or the predecessor's JSON lines."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from spark_jobs import outputs, storage
from spark_jobs.config import ACTIONS
from spark_jobs.errors import InputError, UnreadableFile
from spark_jobs.outputs.fingerprints import files_fingerprint
from spark_jobs.parquet_files import open_parquet
from spark_jobs.raw.text import BOM, read_blocks
from spark_jobs.users.foreign import RAW_ACTIONS, check_columns, check_users, is_raw
from spark_jobs.users.grouping import CODED_USER, GROUPED_USER, UNKNOWN_GENDER

_STEP = "grouped_users"
_USERS_A_BATCH = 1 << 16
_NO_ACTIONS = dict.fromkeys(ACTIONS, 0)


def fingerprint_of(location: str) -> str:
    """The fingerprint of grouped users: their manifest's, or that of the files' content where they have none.

    Raises:
        InputError: There are no grouped users.
    """
    if outputs.is_finished(location):
        fingerprint: str = outputs.read_manifest(location, _STEP)["fingerprint"]
        return fingerprint
    return files_fingerprint(_files(location))


def users_of(location: str) -> int | None:
    """How many users a month's grouped users are; None where they have no manifest that says so."""
    if not outputs.is_finished(location):
        return None
    users: int | None = outputs.read_manifest(location, _STEP)["rows"].get("users")
    return users


@dataclass(frozen=True)
class Part:
    """A file of grouped users."""

    bytes: int
    read: Callable[[], Iterator[pa.RecordBatch]]  # rows of CODED_USER


def list_parts(location: str) -> list[Part]:
    """The files of grouped users in an output folder, in a folder of files, or of a file alone.

    Raises:
        InputError: There are no files, or some are of an unknown type.
    """
    # File by file, as the manifest lists them: an engine's own reader takes a path as a pattern, and skips files that
    # don't match it or are gone.
    if outputs.is_finished(location):
        listed = outputs.read_manifest(location, _STEP)["files"]
        return [
            Part(file["bytes"], partial(_read_part, location, storage.join(location, file["path"])))
            for file in listed
            if file["path"].startswith("users/")
        ]
    files = _files(location)
    read_file = read_foreign_parquet if files[0].name.endswith(".parquet") else read_json_lines
    return [Part(file.size, partial(read_file, file.location)) for file in files]


def read_parquet(location: str) -> Iterator[pa.RecordBatch]:
    """A Parquet file of GROUPED_USER, batch by batch, as CODED_USER.

    Raises:
        UnreadableFile: It is gone, or can't be read.
    """
    try:
        with storage.at(location).open("rb") as file:
            footer = pq.read_metadata(file)
            leaves = [footer.schema.column(number).path for number in range(footer.num_columns)]
            often = [leaf for leaf in leaves if leaf == "gender" or leaf.endswith(".page_id")]
            parquet = open_parquet(file, footer, codes=often)
            for group in range(footer.num_row_groups):  # Arrow can't read nested codes across them
                # Tasks run one a core.
                for batch in parquet.iter_batches(_USERS_A_BATCH, [group], GROUPED_USER.names, use_threads=False):
                    yield batch.cast(CODED_USER)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise UnreadableFile(location, error) from error


def read_foreign_parquet(location: str) -> Iterator[pa.RecordBatch]:
    """As `read_parquet`, of a file that another program may have written: it is checked.

    Raises:
        UnreadableFile: It is gone, can't be read, or a user breaks a rule of grouped users; the message names the row.
    """
    try:
        with storage.at(location).open("rb") as file:
            check_columns(pq.read_schema(file), location)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise UnreadableFile(location, error) from error
    row = 1
    for users in read_parquet(location):
        check_users(users, row, location)
        row += users.num_rows
        yield users


def _read_part(folder: str, location: str) -> Iterator[pa.RecordBatch]:
    """A file of our own output."""
    try:
        yield from read_parquet(location)
    except UnreadableFile as error:
        raise outputs.broken(folder, location, error.why) from None


def read_json_lines(location: str) -> Iterator[pa.RecordBatch]:
    """The predecessor's layout: a line a user, with a map page → count for every action.

    Yields:
        Rows of CODED_USER, a user's pages by `page_id`.

    Raises:
        UnreadableFile: A line is not of that layout, or breaks a rule of grouped users; the message names it.
    """
    number = 0
    try:
        with storage.at(location).open("rb") as raw:
            text = gzip.GzipFile(fileobj=raw) if location.endswith(".gz") else raw
            users: list[dict[str, Any]] = []
            for number, line in _numbered_lines(text, location):  # noqa: B007 - the error names it
                if line.strip():
                    users.append(_parse_user(line))
                if len(users) == _USERS_A_BATCH:
                    yield pa.RecordBatch.from_pylist(users, schema=CODED_USER)
                    users = []
            yield pa.RecordBatch.from_pylist(users, schema=CODED_USER)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise UnreadableFile(f"{location}, line {number or 1}", why) from error
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableFile(location, error) from error


def _numbered_lines(text: IO[bytes] | gzip.GzipFile, location: str) -> Iterator[tuple[int, bytes]]:
    for block in read_blocks(text, location):
        yield from enumerate(block.split_lines(), block.first)


def _parse_user(line: bytes) -> dict[str, Any]:
    """A user (a row of CODED_USER) of a line.

    Raises:
        ValueError: The line breaks a rule.
    """
    user = json.loads(line.removeprefix(BOM).decode(), object_pairs_hook=_object_of)
    if not isinstance(user, dict):
        raise ValueError("it is not a JSON object")
    if is_raw(user.keys()):
        raise ValueError(RAW_ACTIONS)
    pages: dict[str, dict[str, Any]] = {}
    for action in ACTIONS:
        entries = {} if user.get(action) is None else user[action]
        if not isinstance(entries, dict):
            raise ValueError(f"{action} is not an object of counts by page")
        for page, count in entries.items():
            if type(count) is not int or not 0 <= count < 2**63:
                raise ValueError(f"{action} of {page!a} is {count!r}, not a whole number from 0 to 2^63-1")
            if page not in pages:
                pages[page] = {"page_id": page, **_NO_ACTIONS}
            pages[page][action] = count
    user_id, gender = user.get("user_id"), user.get("gender") or UNKNOWN_GENDER
    if not isinstance(user_id, str) or not isinstance(gender, str):
        raise ValueError("user_id and gender must be strings")
    if not user_id or "" in pages:
        raise ValueError("user_id or a page's id is empty")
    if b"\\u" in line:
        _check_characters([user_id, gender, *pages])
    return {"user_id": user_id, "gender": gender, "pages": [pages[page] for page in sorted(pages)]}


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Python takes the last one of equal keys, and the counts of the others would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice in one object")
    return found


def _check_characters(texts: Iterable[str]) -> None:
    """Check that no text has half a surrogate pair, which JSON can write and which is not a character."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{text!a} has half a surrogate pair, which is not a character") from None


def _files(location: str) -> list[storage.StoredFile]:
    path = storage.at(location)
    files = [storage.describe(path)] if path.is_file() else storage.list_files(location)
    if not files:
        raise InputError(f"There are no grouped users in {location}. Make them with group_by_user.")
    kinds = {".jsonl" if file.name.endswith((".jsonl", ".jsonl.gz")) else ".parquet" for file in files}
    if len(kinds) > 1 or not all(file.name.endswith((".parquet", ".jsonl", ".jsonl.gz")) for file in files):
        raise InputError(
            f"{location} must hold grouped users as .parquet, or as .jsonl or .jsonl.gz, and nothing else."
        )
    return files
