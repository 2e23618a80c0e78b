"""Launches as S3 keeps them: what each was asked to do, what it said, and how it ended.

Below a location, `s3://bucket/prefix`:

    code/SHA256.tar.gz                                               the code of launches, named by its digest
    launch=ID,pipeline=ID,run=ID,label=NAME/                         a launch: its name says whose it is
        description.json                                             what the instance is to do, and how it was launched
        messages/000001.jsonl …, log/000001.txt …, status.json       what the instance writes (see ami/boot.py)
        lease                                                        written again and again by who waits for it
"""

import codecs
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from spark_jobs.errors import InputError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LEASE_SECONDS = 300  # nobody waits for a launch that was not held for so long

Stream = Literal["messages", "log"]

_SUFFIX: dict[Stream, str] = {"messages": "jsonl", "log": "txt"}
_TAIL = 20  # lines of the log that an error shows
_NAME = re.compile(r"launch=([^,/]+),pipeline=([^,/]+),run=([^,/]+),label=([^,/]+)")


@dataclass(frozen=True, order=True)
class LaunchTags:
    """Whose a launch is: the tags of its instance and volume, and the name of its folder."""

    launch: str  # begins with its time, so that launches sort by it
    pipeline: str  # shared by the runs of one pipeline or backfill
    run: str
    label: str  # the short name of its partitions

    @property
    def folder(self) -> str:
        """The name of the launch's folder."""
        return ",".join(f"{name}={value}" for name, value in asdict(self).items())

    @classmethod
    def parse(cls, folder: str) -> "LaunchTags | None":
        """The tags of a folder's name; None if it is no launch's."""
        found = _NAME.fullmatch(folder)
        return cls(*found.groups()) if found else None

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> "LaunchTags | None":
        """Those among the tags of an instance; None if it is no launch's."""
        try:
            return cls(tags["launch"], tags["pipeline"], tags["run"], tags["label"])
        except KeyError:
            return None


class LaunchFolder:
    """One launch's folder."""

    def __init__(self, s3: "S3Client", bucket: str, prefix: str):
        self._s3, self._bucket, self._prefix = s3, bucket, prefix

    @property
    def location(self) -> str:
        """Its URL."""
        return f"s3://{self._bucket}/{self._prefix}"

    @property
    def log(self) -> str:
        """The URL of its log."""
        return f"{self.location}/log/"

    def describe(self, description: dict[str, Any]) -> None:
        """Write what the instance is to do."""
        self._put("description.json", json.dumps(description, indent=1).encode())

    def description(self) -> dict[str, Any]:
        """What the instance was to do, and how it was launched; empty if it was not even described."""
        found = self._get("description.json")
        return {} if found is None else dict(json.loads(found))

    def launched(self) -> dict[str, Any]:
        """The part of the description that says how it was launched."""
        return dict(self.description().get("launched", {}))

    def status(self) -> dict[str, Any] | None:
        """How it ended; None if it did not, or had no chance to say."""
        found = self._get("status.json")
        return None if found is None else dict(json.loads(found))

    def chunk(self, stream: Stream, number: int) -> bytes | None:
        """An object of a stream, counted from 1; None if it is not written yet."""
        return self._get(f"{stream}/{number:06}.{_SUFFIX[stream]}")

    def hold(self) -> None:
        """Say that somebody waits for this launch."""
        self._put("lease", b"")

    def seconds_since_held(self) -> float | None:
        """How long ago somebody last said so, by S3's own clock; None if nobody did."""
        try:
            answer = self._s3.head_object(Bucket=self._bucket, Key=f"{self._prefix}/lease")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return (now - answer["LastModified"]).total_seconds()

    def delete(self) -> None:
        """Delete all of it."""
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + "/"):
            for entry in page.get("Contents", []):
                self._s3.delete_object(Bucket=self._bucket, Key=entry["Key"])

    def _put(self, name: str, body: bytes) -> None:
        self._s3.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}", Body=body)

    def _get(self, name: str) -> bytes | None:
        try:
            return self._s3.get_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}")["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return None
            raise


class Follower:
    """Reads a launch's stream in order, from its beginning, as it is written."""

    def __init__(self, folder: LaunchFolder, stream: Stream):
        self._folder, self._stream = folder, stream
        self.objects = 0  # those read

    def new(self) -> Iterator[bytes]:
        """What was written since it was last asked."""
        while (chunk := self._folder.chunk(self._stream, self.objects + 1)) is not None:
            self.objects += 1
            yield chunk


class BrokenMessage(Exception):
    """A message that can't be read."""


class Transcript:
    """All that a launch says, as it arrives."""

    def __init__(self, folder: LaunchFolder):
        self._messages, self._log = Follower(folder, "messages"), Follower(folder, "log")
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.tail = ""  # of the log
        self.messages = 0  # those that arrived

    @property
    def objects(self) -> dict[str, int]:
        """How many objects of each stream arrived."""
        return {"messages": self._messages.objects, "log": self._log.objects}

    def new_messages(self) -> Iterator[dict[str, Any]]:
        """The messages since it was last asked, after what was logged until then is shown.

        Raises:
            BrokenMessage: One is.
        """
        for chunk in self._log.new():
            text = self._decoder.decode(chunk)
            # As with jobs on this machine, to where Dagster keeps what a step prints.
            sys.stderr.write(text)
            sys.stderr.flush()
            self.tail = "\n".join((self.tail + text).split("\n")[-_TAIL - 1 :])
        for chunk in self._messages.new():
            for line in chunk.splitlines():
                self.messages += 1
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise BrokenMessage(f"message {self.messages} is broken: {error}") from error


class Launches:
    """All launches of a location."""

    def __init__(self, s3: "S3Client", location: str):
        self._s3 = s3
        parts = urlsplit(location)
        if parts.scheme not in ("s3", "s3a") or not parts.netloc:
            raise InputError(f"{location!r} is no place for launches: s3://bucket/prefix is needed.")
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")

    def folder(self, tags: LaunchTags) -> LaunchFolder:
        """The folder of a launch."""
        return LaunchFolder(self._s3, self._bucket, self._key(tags.folder))

    def list(self) -> list[LaunchTags]:
        """All of them, the oldest first."""
        above = self._key("")
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{above}launch=", Delimiter="/"
        )
        names = (
            entry["Prefix"].removeprefix(above).rstrip("/")
            for page in pages
            for entry in page.get("CommonPrefixes", [])
        )
        return sorted(tags for tags in map(LaunchTags.parse, names) if tags is not None)

    def keep_code(self, digest: str, archive: bytes) -> str:
        """Keep an archive of code, unless it is there; its URL."""
        return self.keep(f"{digest}.tar.gz", lambda: archive)

    def keep(self, name: str, make: Callable[[], bytes | Path]) -> str:
        """Keep a file among the code, and make it first unless it is there; its URL.

        Args:
            name: Its name, which no other content has.
            make: Gives its content, or the file that has it.
        """
        key = self._key(f"code/{name}")
        try:
            self._s3.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            content = make()
            if isinstance(content, Path):
                self._s3.upload_file(str(content), self._bucket, key)
            else:
                self._s3.put_object(Bucket=self._bucket, Key=key, Body=content)
        return f"s3://{self._bucket}/{key}"

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name
