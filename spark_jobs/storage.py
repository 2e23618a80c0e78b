"""Files in a local folder or on S3, through fsspec; every location is a plain path or an `s3://` URL."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from upath import UPath

_CHUNK = 1 << 20


def at(location: str | os.PathLike[str]) -> UPath:
    """The path object of a location."""
    text = os.fspath(location)
    if text.startswith("s3a://"):
        text = "s3://" + text.removeprefix("s3a://")
    # s3fs keeps listings for the life of the process, and would not see what others write or delete.
    return UPath(text, use_listings_cache=False) if text.startswith("s3://") else UPath(text)


def absolute(location: str) -> str:
    """The location with a local path made absolute; an URL as it is."""
    return location.rstrip("/") if "://" in location else os.path.abspath(os.path.expanduser(location))


def join(location: str, *parts: str) -> str:
    """A location below another."""
    return "/".join([location.rstrip("/"), *parts])


def write_text(location: str, text: str) -> None:
    """Write a small file so that a reader sees the old or the new one, never a part."""
    path = at(location)
    if path.protocol in ("", "file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(text, encoding="utf-8")
        draft.rename(path)
    else:
        path.write_text(text, encoding="utf-8")


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
    found = sorted(
        (entry for entry in path.iterdir() if entry.is_file() and entry.name[0] not in "._"), key=lambda e: e.name
    )
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(describe, found))


def describe(path: UPath) -> StoredFile:
    """Name, size and content digest of one file."""
    if path.protocol in ("", "file"):
        size, digest = path.stat().st_size, content_digest(path)
    else:
        info = path.fs.info(path.path)
        size, digest = info["size"], info["ETag"].strip('"')
    return StoredFile(str(path), path.name, size, digest)


def content_digest(path: UPath) -> str:
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
        path.fs.rm(path.path, recursive=True)


@dataclass(frozen=True)
class ListedFile:
    """A file as a listing tells of it, with no look inside."""

    size: int
    modified: float  # seconds since the epoch, by the clock of its store
    etag: str  # S3's; "" in a local folder


def list_below(folder: str) -> dict[str, ListedFile]:
    """All files below a folder, at any depth, by their path from it; none if it is missing. One listing on S3."""
    path = at(folder)
    if path.protocol in ("", "file"):
        # What links lead to is there as well, for all else that reads.
        below = [Path(parent, name) for parent, _, names in os.walk(path.path, followlinks=True) for name in names]
        stats = {file.relative_to(path.path).as_posix(): file.stat() for file in below if file.exists()}
        return {name: ListedFile(stat.st_size, stat.st_mtime, "") for name, stat in stats.items()}
    prefix = path.path.rstrip("/") + "/"
    # Objects that S3's console makes to stand for folders are no files.
    return {
        location.removeprefix(prefix): ListedFile(
            info["size"], info["LastModified"].timestamp(), info["ETag"].strip('"')
        )
        for location, info in path.fs.find(path.path, detail=True).items()
        if info["type"] == "file" and location.startswith(prefix) and not location.endswith("/")
    }
