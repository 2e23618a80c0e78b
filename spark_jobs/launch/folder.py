"""The folder of a launch: what each object in it is called, and S3 as the place where it lies."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from spark_jobs import kms
from spark_jobs.launch.status import SCHEMA_VERSION, Status
from spark_jobs.missing_objects import is_missing
from spark_jobs.schema_versions import FIELD, check_schema_version

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Stream = Literal["messages", "log"]

_SUFFIX: dict[Stream, str] = {"messages": "jsonl", "log": "txt"}
_DESCRIPTION, _STATUS, _LEASE = "description.json", "status.json", "lease"
_DENIED_MEANS_MISSING_SECONDS = 60.0
_REFUSED_SECONDS = 120.0  # how long S3 may refuse: new roles and their rights take a moment to be known everywhere

Answer = TypeVar("Answer")


class Folder(ABC):
    """The folder of one launch, wherever it lies.

    Attributes:
        location: Its URL.
    """

    location: str

    @abstractmethod
    def put(self, name: str, body: bytes) -> None:
        """Write an object."""

    @abstractmethod
    def get(self, name: str) -> bytes | None:
        """Read an object; None if it does not exist."""

    @abstractmethod
    def age(self, name: str) -> float | None:
        """Seconds since an object was last written, by the clock of where it lies; None if it does not exist."""

    @property
    def log(self) -> str:
        """The URL of the log."""
        return f"{self.location}/log/"

    def describe(self, description: dict[str, Any]) -> None:
        """Write what the launch is to do."""
        self.put(_DESCRIPTION, json.dumps({FIELD: SCHEMA_VERSION, **description}, indent=1).encode())

    def description(self) -> dict[str, Any]:
        """What the launch is to do, and how it was launched; empty if that was not written.

        Raises:
            NewerVersion: A newer version launched it.
        """
        found = self.get(_DESCRIPTION)
        if found is None:
            return {}
        said = dict(json.loads(found))
        check_schema_version(said, f"{self.location}/{_DESCRIPTION}", SCHEMA_VERSION)
        said.pop(FIELD, None)
        return said

    def put_object(self, stream: Stream, number: int, body: bytes) -> None:
        """Write an object of a stream, counted from 1."""
        self.put(_object(stream, number), body)

    def get_object(self, stream: Stream, number: int) -> bytes | None:
        """Read an object of a stream, counted from 1; None if it is not written yet."""
        return self.get(_object(stream, number))

    def end(self, status: Status) -> None:
        """Write how the launch ended, after all else."""
        self.put(_STATUS, status.as_json())

    def status(self) -> Status | None:
        """How the launch ended; None if it did not, or could not write it.

        Raises:
            NewerVersion: A newer version ran it.
        """
        found = self.get(_STATUS)
        if found is None:
            return None
        check_schema_version(json.loads(found), f"{self.location}/{_STATUS}", SCHEMA_VERSION)
        return Status.parse(found)

    def renew_lease(self) -> None:
        """Say that somebody waits for the launch."""
        self.put(_LEASE, b"")

    def lease_age(self) -> float | None:
        """Seconds since the lease was last renewed; None if there is no lease."""
        return self.age(_LEASE)


class S3Folder(Folder):
    """A folder on S3."""

    def __init__(self, s3: "S3Client", location: str):
        parts = urlsplit(location)
        self._s3, self._bucket, self._prefix = s3, parts.netloc, parts.path.strip("/")
        self.location = f"s3://{self._bucket}/{self._prefix}"
        self._denied_means_missing_until = 0.0  # by time.monotonic

    def put(self, name: str, body: bytes) -> None:
        self._s3.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}", Body=body)

    def get(self, name: str) -> bytes | None:
        key = f"{self._prefix}/{name}"
        answer = self._read(name, lambda: self._s3.get_object(Bucket=self._bucket, Key=key))
        return None if answer is None else answer["Body"].read()

    def age(self, name: str) -> float | None:
        key = f"{self._prefix}/{name}"
        answer = self._read(name, lambda: self._s3.head_object(Bucket=self._bucket, Key=key))
        if answer is None:
            return None
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return (now - answer["LastModified"]).total_seconds()

    def _read(self, name: str, ask: Callable[[], Answer]) -> Answer | None:
        """What S3 answers; None if the object does not exist."""
        try:
            return ask()
        except ClientError as error:
            if self._is_missing(name, error):
                return None
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
                raise
        # It is refused, and is there: somebody may have written it after the request and before the listing.
        return ask()

    def _is_missing(self, name: str, error: ClientError) -> bool:
        """Whether an object does not exist, after a request to read it failed.

        The folder is polled every second or so. If S3 answered 403 and a listing showed that this means a missing
        object, it is taken to mean the same for a minute: a listing costs ten times as much as a read.
        """
        if kms.is_denied(error.response["Error"].get("Message", "")):
            return False
        if error.response["Error"]["Code"] == "AccessDenied" and time.monotonic() < self._denied_means_missing_until:
            return True
        missing = is_missing(self._s3, self._bucket, f"{self._prefix}/{name}", error)
        if missing and error.response["ResponseMetadata"]["HTTPStatusCode"] == 403:
            self._denied_means_missing_until = time.monotonic() + _DENIED_MEANS_MISSING_SECONDS
        return missing

    def delete(self) -> None:
        """Delete all of it."""
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + "/"):
            for entry in page.get("Contents", []):
                self._s3.delete_object(Bucket=self._bucket, Key=entry["Key"])


class RetryingFolder(Folder):
    """A folder whose objects are read and written in as many attempts as it takes, unless that is refused.

    The machine's deadline is the only limit: an agent that gave up would lose what its jobs report.
    """

    def __init__(self, folder: Folder, sleep: Callable[[float], None] = time.sleep):
        self._folder, self._sleep = folder, sleep
        self.location = folder.location

    def put(self, name: str, body: bytes) -> None:
        self._retry(lambda: self._folder.put(name, body))

    def get(self, name: str) -> bytes | None:
        return self._retry(lambda: self._folder.get(name))

    def age(self, name: str) -> float | None:
        """As that of the folder itself, in one attempt: who asks for it asks again."""
        return self._folder.age(name)

    def _retry(self, request: Callable[[], Answer]) -> Answer:
        wait, began = 0.2, time.monotonic()
        while True:
            try:
                return request()
            except (BotoCoreError, ClientError, OSError) as error:
                if isinstance(error, ClientError):
                    code = error.response["ResponseMetadata"]["HTTPStatusCode"]
                    if code == 404 or (code == 403 and time.monotonic() - began > _REFUSED_SECONDS):
                        raise
                print(f"S3: {error}; again in {wait:.1f} s", flush=True)
            self._sleep(wait)
            wait = min(wait * 2, 5)


def _object(stream: Stream, number: int) -> str:
    return f"{stream}/{number:06}.{_SUFFIX[stream]}"
