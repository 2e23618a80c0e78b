"""S3 as `storage` needs it: a file system for fsspec, and so for `UPath`, and errors for a person.

The bytes of objects go through obstore, which reads and writes without the interpreter's lock. All else goes through
boto3: obstore takes the marker `raw/`, which S3's console makes to stand for a folder, for a file `raw`.
"""

import errno
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import fsspec
from fsspec.spec import AbstractFileSystem

from spark_jobs import kms
from spark_jobs.errors import S3Error, as_clause
from spark_jobs.missing_objects import is_missing

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef
    from obstore import WritableFile
    from obstore.store import S3Store

_READ_BYTES = 8 << 20  # that a request for bytes asks for at least, for each takes some 0.1 s
_PART_BYTES = 8 << 20  # of an upload; S3 takes 10,000 parts, so that an object may have 80 GB
_PARTS_AT_A_TIME = 4
_WRITE_BYTES = 1 << 20  # that are collected before they are given to the upload
_KEYS_A_DELETION = 1000  # S3's limit

# S3 may refuse for a while when much is asked of it. Both repeat a request for half a minute, with growing waits:
# https://docs.aws.amazon.com/boto3/latest/guide/retries.html
_RETRIES = {"mode": "standard", "total_max_attempts": 8}
_OBSTORE_RETRIES = {
    "max_retries": 12,
    "backoff": {"init_backoff": timedelta(seconds=0.5), "max_backoff": timedelta(seconds=8), "base": 2},
    "retry_timeout": timedelta(seconds=35),
}
_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 60  # until a request is answered, or goes on with its answer
_REQUEST_SECONDS = 600  # that a request may take in all

# boto3 renews what is good for less than 10 minutes before it hands it out.
_CREDENTIALS_GOOD_FOR = timedelta(minutes=5)


class S3FileSystem(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """S3 for fsspec, to read, list and delete; `new_object` writes. Nothing is cached: others write and delete.

    What is missing is a FileNotFoundError, anything else that goes wrong an S3Error.
    """

    protocol = ("s3", "s3a")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """What is known of an object, or that it is a folder: that there are objects below."""
        bucket, key = _split(path)
        if key:
            try:
                return self._object(bucket, key)
            except FileNotFoundError:
                pass
        if self.isdir(path):
            return {"name": f"{bucket.name}/{key}", "size": 0, "type": "directory"}
        raise _missing(bucket.location(key))

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is an object or a folder."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def isdir(self, path: str) -> bool:
        """Whether there is a folder. A bucket is one, if it is empty too."""
        bucket, key = _split(path)
        if not key:
            return True
        with _errors_of_boto(bucket.location(key)):
            found = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=f"{key}/", MaxKeys=1)
        return bool(found.get("Contents"))

    def isfile(self, path: str) -> bool:
        """Whether there is an object."""
        bucket, key = _split(path)
        try:
            return bool(key and self._object(bucket, key))
        except FileNotFoundError:
            return False

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """The objects and folders directly in a folder, by name."""
        bucket, key = _split(path)
        prefix, found, is_folder = f"{key}/" if key else "", [], not key
        with _errors_of_boto(bucket.location(key)):
            pages = bucket.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket.name, Prefix=prefix, Delimiter="/"):
                is_folder |= "Contents" in page or "CommonPrefixes" in page
                found += [_info(bucket, o) for o in page.get("Contents", []) if not o["Key"].endswith("/")]
                folders = [folder["Prefix"].removesuffix("/") for folder in page.get("CommonPrefixes", [])]
                found += [
                    {"name": f"{bucket.name}/{folder}", "size": 0, "type": "directory"}
                    for folder in folders
                    if folder.removeprefix(prefix)
                ]
        if not is_folder:
            found = [self._object(bucket, key)]
        found.sort(key=lambda info: info["name"])
        return found if detail else [info["name"] for info in found]

    def find(self, path: str, detail: bool = False, **_: Any) -> Any:
        """All objects below a folder, at any depth, without those that stand for folders."""
        bucket, key = _split(path)
        found = {
            info["name"]: info for info in (_info(bucket, o) for o in _below(bucket, key)) if info["name"][-1] != "/"
        }
        return found if detail else sorted(found)

    def rm(self, path: str, recursive: bool = False, **_: Any) -> None:
        """Delete an object, or all that is below a folder; nothing happens if it is missing."""
        bucket, key = _split(path)
        keys = [o["Key"] for o in _below(bucket, key)] if recursive else [key]
        with _errors_of_boto(bucket.location(key)):
            for start in range(0, len(keys), _KEYS_A_DELETION):
                asked = [{"Key": key} for key in keys[start : start + _KEYS_A_DELETION]]
                answer = bucket.client.delete_objects(
                    Bucket=bucket.name,
                    Delete={"Objects": asked, "Quiet": True},  # type: ignore[typeddict-item]
                )
                for error in answer.get("Errors", []):
                    raise S3Error(
                        f"{bucket.location(error.get('Key', ''))} can't be deleted: {error.get('Code')}:"
                        f" {error.get('Message')}"
                    )

    def _open(self, path: str, mode: str = "rb", **_: Any) -> IO[bytes]:
        if mode != "rb":
            raise NotImplementedError("An object is written by storage.new_file.")
        info = self.info(path)
        if info["type"] == "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), f"s3://{info['name']}")
        bucket, key = _split(path)
        return _Buffered(_Reading(bucket, key, info["size"], info["ETag"]))

    def _object(self, bucket: "_Bucket", key: str) -> dict[str, Any]:
        with _errors_of_reading(bucket, key):
            head = bucket.client.head_object(Bucket=bucket.name, Key=key)
        return {
            "name": f"{bucket.name}/{key}",
            "size": head["ContentLength"],
            "type": "file",
            "ETag": head["ETag"],
            "LastModified": head["LastModified"],
        }


# Also if s3fs is installed, which would be found first.
fsspec.register_implementation("s3", S3FileSystem, clobber=True)


@contextmanager
def new_object(location: str) -> Iterator[IO[bytes]]:
    """Write an object; it is there when the body has ended, and not at all if that fails.

    Raises:
        S3Error: S3 does not take it.
    """
    bucket, key = _split(location)
    if bucket.forked:
        with tempfile.TemporaryFile() as draft:
            yield draft
            draft.seek(0)
            with _errors_of_boto(location):
                bucket.client.upload_fileobj(draft, bucket.name, key)
        return
    writing = _Writing(bucket, key)
    file = io.BufferedWriter(writing, _WRITE_BYTES)
    try:
        yield file
        file.close()
        writing.complete()
    except BaseException:
        writing.abort()
        raise


def read_object(location: str) -> tuple[bytes, str]:
    """A small object and its ETag, in one request.

    Raises:
        FileNotFoundError: It does not exist.
    """
    bucket, key = _split(location)
    with _errors_of_reading(bucket, key):
        answer = bucket.client.get_object(Bucket=bucket.name, Key=key)
        return answer["Body"].read(), answer["ETag"].strip('"')


def put_if(location: str, body: bytes, etag: str | None) -> str | None:
    """Write a small object on a condition; its ETag, or None if the condition does not hold.

    Args:
        location: The object.
        body: Its content.
        etag: It is to replace the object with this ETag; None if there is to be none yet.
    """
    from botocore.exceptions import ClientError

    bucket, key = _split(location)
    condition: Any = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
    with _errors_of_boto(location):
        try:
            answer = bucket.client.put_object(Bucket=bucket.name, Key=key, Body=body, **condition)
        except ClientError as error:
            # 409: another request for the same object came in between; 404: there is none to replace.
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 409, 412):
                if error.response["Error"]["Code"] == "NoSuchBucket":
                    raise
                return _etag_if_it_is(location, body)
            raise
    return answer["ETag"].strip('"')


def _etag_if_it_is(location: str, body: bytes) -> str | None:
    """The ETag of an object with this content; None if it has another one, or does not exist.

    A request that S3 carried out, and whose answer was lost, is repeated, and then its condition does not hold.
    """
    with suppress(FileNotFoundError):
        content, etag = read_object(location)
        return etag if content == body else None
    return None


def age(location: str) -> float | None:
    """Seconds since an object was written, by the clock of S3; None if it does not exist."""
    bucket, key = _split(location)
    try:
        with _errors_of_reading(bucket, key):
            head = bucket.client.head_object(Bucket=bucket.name, Key=key)
    except FileNotFoundError:
        return None
    now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
    return (now - head["LastModified"]).total_seconds()


def unfinished_uploads(location: str) -> list[tuple[str, str, datetime]]:
    """The uploads below a location that were neither completed nor aborted: object, id, when they began."""
    bucket, key = _split(location)
    with _errors_of_boto(location):
        pages = bucket.client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket.name, Prefix=f"{key}/")
        return [
            (bucket.location(upload["Key"]), upload["UploadId"], upload["Initiated"])
            for page in pages
            for upload in page.get("Uploads", [])
        ]


def abort_upload(location: str, upload: str) -> None:
    """Delete what there is of an upload; nothing happens if it is over."""
    bucket, key = _split(location)
    with suppress(FileNotFoundError), _errors_of_boto(location):
        bucket.client.abort_multipart_upload(Bucket=bucket.name, Key=key, UploadId=upload)


def link_that_expires(location: str, good_for: timedelta) -> str:
    """A link by which everybody who has it may read an object, as long as these credentials may.

    Args:
        location: The object.
        good_for: How long the link is good; it is over sooner where the credentials expire.
    """
    import obstore

    bucket, key = _split(location)
    with _errors_of_obstore(location):
        return str(obstore.sign(bucket.store, "GET", key, good_for))


# --- buckets ---------------------------------------------------------------------------------------


class _Bucket:
    """A bucket, as this process reaches it.

    Raises:
        S3Error: It can't be reached.
    """

    def __init__(self, name: str):
        import boto3  # slow to import; command lines mostly do without
        from botocore.config import Config
        from botocore.exceptions import ClientError

        self.name = name
        self._process = os.getpid()
        config = Config(
            retries=_RETRIES,  # type: ignore[arg-type]
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_ANSWER_SECONDS,
            max_pool_connections=32,
        )
        with _errors_of_boto(f"s3://{name}"):
            # boto3 knows AWS_DEFAULT_REGION only, most others AWS_REGION.
            self._session = boto3.Session(region_name=os.environ.get("AWS_REGION") or None)
            self.client: S3Client = self._session.client("s3", config=config)
            try:
                answer: Any = self.client.head_bucket(Bucket=name)
            except ClientError as error:
                answer = error.response
                status = answer["ResponseMetadata"]["HTTPStatusCode"]
                if status == 404:
                    raise _no_bucket(name) from error
                if status not in (301, 400, 403):  # their headers name the region, and other requests may be allowed
                    raise
            # boto3 finds a bucket of another region by itself, and obstore does not.
            region = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
            if region and region != self.client.meta.region_name:
                self.client = self._session.client("s3", region_name=region, config=config)

    @cached_property
    def store(self) -> "S3Store":
        """The bucket for obstore, with the endpoint, region and credentials that boto3 found."""
        from obstore.auth.boto3 import Boto3CredentialProvider
        from obstore.store import S3Store

        with _errors_of_boto(f"s3://{self.name}"):
            if self._session.get_credentials() is None:
                raise _no_credentials(f"s3://{self.name}")
            credentials = Boto3CredentialProvider(self._session, ttl=_CREDENTIALS_GOOD_FOR)
        endpoint, region = self.client.meta.endpoint_url, self.client.meta.region_name
        authorities = os.environ.get("AWS_CA_BUNDLE")
        global _obstore_process  # noqa: PLW0603
        _obstore_process = _obstore_process or os.getpid()
        return S3Store(
            self.name,
            endpoint=endpoint,
            region="us-east-1" if region == "aws-global" else region,  # boto3's word for none
            virtual_hosted_style_request=False,
            credential_provider=credentials,
            retry_config=_OBSTORE_RETRIES,  # type: ignore[arg-type]
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                "read_timeout": timedelta(seconds=_ANSWER_SECONDS),
                "timeout": timedelta(seconds=_REQUEST_SECONDS),
                **({"root_certificate": Path(authorities).read_bytes()} if authorities else {}),
            },
        )

    @property
    def forked(self) -> bool:
        """Whether this is a fork of a process that used obstore, which would wait for ever for threads of that one."""
        return _obstore_process not in (None, os.getpid())

    def location(self, key: str) -> str:
        """The URL of an object."""
        return f"s3://{self.name}/{key}"


_obstore_process: int | None = None  # which used obstore first


def _split(path: str) -> tuple[_Bucket, str]:
    """The bucket and the key of an URL, or of a path as fsspec has it."""
    name, _, key = path.removeprefix("s3://").removeprefix("s3a://").partition("/")
    # Another process has other connections. Another environment (tests have some) may name another S3.
    settings = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    return _bucket(name, os.getpid(), settings), key.rstrip("/")


@lru_cache(maxsize=16)
def _bucket(name: str, _process: int, _settings: tuple[tuple[str, str], ...]) -> _Bucket:
    return _Bucket(name)


def _below(bucket: _Bucket, key: str) -> "Iterator[ObjectTypeDef]":
    """All objects below a folder, also those that stand for folders."""
    with _errors_of_boto(bucket.location(key)):
        pages = bucket.client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=bucket.name, Prefix=f"{key}/" if key else ""):
            yield from page.get("Contents", [])


def _info(bucket: _Bucket, listed: "ObjectTypeDef") -> dict[str, Any]:
    return {
        "name": f"{bucket.name}/{listed['Key']}",
        "size": listed["Size"],
        "type": "file",
        "ETag": listed["ETag"],
        "LastModified": listed["LastModified"],
    }


# --- files -----------------------------------------------------------------------------------------


class _Reading(io.RawIOBase):
    """The bytes of an object, as it was when this was opened."""

    def __init__(self, bucket: _Bucket, key: str, size: int, etag: str):
        self._bucket, self._key, self._size, self._etag = bucket, key, size, etag
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self.fetch(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:  # which else reads 8 KB at a time
        data = self.fetch(self._position, self._size)
        self._position += len(data)
        return bytes(data)

    def fetch(self, start: int, size: int) -> memoryview:
        """So many bytes, or those that there are, from a position on, in one request."""
        end = min(start + size, self._size)
        if start >= end:
            return memoryview(b"")
        location = self._bucket.location(self._key)
        if self._bucket.forked:
            with _errors_of_boto(location):
                answer = self._bucket.client.get_object(
                    Bucket=self._bucket.name, Key=self._key, Range=f"bytes={start}-{end - 1}", IfMatch=self._etag
                )
                return memoryview(answer["Body"].read())
        import obstore

        with _errors_of_obstore(location):
            found = obstore.get(self._bucket.store, self._key, options={"range": (start, end), "if_match": self._etag})
            return memoryview(found.bytes())


class _Buffered(io.BufferedReader):
    """Collects small reads, and makes one request of a large one, not one of whole buffers and one of the rest."""

    def __init__(self, reading: _Reading):
        super().__init__(reading, _READ_BYTES)
        self._reading = reading

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < _READ_BYTES:
            return super().read(size)
        start = self.tell()
        data = bytes(self._reading.fetch(start, size))
        self.seek(start + len(data))
        return data


class _Writing(io.RawIOBase):
    """An upload, which is completed or aborted by name and not by `close`."""

    def __init__(self, bucket: _Bucket, key: str):
        import obstore

        self._location = bucket.location(key)
        self._position = 0
        self._aborted = False
        with _errors_of_obstore(self._location):
            self._upload: WritableFile = obstore.open_writer(
                bucket.store,
                key,
                # By it a browser that is given a link to a page shows the page, and does not save it.
                attributes={"Content-Type": "text/html; charset=utf-8"} if key.endswith(".html") else None,
                buffer_size=_PART_BYTES,
                max_concurrency=_PARTS_AT_A_TIME,
            )

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        if not self._aborted:
            with _errors_of_obstore(self._location):
                # obstore keeps what it is given until it is sent, and the caller uses its buffer again.
                self._upload.write(bytes(data))
        self._position += len(data)
        return len(data)

    def complete(self) -> None:
        """Make the object."""
        with _errors_of_obstore(self._location):
            self._upload.close()

    def abort(self) -> None:
        """Leave nothing on S3; what is written later goes nowhere."""
        from obstore.exceptions import BaseError

        self._aborted = True
        with suppress(BaseError, OSError):  # what went wrong before says more
            self._upload.__exit__(*sys.exc_info())


# --- errors ----------------------------------------------------------------------------------------


@contextmanager
def _errors_of_reading(bucket: "_Bucket", key: str) -> Iterator[None]:
    """Errors of a request to read an object, of which the caller may not be told that it does not exist."""
    from botocore.exceptions import ClientError

    with _errors_of_boto(bucket.location(key)):
        try:
            yield
        except ClientError as error:
            if is_missing(bucket.client, bucket.name, key, error):
                raise _missing(bucket.location(key)) from error
            raise


@contextmanager
def _errors_of_boto(location: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        raise _error(location, status, error.response["Error"]["Code"], error.response["Error"]["Message"]) from error
    except NoCredentialsError as error:
        raise _no_credentials(location) from error
    except BotoCoreError as error:
        raise S3Error(f"{location} can't be reached: {_in_a_line(error)}") from error


@contextmanager
def _errors_of_obstore(location: str) -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        # obstore gives the error code only within its message, in the XML document that S3 answered with, if it did.
        text = str(error).partition("\n\nDebug source:")[0]
        status = re.search(r"status code: (\d{3})", text)
        code, message = (re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("Code", "Message"))
        if status is None:
            raise S3Error(f"{location} can't be reached: {_in_a_line(text)}") from error
        raise _error(
            location, int(status[1]), code[1] if code else status[1], message[1] if message else text
        ) from error


def _error(location: str, status: int | None, code: str, message: str) -> Exception:
    if code == "NoSuchBucket":
        return _no_bucket(location.removeprefix("s3://").partition("/")[0])
    if code in ("404", "NoSuchKey", "NoSuchUpload"):
        return _missing(location)
    if status == 412:
        return S3Error(f"{location} was changed while it was read. Run again.")
    if status == 403:
        way_out = "Give these credentials the right to it, or use others."
        if kms.is_denied(message):
            way_out = kms.WAY_OUT
        return S3Error(f"S3 denies access to {location}: {as_clause(_in_a_line(message))}. {way_out}")
    refused = f"S3 refuses a request for {location}: {code}: {as_clause(_in_a_line(message))}."
    way_out = _WAYS_OUT.get(code) or ("It did so for half a minute: run again later." if status in _RETRIED else "")
    return S3Error(f"{refused} {way_out}".rstrip())


_RETRIED = (429, 500, 502, 503, 504)
_EXPIRED = "Get new ones, as you got these (such as aws sso login), and run again."
_WAYS_OUT = {
    "ExpiredToken": f"The credentials have expired. {_EXPIRED}",
    "400": f"Credentials that have expired are refused like that. {_EXPIRED}",  # the answer to HEAD has no code
    "RequestTimeTooSkewed": "Set the clock of this machine.",
}


def _no_bucket(name: str) -> S3Error:
    return S3Error(f"There is no bucket {name}. Make it, or name another one.")


def _missing(location: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), location)


def _no_credentials(location: str) -> S3Error:
    return S3Error(
        f"{location} can't be reached: there are no credentials of AWS. Name a profile (AWS_PROFILE), set"
        " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role."
    )


def _in_a_line(text: object) -> str:
    return " ".join(str(text).split())
