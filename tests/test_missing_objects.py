"""S3 answers 403 for what does not exist to whoever may list by prefix only: that is told from a refusal."""

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from io import BytesIO
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest
from botocore.exceptions import ClientError

from audience_explorer_dagster.launchers.launch_store import LaunchStore
from spark_jobs.launch import folder
from spark_jobs.launch.folder import S3Folder
from spark_jobs.missing_objects import is_missing
from spark_jobs.storage import s3 as storage_s3


def refusal(status: int, code: str) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetObject")


DENIED, DENIED_HEAD = refusal(403, "AccessDenied"), refusal(403, "403")


class Bucket:
    """A bucket with keys, of which reads are refused, and which can be listed or not."""

    def __init__(self, *keys: str, error: ClientError = DENIED, listable: bool = True):
        self.keys, self.error, self.listable = sorted(keys), error, listable
        self.listed = 0
        self.put: list[str] = []

    def get_object(self, **_: Any) -> None:
        raise self.error

    head_object = get_object

    def put_object(self, Key: str, **_: Any) -> None:
        self.put.append(Key)

    def list_objects_v2(self, Prefix: str, MaxKeys: int, **_: Any) -> dict[str, Any]:
        self.listed += 1
        if not self.listable:
            raise DENIED
        return {"Contents": [{"Key": key} for key in self.keys if key.startswith(Prefix)][:MaxKeys]}


@pytest.mark.parametrize(
    ("bucket", "missing"),
    [
        (Bucket(error=DENIED), True),
        (Bucket("a/b.json", error=DENIED), True),
        (Bucket("a/b", "a/b.json", error=DENIED), False),
        (Bucket(error=DENIED, listable=False), False),
        (Bucket(error=refusal(404, "NoSuchKey"), listable=False), True),
        (Bucket(error=refusal(404, "NoSuchBucket")), False),
        (Bucket(error=refusal(400, "ExpiredToken")), False),
        (Bucket(error=refusal(503, "SlowDown")), False),
    ],
)
def test_an_object_is_missing_if_s3_says_so_or_denies_it_and_lists_it_not(bucket: Bucket, missing: bool) -> None:
    assert is_missing(cast(Any, bucket), "bucket", "a/b", bucket.error) == missing


class Refusing(Bucket):
    """A bucket that refuses the first request, and has the object by the time that it is listed."""

    def __init__(self, key: str):
        super().__init__(key)
        self.denials = [True]

    def get_object(self, **_: Any) -> dict[str, Any]:
        return {"Body": BytesIO(b"{}")} if not self.denials else self._refuse()

    def head_object(self, **_: Any) -> dict[str, Any]:
        written = datetime(2026, 11, 28, tzinfo=timezone.utc)
        headers = {"date": format_datetime(written + timedelta(seconds=7))}
        answer = {"LastModified": written, "ResponseMetadata": {"HTTPHeaders": headers}}
        return answer if not self.denials else self._refuse()

    def _refuse(self) -> NoReturn:
        self.denials.clear()
        raise self.error


def test_an_object_that_is_written_between_its_refusal_and_the_listing_is_read() -> None:
    """Else a launch that is polled would fail when a message comes at the wrong moment."""
    launch = S3Folder(cast(Any, Refusing("launches/launch=1/messages/000001.jsonl")), "s3://bucket/launches/launch=1")
    assert launch.get_object("messages", 1) == b"{}"


def test_a_lease_that_is_refused_for_a_moment_is_not_taken_for_a_deleted_one() -> None:
    """Else jobs on EMR would be killed because the role was not known for a moment."""
    launch = S3Folder(cast(Any, Refusing("launches/launch=1/lease")), "s3://bucket/launches/launch=1")
    assert launch.lease_age() == 7


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(folder, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_a_launch_that_is_polled_is_listed_once_a_minute(clock: SimpleNamespace) -> None:
    bucket = Bucket()
    launch = S3Folder(cast(Any, bucket), "s3://bucket/launches/launch=1")
    for _ in range(10):
        assert launch.status() is None
        assert launch.get_object("messages", 1) is None
    assert bucket.listed == 1
    clock.now += 61
    assert launch.status() is None
    assert bucket.listed == 2


def test_a_launch_that_must_not_be_read_is_an_error_and_not_one_without_a_status() -> None:
    bucket = Bucket("launches/launch=1/status.json")
    launch = S3Folder(cast(Any, bucket), "s3://bucket/launches/launch=1")
    with pytest.raises(ClientError, match="AccessDenied"):
        launch.status()
    bucket.listable = False
    with pytest.raises(ClientError, match="AccessDenied"):
        launch.get_object("messages", 1)


def test_a_lease_that_was_deleted_has_no_age() -> None:
    launch = S3Folder(cast(Any, Bucket(error=DENIED_HEAD)), "s3://bucket/launches/launch=1")
    assert launch.lease_age() is None


def test_code_that_is_not_there_yet_is_kept_and_what_must_not_be_seen_is_an_error() -> None:
    bucket = Bucket(error=DENIED_HEAD)
    assert LaunchStore(cast(Any, bucket), "s3://bucket/launches").keep_code("1", b"") == (
        "s3://bucket/launches/code/1.tar.gz"
    )
    assert bucket.put == ["launches/code/1.tar.gz"]
    with pytest.raises(ClientError):
        LaunchStore(cast(Any, Bucket(error=DENIED_HEAD, listable=False)), "s3://bucket/launches").keep_code("1", b"")


def test_a_file_that_does_not_exist_is_missing_to_the_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(client: Bucket) -> None:
        place: Any = SimpleNamespace(name="bucket", client=client, location=lambda key: f"s3://bucket/{key}")
        monkeypatch.setattr(storage_s3, "_split", lambda _: (place, "a"))
        storage_s3.S3FileSystem().info("s3://bucket/a")

    with pytest.raises(FileNotFoundError):
        found(Bucket(error=DENIED_HEAD))
    with pytest.raises(Exception, match="S3 denies access to s3://bucket/a"):
        found(Bucket("a", error=DENIED_HEAD))
