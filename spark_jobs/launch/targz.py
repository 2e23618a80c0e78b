"""Archives that are the same file whenever they have the same content, so that a digest can name them."""

import gzip
import io
import tarfile
from collections.abc import Collection, Iterable
from typing import IO


def write_tar_gz(target: IO[bytes], files: Iterable[tuple[str, bytes]], executable: Collection[str] = ()) -> None:
    """Write a tar.gz that depends on nothing but its files: neither on times, nor on owners or rights on this disk.

    Args:
        target: The file to write to.
        files: Their names and contents, in the order in which the archive has them.
        executable: The names of those that are programs.
    """
    with (
        gzip.GzipFile(filename="", fileobj=target, mode="wb", compresslevel=6, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755 if name in executable else 0o644
            tar.addfile(entry, io.BytesIO(content))
