"""Text files, in blocks of whole lines. A line ends with LF, CRLF or CR, mixed at will, or with the file."""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from spark_jobs.errors import UnreadableFile

BOM = b"\xef\xbb\xbf"
MAX_LINE_BYTES = 64 << 20  # without its end; a reader needs some multiple of the longest line as memory

_LF, _CR = b"\n\r"
_BLOCK_BYTES = 8 << 20  # that are read at a time; at most MAX_LINE_BYTES


@dataclass(frozen=True)
class Block:
    """Some whole lines of a file, each with its end."""

    data: bytes
    first: int  # number of the first line, from 1
    lines: int
    crs: int = 0  # how many lines end with CR alone

    def split_lines(self) -> list[bytes]:
        """Each line with its end."""
        return self.data.splitlines(keepends=True)  # of bytes: at LF, CRLF and CR only

    def split_first(self) -> tuple[bytes, "Block"]:
        """The first line with its end, and a block of the others."""
        data = self.data
        end = _first_line_end(data)
        cr = data[end] == _CR and not data.startswith(b"\r\n", end)
        end += 2 if data.startswith(b"\r\n", end) else 1
        return data[:end], Block(data[end:], self.first + 1, self.lines - 1, self.crs - cr)


def read_blocks(file: IO[bytes] | gzip.GzipFile, location: str) -> Iterator[Block]:
    """Cut text into blocks of whole lines. A last line without an end is given one.

    Raises:
        UnreadableFile: A line is longer than `MAX_LINE_BYTES`, so that one line can't take all memory.
    """
    rest, first = b"", 1
    while chunk := file.read(_BLOCK_BYTES):
        known, text = len(rest), rest + chunk
        cut = _end_of_whole_lines(text, known)
        # Only a line that began in an earlier chunk, or goes on in a later one, can be too long.
        if known and cut and _first_line_end(text, known - 1) > MAX_LINE_BYTES:
            raise _too_long(location, first)
        data, rest = text[:cut], text[cut:]
        if data:
            block = Block(data, first, *_count_lines(data))
            first += block.lines
            yield block
        if len(rest.removesuffix(b"\r")) > MAX_LINE_BYTES:
            raise _too_long(location, first)
    if rest:
        cr = rest.endswith(b"\r")
        yield Block(rest if cr else rest + b"\n", first, 1, int(cr))


def _end_of_whole_lines(text: bytes, known: int) -> int:
    """Where the last whole line ends; 0 if there is none. The first `known` bytes hold no line end, but at their end.

    A CR that ends the text may be half of a CRLF, so its line is not whole yet.
    """
    start, end = max(0, known - 1), len(text) - text.endswith(b"\r")
    return max(text.rfind(b"\n", start, end), text.rfind(b"\r", start, end)) + 1


def _first_line_end(text: bytes, start: int = 0) -> int:
    """Where the first line's end begins; there is one."""
    found = text.find(b"\n", start)
    before = text.find(b"\r", start, found if found >= 0 else len(text))
    return before if before >= 0 else found


def _count_lines(data: bytes) -> tuple[int, int]:
    """How many lines there are, and how many of them end with CR alone."""
    codes = np.frombuffer(data, np.uint8)  # some times as fast as `bytes.count` where lines are short
    feeds = codes == _LF
    lines = int(np.count_nonzero(feeds))
    if b"\r" not in data:
        return lines, 0
    returns = codes == _CR
    crs = int(np.count_nonzero(returns) - np.count_nonzero(returns[:-1] & feeds[1:]))
    return lines + crs, crs


def _too_long(location: str, line: int) -> UnreadableFile:
    return UnreadableFile(location, f"line {line} is longer than {MAX_LINE_BYTES / 2**20:g} MiB")
