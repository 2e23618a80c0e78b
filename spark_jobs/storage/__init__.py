"""Files in a local folder or on S3; every location is a plain path or an `s3://` URL.

On S3 all of these raise `S3Error` if it does not answer or refuses a request.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias, Union

from spark_jobs.errors import InputError

if TYPE_CHECKING:
    from upath import UPath

AnyPath: TypeAlias = Union[Path, "UPath"]

_CHUNK = 1 << 20
_SCHEMES = ("s3", "s3a", "file")


def at(location: str | os.PathLike[str]) -> AnyPath:
    """The path object of a location.

    Raises:
        InputError: It is an URL of another kind, such as `gs://`.
    """
    text = os.fspath(location)
    _check_scheme(text)
    if "://" not in text or text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    # Their imports take as long as a small job, so local files do without.
    from upath import UPath

    import spark_jobs.storage.s3  # noqa: F401 # where UPath finds it

    if text.startswith("s3a://"):
        text = "s3://" + text.removeprefix("s3a://")
    return UPath(text)


def absolute(location: str) -> str:
    """The location with a local path made absolute; an URL as it is.

    Raises:
        InputError: It is an URL of another kind, such as `gs://`.
    """
    _check_scheme(location)
    return location.rstrip("/") if "://" in location else os.path.abspath(os.path.expanduser(location))


def _check_scheme(location: str) -> None:
    scheme, separator, _ = location.partition("://")
    if separator and "/" not in scheme and scheme not in _SCHEMES:
        raise InputError(f"{location} is neither a local folder nor on S3: write a path, or s3://bucket/prefix.")


def join(location: str, *parts: str) -> str:
    """A location below another."""
    return "/".join([location.rstrip("/"), *parts])


def read_bytes(location: str) -> bytes:
    """A small file, in one request.

    Raises:
        FileNotFoundError: It does not exist.
    """
    path = at(location)
    if isinstance(path, Path):
        return path.read_bytes()
    from spark_jobs.storage import s3

    return s3.read_object(str(path))[0]


def write_text(location: str, text: str, *, lasting: bool = False) -> None:
    """Write a small file so that a reader sees the old or the new one, never a part.

    Args:
        location: Where.
        text: What.
        lasting: It outlives a power loss from now on; see `settle`.
    """
    with new_file(location, lasting=lasting) as file:
        file.write(text.encode())


@contextmanager
def new_file(location: str, *, lasting: bool = False) -> Iterator[IO[bytes]]:
    """Open a file for writing; it is there, whole, when the body has ended, and not at all if that fails.

    A task that runs twice, even at the same time, leaves one complete file.

    Args:
        location: Where.
        lasting: When the body has ended, the file outlives a power loss.
    """
    path = at(location)
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with draft.open("wb") as file:
                yield file
                if lasting:
                    file.flush()
                    os.fsync(file.fileno())
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        draft.rename(path)
        if lasting:
            _sync(path.parent)
    else:
        from spark_jobs.storage import s3

        with s3.new_object(str(path)) as file:
            yield file


def settle(folder: str) -> None:
    """Let all files below a folder, and the folder itself, outlive a power loss; what is on S3 does so anyway.

    Files are synced together in the end, not one by one as they are written: it is several times as fast.
    """
    path = at(folder)
    if not isinstance(path, Path):
        return
    files = [path / name for name in list_below(folder)]
    # The folders above may be as new as this one: those of its asset, month and category, and the root.
    folders = {parent for file in files for parent in file.parents if parent.is_relative_to(path)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(_sync, [*files, *folders, *path.parents[:4]]))


def _sync(path: Path) -> None:
    """Write to the disk what the kernel has of a file or folder. A folder that can't be read was not written to."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def visible_files(folder: str) -> list[AnyPath]:
    """The files in a folder, by name, but for drafts of `new_file` that a killed task left; none if it is missing."""
    path = at(folder)
    found = path.iterdir() if path.is_dir() else ()
    return sorted((file for file in found if not is_draft(file)), key=str)


def is_draft(path: AnyPath) -> bool:
    """Whether a file is what a killed task has left of `new_file`."""
    return bool(path.name.startswith("."))


@dataclass(frozen=True)
class StoredFile:
    """A file as its store knows it. `digest` changes with the content: S3's ETag, or a SHA-256."""

    location: str
    name: str
    size: int
    digest: str


def list_files(folder: str) -> list[StoredFile]:
    """The files directly in a folder, by name, without hidden ones and markers (`_SUCCESS`); none if it is missing."""
    path = at(folder)
    if not path.is_dir():
        return []
    if isinstance(path, Path):
        local = [entry for entry in path.iterdir() if entry.is_file() and not is_ignored(entry.name)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(describe, local))
    else:  # a listing has size and ETag
        infos = [info for info in path.fs.ls(path.path, detail=True) if info["type"] == "file"]
        found = [file for file in map(_stored_object, infos) if not is_ignored(file.name)]
    return sorted(found, key=lambda file: file.name)


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is not data: it is hidden, or a marker."""
    return name[0] in "._"


@dataclass(frozen=True)
class Entry:
    """Something in a folder. A link is what it points to."""

    location: str
    name: str
    kind: Literal["file", "folder", "broken link", "special file"]


def list_entries(folder: str) -> list[Entry]:
    """All that lies directly in a folder, by name; nothing if it is missing."""
    path = at(folder)
    if not path.is_dir():
        return []
    if isinstance(path, Path):
        found = [_local_entry(entry) for entry in path.iterdir()]
    else:
        kinds: dict[str, Literal["file", "folder"]] = {"file": "file", "directory": "folder"}
        named = [(f"s3://{info['name']}", kinds[info["type"]]) for info in path.fs.ls(path.path, detail=True)]
        found = [Entry(location, location.rpartition("/")[2], kind) for location, kind in named]
    return sorted(found, key=lambda entry: entry.name)


def _local_entry(path: Path) -> Entry:
    if path.is_file():
        return Entry(str(path), path.name, "file")
    if path.is_dir():
        return Entry(str(path), path.name, "folder")
    return Entry(str(path), path.name, "special file" if path.exists() else "broken link")


def describe(path: AnyPath) -> StoredFile:
    """Name, size and content digest of one file."""
    if isinstance(path, Path):
        return StoredFile(str(path), path.name, path.stat().st_size, content_digest(path))
    return _stored_object(path.fs.info(path.path))


def _stored_object(info: dict[str, Any]) -> StoredFile:
    location = f"s3://{info['name']}"
    return StoredFile(location, location.rpartition("/")[2], info["size"], info["ETag"].strip('"'))


def content_digest(path: AnyPath) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def delete_folder(location: str) -> None:
    """Delete a folder and all in it; nothing happens if it is missing."""
    path = at(location)
    if path.exists():
        if isinstance(path, Path):
            shutil.rmtree(path)
        else:
            path.fs.rm(path.path, recursive=True)


@dataclass(frozen=True)
class ListedFile:
    """A file as a listing has it, without reading the file."""

    size: int
    modified: float  # seconds since the epoch, by the clock of its store
    etag: str  # S3's; "" in a local folder


def list_below(folder: str) -> dict[str, ListedFile]:
    """All files below a folder, at any depth, by their path from it; none if it is missing. One listing on S3."""
    path = at(folder)
    if isinstance(path, Path):
        return dict(_scan(path, ""))
    prefix = path.path.rstrip("/") + "/"
    # Objects that S3's console makes for folders are not files.
    return {
        location.removeprefix(prefix): ListedFile(
            info["size"], info["LastModified"].timestamp(), info["ETag"].strip('"')
        )
        for location, info in path.fs.find(path.path, detail=True).items()
        if info["type"] == "file" and location.startswith(prefix) and not location.endswith("/")
    }


def _scan(
    folder: str | Path, prefix: str, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, ListedFile]]:
    """The files below a local folder, in one look at each folder. Links are followed, as by all that reads files.

    A link to a folder `above` it is not: nothing else is behind it, and two of them would give 2^40 paths.
    """
    try:
        at_disk = os.stat(folder)
        here = (at_disk.st_dev, at_disk.st_ino)
        if here in above:
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    yield from _scan(entry.path, f"{prefix}{entry.name}/", above | {here})
                else:
                    with suppress(FileNotFoundError):  # it was deleted meanwhile, or is a broken link
                        stat = entry.stat()
                        yield f"{prefix}{entry.name}", ListedFile(stat.st_size, stat.st_mtime, "")
    except (FileNotFoundError, NotADirectoryError):
        return
