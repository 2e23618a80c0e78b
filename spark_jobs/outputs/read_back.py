"""Reading back what a job has just written. What is wrong with it goes into an inspection, and is not an error."""

import io
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from spark_jobs import storage
from spark_jobs.outputs.schemas import Inspection
from spark_jobs.outputs.tables import BATCH_ROWS

_LONGEST_LINE = 64 << 20  # bytes of a line that are read at a time


def parquet(folder: str, name: str, inspection: Inspection) -> Iterator[pa.RecordBatch]:
    """The batches of a Parquet table."""
    with _opened(folder, name, inspection) as file:
        table = pq.ParquetFile(file)
        # A table without rows has no batch, but columns that can be wrong.
        empty = pa.RecordBatch.from_pylist([], schema=table.schema_arrow)
        yield from inspection.through(itertools.chain([empty], table.iter_batches(batch_size=BATCH_ROWS)))


def json_rows(folder: str, name: str, inspection: Inspection, *, lines: bool) -> Iterator[pa.RecordBatch]:
    """The rows of a JSON file, one a line or one in all, each as a batch. Fields that the table lacks are ignored."""
    with _opened(folder, name, inspection) as file:
        for text in file if lines else [file.read()]:
            yield from _parse(text, inspection)


def json_lists(folder: str, name: str, inspection: Inspection) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of JSON lines whose last field is a list of texts, with the numbers of the lines.

    A long line is several rows, with a part of the list each.
    """
    last = None
    with _opened(folder, name, inspection) as file:
        for number, text in _cut_lines(io.BufferedReader(file)):
            for batch in _parse(text, inspection):
                yield number, batch
            if number == last:
                inspection.rows -= 1  # the parts of a line count as one row
            last = number


@contextmanager
def _opened(folder: str, name: str, inspection: Inspection) -> Iterator[Any]:
    try:
        with storage.at(storage.join(folder, name)).open("rb") as file:
            yield file
    except (OSError, OverflowError, pa.ArrowException) as error:  # OverflowError: a line is longer than Arrow can take
        inspection.add(f"{name} can't be read back: {error}")


def _parse(text: bytes, inspection: Inspection) -> Iterator[pa.RecordBatch]:
    schema = inspection.rules.schema
    options = pyarrow.json.ParseOptions(
        explicit_schema=schema, newlines_in_values=True, unexpected_field_behavior="ignore"
    )
    read = pyarrow.json.ReadOptions(use_threads=False, block_size=len(text) + 1)
    rows = pyarrow.json.read_json(pa.BufferReader(text), read, options)
    return inspection.through(rows.select(schema.names).combine_chunks().to_batches())


def _cut_lines(file: io.BufferedReader) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers; one longer than `_LONGEST_LINE` as several, with a part of the texts each."""
    number, rest = 0, b""
    while read := file.readline(_LONGEST_LINE):
        text, goes_on = rest + read, len(read) == _LONGEST_LINE and not read.endswith(b"\n")
        cut = text.rfind(b'", "') if goes_on else -1  # within a text a quote has a backslash before it
        if cut >= 0:
            yield number, text[: cut + 1] + b"]}"
            rest = text[: text.index(b"[") + 1] + text[cut + 3 :]
        elif goes_on:
            rest = text
        else:
            yield number, text
            number, rest = number + 1, b""
    if rest:
        yield number, rest
