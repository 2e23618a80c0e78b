"""A raw file of any format in, checked rows out. A new format is a module with a reader, and a line in `FORMATS`."""

from collections.abc import Callable, Iterator
from typing import IO

import pyarrow as pa

from spark_jobs import storage
from spark_jobs.errors import UnreadableFile
from spark_jobs.raw.csv import read_csv
from spark_jobs.raw.json_lines import read_gzipped_json_lines, read_json_lines
from spark_jobs.raw.parquet import read_parquet
from spark_jobs.raw.rules import CheckedRows, Month, RawRows, check_rows

# Reads an open file, given its location for errors.
Reader = Callable[[IO[bytes], str], Iterator[RawRows]]

FORMATS: dict[str, Reader] = {
    ".parquet": read_parquet,
    ".jsonl": read_json_lines,
    ".jsonl.gz": read_gzipped_json_lines,
    ".csv": read_csv,
}


def read_file(location: str, month: Month) -> Iterator[CheckedRows]:
    """Read and check one raw file of any format.

    Raises:
        UnreadableFile: It can't be read, or lacks a column.
    """
    reader_of(location)
    try:
        with storage.at(location).open("rb") as file:
            yield from check_read(location, file, month)
    except OSError as error:
        raise UnreadableFile(location, error) from error


def check_read(location: str, file: IO[bytes], month: Month) -> Iterator[CheckedRows]:
    """Read and check an open raw file of the format that its location's ending names.

    Raises:
        UnreadableFile: It can't be read, or lacks a column.
    """
    try:
        for rows in reader_of(location)(file, location):
            yield check_rows(rows, location, month)
    except (OSError, EOFError, pa.ArrowException, UnicodeError, KeyError) as error:
        raise UnreadableFile(location, error) from error


def check_file_type(location: str) -> None:
    """Check that a file has the ending of a raw format.

    Raises:
        UnreadableFile: It does not.
    """
    reader_of(location)


def reader_of(location: str) -> Reader:
    """The reader of a file's format.

    Raises:
        UnreadableFile: No format has its ending.
    """
    for ending, read in FORMATS.items():
        if location.endswith(ending):
            return read
    raise UnreadableFile(location, f"raw data files end in {', '.join(FORMATS)}")
