"""Raw actions as Parquet."""

from collections.abc import Iterator
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spark_jobs.errors import UnreadableFile
from spark_jobs.parquet_files import open_parquet
from spark_jobs.raw.rules import NOT_UTF8, RAW, REPETITIVE, RawRows, by_code, require_columns
from spark_jobs.raw.timestamps import UTC_SECONDS

_ROWS = 1 << 19  # that are read at a time


def read_parquet(file: IO[bytes], location: str) -> Iterator[RawRows]:
    """Read an open Parquet file, batch by batch.

    Raises:
        UnreadableFile: It lacks a column, or one is of a wrong type.
    """
    footer = pq.read_metadata(file)
    schema = footer.schema.to_arrow_schema()
    names = set(schema.names)
    require_columns(names, location)
    _check_columns(schema, location)
    parquet = open_parquet(file, footer, codes=REPETITIVE)
    line = 1
    wanted = [name for name in RAW.names if name in names]
    for batch in parquet.iter_batches(batch_size=_ROWS, columns=wanted, use_threads=False):  # tasks run one a core
        yield to_raw_rows(batch, np.arange(line, line + batch.num_rows))
        line += batch.num_rows


def read_small_parquet(data: bytes, most_rows: int) -> pa.Table | None:
    """The columns of a small Parquet file that raw actions have; None if it has more rows.

    Raises:
        UnreadableFile: It lacks a column, or one is of a wrong type; the error names no file.
    """
    parquet = open_parquet(pa.BufferReader(data))
    if parquet.metadata.num_rows > most_rows:
        return None
    names = set(parquet.schema_arrow.names)
    require_columns(names, "")
    _check_columns(parquet.schema_arrow, "")
    wanted = [name for name in RAW.names if name in names]
    table = parquet.read(columns=wanted, use_threads=False)
    return pa.Table.from_arrays([table[name] for name in wanted], wanted)


def to_raw_rows(batch: pa.RecordBatch, lines: np.ndarray) -> RawRows:
    """The rows of a batch of Parquet whose lines (rows of the file) are given; those that are not UTF-8 are broken."""
    names = set(batch.schema.names)
    columns = [
        _as_raw(batch.column(field.name), field) if field.name in names else pa.nulls(batch.num_rows, field.type)
        for field in RAW
    ]
    good = np.logical_and.reduce([_is_utf8(column) for column in columns])
    if not good.all():
        columns = [_with_utf8_values(column).filter(pa.array(good)) for column in columns]
    return RawRows(pa.table(columns, RAW.names), lines[good], [(int(broken), NOT_UTF8) for broken in lines[~good]])


def _is_utf8(column: pa.Array) -> np.ndarray:
    """Of each row (n,) whether its text, if the column has texts, is UTF-8."""
    if pa.types.is_dictionary(column.type):
        return by_code(column, pa.array(_is_utf8(column.dictionary)), True)
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return np.array([_decodes(value) for value in column.cast(pa.binary()).to_pylist()], bool)
    return np.ones(len(column), bool)


def _with_utf8_values(column: pa.Array) -> pa.Array:
    """The column with its dictionary's texts that are not UTF-8 made empty: Arrow reads all of them, used or not."""
    if not pa.types.is_dictionary(column.type):
        return column
    values = column.dictionary
    values = pc.if_else(pa.array(_is_utf8(values)), values, "")
    return pa.DictionaryArray.from_arrays(column.indices, values)


def _decodes(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_columns(schema: pa.Schema, location: str) -> None:
    for field in RAW:
        if schema.names.count(field.name) > 1:
            raise UnreadableFile(location, f"it has the column {field.name} twice")
        if field.name in schema.names:
            kind = _type_of_values(schema.field(field.name).type)
            fits = {
                "count": pa.types.is_integer(kind),
                "timestamp": pa.types.is_timestamp(kind) or _is_text(kind),
            }.get(field.name, _is_text(kind))
            if not fits and not pa.types.is_null(kind):
                raise UnreadableFile(location, f"its column {field.name} is of type {kind}, not {field.type}")


def _type_of_values(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _as_raw(column: pa.Array, field: pa.Field) -> pa.Array:
    kind = _type_of_values(column.type)
    if pa.types.is_dictionary(column.type):
        if _is_text(kind) and field.name != "timestamp":
            values = column.dictionary.cast(field.type)
            return pa.DictionaryArray.from_arrays(column.indices.cast(pa.int32()), values)
        column = column.dictionary_decode()
    if pa.types.is_timestamp(kind):
        # A timestamp without a zone is in UTC, by the contract.
        return column.cast(pa.timestamp("s", tz=kind.tz or "UTC"), safe=False).cast(UTC_SECONDS)
    if kind == pa.uint64():
        # A count beyond 2^63-1 breaks the rule, and so does 0, which stands for it.
        largest = pa.scalar(2**63 - 1, pa.uint64())
        column = pc.if_else(pc.less_equal(column, largest), column, pa.scalar(0, pa.uint64()))
    return column.cast(field.type)
