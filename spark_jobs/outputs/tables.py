"""Parquet tables of outputs."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from spark_jobs import storage
from spark_jobs.outputs.manifest import broken

BATCH_ROWS = 1 << 18  # that are read at a time


def write_table(folder: str, name: str, table: pa.Table) -> None:
    """Write a table. The same table gives the same bytes."""
    with storage.new_file(storage.join(folder, name)) as file:
        pq.write_table(table, file, compression="zstd")


def read_table(folder: str, name: str, columns: list[str] | None = None) -> pa.Table:
    """One table of an output.

    Raises:
        InputError: It is gone, or can't be read.
    """
    location = storage.join(folder, name)
    try:
        with storage.at(location).open("rb") as file:
            return pq.ParquetFile(file).read(columns)
    except (OSError, pa.ArrowException) as error:
        raise broken(folder, location, error) from error


def read_batches(folder: str, name: str, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a table, or some of its columns, batch by batch: the table is never in memory as a whole."""
    with storage.at(storage.join(folder, name)).open("rb") as file:
        yield from pq.ParquetFile(file).iter_batches(batch_size=BATCH_ROWS, columns=columns)


def of_equal_size(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of the size that `read_batches` gives."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        rest = batch
        while rest.num_rows:
            waiting.append(rest.slice(0, BATCH_ROWS - sum(part.num_rows for part in waiting)))
            rest = rest.slice(waiting[-1].num_rows)
            if sum(part.num_rows for part in waiting) == BATCH_ROWS:
                yield _concatenated(waiting)
                waiting = []
    if waiting:
        yield _concatenated(waiting)


def _concatenated(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
