"""The launch store: launches as S3 keeps them, and the code that they run.

Below a location, `s3://bucket/prefix`:

    code/SHA256.tar.gz                                               the code of launches, named by its digest
    launch=ID,pipeline=ID,run=ID,label=NAME/                         a launch: its name says whose it is, and what is
                                                                     in it is explained in `spark_jobs/launch`
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import dagster as dg
from botocore.exceptions import ClientError

from audience_explorer_dagster.launchers import PIPELINE_TAG
from audience_explorer_dagster.partitions import Partition, short_name
from audience_explorer_dagster.store import new_folder_name
from spark_jobs.errors import InputError
from spark_jobs.launch.folder import S3Folder
from spark_jobs.missing_objects import is_missing

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

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
        """The tags of a folder's name; None if it is not a launch's."""
        found = _NAME.fullmatch(folder)
        return cls(*found.groups()) if found else None

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> "LaunchTags | None":
        """Those among the tags of an instance; None if it is not a launch's."""
        try:
            return cls(tags["launch"], tags["pipeline"], tags["run"], tags["label"])
        except KeyError:
            return None


class LaunchStore:
    """All launches below a location, and their code."""

    def __init__(self, s3: "S3Client", location: str):
        self._s3 = s3
        parts = urlsplit(location)
        if parts.scheme not in ("s3", "s3a") or not parts.netloc:
            raise InputError(f"{location!r} is not a place for launches: s3://bucket/prefix is needed.")
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")

    def folder(self, tags: LaunchTags) -> S3Folder:
        """The folder of a launch."""
        return S3Folder(self._s3, f"s3://{self._bucket}/{self._key(tags.folder)}")

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
        if not self.keeps(name):
            content = make()
            if isinstance(content, Path):
                self._s3.upload_file(str(content), self._bucket, key)
            else:
                self._s3.put_object(Bucket=self._bucket, Key=key, Body=content)
        return f"s3://{self._bucket}/{key}"

    def keeps(self, name: str) -> bool:
        """Whether a file is among the code."""
        key = self._key(f"code/{name}")
        try:
            self._s3.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if not is_missing(self._s3, self._bucket, key, error):
                raise
            return False
        return True

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name


def new_launch_tags(context: dg.OpExecutionContext) -> LaunchTags:
    """The tags of a new launch of a run."""
    run = context.run
    pipeline = run.tags.get(PIPELINE_TAG) or run.tags.get("dagster/backfill") or run.root_run_id or run.run_id
    label = short_name([Partition.parse(key) for key in context.partition_keys])
    return LaunchTags(launch=new_folder_name(), pipeline=pipeline, run=run.run_id, label=label)
