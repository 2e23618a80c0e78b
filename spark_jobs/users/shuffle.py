"""The shuffle that groups a month: raw files are split by user into buckets, and each bucket becomes a file of users.

Its functions run in the tasks of an engine, in other processes.
"""

import contextlib
import math
from collections.abc import Generator, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from spark_jobs import engines, storage
from spark_jobs.config import ACTIONS
from spark_jobs.engines.pieces import pack, unpack
from spark_jobs.errors import UnreadableFile
from spark_jobs.outputs.schemas import strictness
from spark_jobs.outputs.tables import write_table
from spark_jobs.raw.files import read_file
from spark_jobs.raw.rules import ACCEPTED, REJECT, Month
from spark_jobs.raw.small_files import put_together, read_together
from spark_jobs.users.counts import RawCounts, UserCounts, exact_sum
from spark_jobs.users.grouping import USERS, nest_users, split_by_user

_RAW_BYTES_A_FILE = 16 << 20  # compressed raw bytes whose users make one output file
_MANY_FILES = 256
_ROWS_AT_A_TIME = 1 << 18  # that are split
_ROWS_A_PIECE = 1 << 10  # of what was split
_TEXT_RATIO = 8  # how much larger text is than the same actions compressed
# Of memory, measured: see benchmarks/profiles.
_SPLIT_BYTES = 350 << 20
_ROW_BYTES = 200
_MERGE_RATIO = 20.0


def grouping_exchange(
    raw: str, files: Sequence[storage.StoredFile], month: Month, folder: str, strict: bool
) -> engines.Exchange[list[tuple[int, str]], RawCounts, UserCounts]:
    """The exchange that groups a month's raw files by user.

    Args:
        raw: Their folder, for errors.
        files: The raw files.
        month: The month that their timestamps must lie in.
        folder: The output, which gets `users/` and `rejects/`.
        strict: Whether all rows are checked between its steps.
    """
    buckets = _buckets(files)
    rows_at_a_time = max(_ROWS_AT_A_TIME, _ROWS_A_PIECE * buckets)
    checked = strictness(strict)
    bundles = put_together(files)

    def split(item: list[tuple[int, str]]) -> Generator[dict[int, bytes], None, RawCounts]:
        counts = RawCounts()
        for rows in _in_large_batches(_read_raw_files(folder, item, month, counts), rows_at_a_time):
            actions = checked(ACCEPTED, rows)
            yield {bucket: pack(part) for bucket, part in split_by_user(actions, buckets)}
        return counts

    def merge(bucket: int, parts: Iterator[bytes]) -> UserCounts:
        actions = pa.Table.from_batches([unpack(part) for part in parts])
        return write_users(folder, bucket, checked(USERS, nest_users(checked(ACCEPTED, actions))))

    return engines.Exchange(
        f"Grouping {raw}",
        [[(number, files[number].location) for number in bundle] for bundle in bundles],
        [sum(_compressed_size(files[number]) for number in bundle) for bundle in bundles],
        split,
        merge,
        buckets,
        engines.Demand(_SPLIT_BYTES + _ROW_BYTES * rows_at_a_time, _MERGE_RATIO),
        [len(bundle) for bundle in bundles],
    )


def write_users(folder: str, number: int, users: pa.Table) -> UserCounts:
    """Write a file of users (rows of GROUPED_USER); what it holds."""
    write_table(folder, f"users/part-{number:05d}.parquet", users)
    pages = users["pages"].combine_chunks().flatten()
    actions = sum(exact_sum(pages.field(action).to_numpy()) for action in ACTIONS)
    return UserCounts(users.num_rows, len(pages), actions)


def _buckets(files: Sequence[storage.StoredFile]) -> int:
    """How many files of users there will be. Those of a huge month are larger, or there would be too many pieces."""
    size = max(1, math.ceil(sum(map(_compressed_size, files)) / _RAW_BYTES_A_FILE))
    return size if size <= _MANY_FILES else round(math.sqrt(_MANY_FILES * size))


def _compressed_size(file: storage.StoredFile) -> int:
    return file.size if file.name.endswith((".parquet", ".gz")) else file.size // _TEXT_RATIO


def _read_raw_files(
    folder: str, files: Sequence[tuple[int, str]], month: Month, counts: RawCounts
) -> Iterator[pa.RecordBatch]:
    """Yield the accepted rows of raw files, given their numbers; write the rejects of each, and count both."""
    if len(files) == 1:
        yield from _read_raw_file(folder, *files[0], month, counts)
        return
    found = read_together([location for _, location in files], month)
    for checked in found.rows:
        counts.rows += checked.accepted.num_rows + checked.rejected.num_rows
        counts.actions.update(_sum_actions(checked.accepted))
        yield checked.accepted
    for place, (number, location) in enumerate(files):
        if place in found.alone:
            yield from _read_raw_file(folder, number, location, month, counts)
        elif place in found.rejects:
            with _rejects_file(folder, number) as rejects:
                for rejected in found.rejects[place]:
                    rejects.write_batch(rejected)
                    counts.rejects.update(rejected.column("reason").to_pylist())


def _read_raw_file(
    folder: str, number: int, location: str, month: Month, counts: RawCounts
) -> Iterator[pa.RecordBatch]:
    """Yield a raw file's accepted rows; write its rejects, and count both."""
    rejects: pq.ParquetWriter | None = None
    with contextlib.ExitStack() as files:
        try:
            for checked in read_file(location, month):
                counts.rows += checked.accepted.num_rows + checked.rejected.num_rows
                counts.actions.update(_sum_actions(checked.accepted))
                if checked.rejected.num_rows:
                    if rejects is None:
                        rejects = files.enter_context(_rejects_file(folder, number))
                    rejects.write_batch(checked.rejected)
                    counts.rejects.update(checked.rejected.column("reason").to_pylist())
                yield checked.accepted
        except UnreadableFile as error:
            counts.unreadable.append(str(error))  # the job names all such files at once, not just the first


@contextlib.contextmanager
def _rejects_file(folder: str, number: int) -> Iterator[pq.ParquetWriter]:
    """The file of a raw file's rejects, which has its number."""
    name = f"rejects/part-{number:05d}.parquet"
    with storage.new_file(storage.join(folder, name)) as file, pq.ParquetWriter(file, REJECT) as rejects:
        yield rejects


def _sum_actions(accepted: pa.RecordBatch) -> dict[str, int]:
    """How many of each action some accepted rows are."""
    action, count = accepted.column("action").to_numpy(), accepted.column("count").to_numpy()
    return {name: exact_sum(count[action == place]) for place, name in enumerate(ACTIONS)}


def _in_large_batches(batches: Iterator[pa.RecordBatch], least: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of at least so many: each batch that is split costs a piece in every bucket."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(rows.num_rows for rows in waiting) >= least:
            yield from _concatenated(waiting)
            waiting = []
    yield from _concatenated(waiting)


def _concatenated(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    if len(batches) < 2:
        yield from batches
    else:
        yield from pa.Table.from_batches(batches).unify_dictionaries().combine_chunks().to_batches()
