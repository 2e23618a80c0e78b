"""Parquet files of other programs, opened so that none of their values is taken for another one."""

from collections.abc import Collection
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

# How Parquet may keep texts for Arrow to read them as codes; it can't do so with what the other encodings give.
_AS_CODES = frozenset({"PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE", "BIT_PACKED"})


def open_parquet(
    file: IO[bytes] | pa.NativeFile, footer: pq.FileMetaData | None = None, codes: Collection[str] = ()
) -> pq.ParquetFile:
    """Open a Parquet file. A damaged page is an error when it is read, if its writer gave it a checksum, as Spark does.

    Args:
        file: The file.
        footer: Its footer, if that was read already; `codes` need it.
        codes: The paths of columns to read as codes of a dictionary, where their encoding allows that.
    """
    return pq.ParquetFile(
        file,
        metadata=footer,
        read_dictionary=[] if footer is None else _as_codes(footer, codes),
        # Spark's old type of timestamps reaches beyond nanoseconds of 64 bits: those would come back as other times.
        coerce_int96_timestamp_unit="s",
        page_checksum_verification=True,
    )


def _as_codes(footer: pq.FileMetaData, paths: Collection[str]) -> list[str]:
    """The paths of columns that Arrow can read as codes in all of the file."""
    number = {footer.schema.column(place).path: place for place in range(footer.num_columns)}
    groups = range(footer.num_row_groups)
    return [
        path
        for path in paths
        if path in number
        and all(_AS_CODES.issuperset(footer.row_group(group).column(number[path]).encodings) for group in groups)
    ]
