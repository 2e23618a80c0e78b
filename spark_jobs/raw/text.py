"""Text files, in blocks of whole lines."""

import gzip
from collections.abc import Iterator
from typing import IO

BOM = b"\xef\xbb\xbf"

_BLOCK_BYTES = 8 << 20


def read_blocks(file: IO[bytes] | gzip.GzipFile, first: int = 1) -> Iterator[tuple[bytes, int, int]]:
    """Cut text into blocks of whole lines: the bytes, the number of the first line, and how many lines there are."""
    rest = b""
    while chunk := file.read(_BLOCK_BYTES):
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            rest += chunk
            continue
        block, rest = rest + chunk[:cut], chunk[cut:]
        lines = block.count(b"\n")
        yield block, first, lines
        first += lines
    if rest:
        yield rest + b"\n", first, 1
