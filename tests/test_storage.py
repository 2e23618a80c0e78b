"""Files on S3: whole or absent, as they are now, and errors in a line. (In a local folder: test_outputs.)"""

import gzip
import json
import multiprocessing
import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from loky import ProcessPoolExecutor
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from audience_explorer_dagster.cli import main
from spark_jobs import select_k, storage
from spark_jobs.errors import InputError, S3Error
from spark_jobs.raw.folder import check_unchanged, file_states, list_raw_files
from spark_jobs.reporting import run_as_command
from spark_jobs.storage import s3

MB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """S3 as moto plays it; its endpoint."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the environment, for an S3 at an endpoint."""

    def set_environment(endpoint: str, **more: str) -> None:
        defaults = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for name, value in {**defaults, **more}.items():
            monkeypatch.setenv(name, value)

    return set_environment


@pytest.fixture
def folder(server: str, environment: Callable[..., None]) -> str:
    """A folder in an empty bucket; its URL."""
    environment(server)
    for backend in s3_backends.values():
        backend["aws"].reset()
    boto3.client("s3").create_bucket(Bucket="audience")
    return "s3://audience/explorer"


def put(key: str, body: bytes = b"1") -> None:
    boto3.client("s3").put_object(Bucket="audience", Key=key, Body=body)


def keys() -> list[str]:
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket="audience")
    return [found["Key"] for page in pages for found in page.get("Contents", [])]


def uploads() -> list[Any]:
    return boto3.client("s3").list_multipart_uploads(Bucket="audience").get("Uploads", [])


# --- writing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 20 * MB])
def test_an_object_is_there_when_it_is_complete(folder: str, size: int) -> None:
    content = random.Random(1).randbytes(size)
    with storage.new_file(f"{folder}/a") as file:
        for start in range(0, size, 3 * MB):
            file.write(content[start : start + 3 * MB])
        assert keys() == []
    assert storage.at(f"{folder}/a").read_bytes() == content
    assert (keys(), uploads()) == (["explorer/a"], [])


@pytest.mark.parametrize("size", [0, 10, 20 * MB])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_no_object_and_no_upload(folder: str, size: int, error: type[BaseException]) -> None:
    def die_while_writing() -> None:
        with storage.new_file(f"{folder}/a") as file:
            file.write(bytes(size))
            raise error

    storage.write_text(f"{folder}/a", "the one before")
    with pytest.raises(error):
        die_while_writing()
    assert (keys(), uploads()) == (["explorer/a"], [])
    assert storage.at(f"{folder}/a").read_text() == "the one before"


# The last obstore for Python 3.10 does not abort an upload of which S3 refuses a part: the parts are left, unseen.
ABORTS_ALL = pytest.mark.skipif(sys.version_info < (3, 11), reason="needs obstore 0.12")


@pytest.mark.parametrize("step", [pytest.param("upload_part", marks=ABORTS_ALL), "complete_multipart_upload"])
def test_an_upload_that_s3_refuses_is_an_error_and_leaves_nothing(
    folder: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto.s3.exceptions import AccessDeniedByLock

    def refuse(*_: object, **__: object) -> None:
        raise AccessDeniedByLock

    monkeypatch.setattr(type(s3_backends["123456789012"]["aws"]), step, refuse)
    with pytest.raises(S3Error, match="S3 denies access to s3://audience/explorer/a: "):
        storage.write_text(f"{folder}/a", "x" * 20 * MB)
    assert (keys(), uploads()) == ([], [])


def test_a_buffer_that_is_used_again_has_been_written(folder: str) -> None:
    buffer = bytearray(MB)
    with storage.new_file(f"{folder}/a") as file:
        for number in range(20):
            buffer[:] = bytes([number]) * MB
            file.write(memoryview(buffer))
    assert storage.at(f"{folder}/a").read_bytes() == b"".join(bytes([number]) * MB for number in range(20))


# --- reading ---------------------------------------------------------------------------------------


def test_an_object_is_read_like_a_file(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_READ_BYTES", 1000)
    chance = random.Random(1)
    content = chance.randbytes(20_000)
    storage.write_text(f"{folder}/empty", "")
    assert storage.at(f"{folder}/empty").read_bytes() == b""
    put("explorer/a", content)
    with storage.at(f"{folder}/a").open("rb") as file:
        for _ in range(100):
            start = chance.randrange(22_000)
            if chance.random() < 0.5:
                file.seek(start)
            else:
                start = file.tell()
            size = chance.choice([1, 10, 999, 1000, 1500, 5000])
            assert file.read(size) == content[start : start + size]
        file.seek(-5, os.SEEK_END)
        assert (file.read(), file.read(), file.read(2000)) == (content[-5:], b"", b"")
        with pytest.raises(OSError, match="Invalid argument"):
            file.seek(-1)


def test_lines_and_gzipped_lines_are_read(folder: str) -> None:
    lines = [b"%d\n" % number for number in range(100_000)]
    put("explorer/a.txt", b"".join(lines))
    put("explorer/a.txt.gz", gzip.compress(b"".join(lines)))
    with storage.at(f"{folder}/a.txt").open("rb") as file:
        assert list(file) == lines
    with storage.at(f"{folder}/a.txt.gz").open("rb") as file, gzip.GzipFile(fileobj=file) as unpacked:
        assert list(unpacked) == lines


def test_many_parquet_files_are_read_at_a_time(folder: str) -> None:
    table = pa.table({"a": range(100_000)})
    locations = [f"{folder}/{number}.parquet" for number in range(16)]

    def write(location: str) -> None:
        with storage.new_file(location) as file:
            pq.write_table(table, file, row_group_size=10_000)

    def read(location: str) -> pa.Table:
        with storage.at(location).open("rb") as file:
            return pq.ParquetFile(file).read()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, locations))
        assert all(found == table for found in pool.map(read, locations))


def test_an_object_that_changes_while_it_is_read_is_not_mixed(folder: str) -> None:
    put("explorer/a", b"1" * 20 * MB)
    with storage.at(f"{folder}/a").open("rb") as file:
        assert file.read(1) == b"1"
        put("explorer/a", b"2" * 20 * MB)
        with pytest.raises(S3Error, match="s3://audience/explorer/a was changed while it was read"):
            file.read()


def test_what_is_missing_is_not_found(folder: str) -> None:
    put("explorer/b/c")
    with pytest.raises(FileNotFoundError, match="No such file or directory: 's3://audience/explorer/a'"):
        storage.at(f"{folder}/a").read_bytes()
    with pytest.raises(IsADirectoryError, match="s3://audience/explorer/b"):
        storage.at(f"{folder}/b").read_bytes()


def test_s3a_is_s3(folder: str) -> None:
    storage.write_text(folder.replace("s3://", "s3a://") + "/a", "1")
    assert storage.at("s3a://audience/explorer/a").read_text() == "1"
    assert str(storage.at("s3a://audience/explorer/a")) == "s3://audience/explorer/a"


# --- listing and deleting --------------------------------------------------------------------------


def test_what_others_write_and_delete_is_seen(folder: str) -> None:
    def seen() -> tuple[Any, ...]:
        path = storage.at(f"{folder}/a")
        listed = [file.name for file in storage.visible_files(folder)]
        return path.exists(), path.is_file(), storage.at(folder).is_dir(), listed, list(storage.list_below(folder))

    assert seen() == (False, False, False, [], [])
    put("explorer/a")
    assert seen() == (True, True, True, ["a"], ["a"])
    boto3.client("s3").delete_object(Bucket="audience", Key="explorer/a")
    assert seen() == (False, False, False, [], [])


def test_markers_of_folders_are_folders_and_no_files(folder: str) -> None:
    for key in ("explorer/raw/", "explorer/raw/a", "explorer/raw/month=1/", "explorer/raw/month=1/b", "explorer/no/"):
        put(key)
    raw = storage.at(f"{folder}/raw")
    assert (raw.is_dir(), raw.is_file(), raw.exists()) == (True, False, True)
    assert storage.at(f"{folder}/no").is_dir()
    assert list(storage.at(f"{folder}/no").iterdir()) == []
    assert sorted(path.name for path in raw.iterdir()) == ["a", "month=1"]
    assert list(storage.list_below(f"{folder}/raw")) == ["a", "month=1/b"]
    assert [file.name for file in storage.list_files(f"{folder}/raw")] == ["a"]
    assert [file.name for file in storage.list_files("s3://audience")] == []
    assert storage.at("s3://audience").is_dir()


def test_a_folder_within_a_month_of_raw_data_is_refused_by_name(folder: str) -> None:
    raw = f"{folder}/raw/month=2024-01"
    for name in ("a.jsonl", "_temporary/b.parquet", "_SUCCESS"):
        put(f"explorer/raw/month=2024-01/{name}")
    assert [file.name for file in list_raw_files(raw)] == ["a.jsonl"]
    put("explorer/raw/month=2024-01/part.parquet/part-0.parquet")
    with pytest.raises(InputError, match=rf"{raw}/part\.parquet is a folder"):
        list_raw_files(raw)


def test_a_raw_file_on_s3_that_changes_while_it_is_read_is_named(folder: str) -> None:
    raw = f"{folder}/raw/month=2024-01"
    storage.write_text(f"{raw}/a.jsonl", "1")
    before = file_states(raw)
    storage.write_text(f"{raw}/a.jsonl", "1")
    check_unchanged(raw, before)
    storage.write_text(f"{raw}/a.jsonl", "2")
    with pytest.raises(InputError, match=rf"{raw}/a\.jsonl changed while it was read"):
        check_unchanged(raw, before)


def test_odd_names_are_kept(folder: str) -> None:
    name = "a b+c %20 é ?#&*[x]=.txt"
    storage.write_text(f"{folder}/{name}", "1")
    assert keys() == [f"explorer/{name}"]
    assert [file.name for file in storage.visible_files(folder)] == [name]
    assert storage.at(f"{folder}/{name}").read_text() == "1"


def test_the_digest_of_an_object_is_its_etag(folder: str) -> None:
    storage.write_text(f"{folder}/small", "1")
    storage.write_text(f"{folder}/large", "1" * 20 * MB)
    put("explorer/_SUCCESS")
    put("explorer/.hidden")
    client = boto3.client("s3")
    etags = {name: client.head_object(Bucket="audience", Key=f"explorer/{name}")["ETag"] for name in ("large", "small")}
    large, small = storage.list_files(folder)
    assert [large, small] == [storage.describe(storage.at(f"{folder}/{name}")) for name in ("large", "small")]
    assert (large.location, large.name, large.size) == (f"{folder}/large", "large", 20 * MB)
    assert (f'"{large.digest}"', f'"{small.digest}"') == (etags["large"], etags["small"])
    assert small.digest == "c4ca4238a0b923820dcc509a6f75849b"
    assert large.digest.endswith("-3")
    assert storage.list_below(folder)["small"].etag == small.digest


def test_a_folder_of_thousands_of_objects_is_deleted_and_none_beside_it(folder: str) -> None:
    bucket = s3_backends["123456789012"]["aws"]
    for number in range(2500):
        bucket.put_object("audience", f"explorer/out/{number}", b"")
    for key in ("explorer/out/", "explorer/out/deep/er", "explorer/outside", "explorer/out2/a"):
        put(key)
    assert len(storage.list_below(f"{folder}/out")) == 2501
    storage.delete_folder(f"{folder}/out")
    assert keys() == ["explorer/out2/a", "explorer/outside"]
    storage.delete_folder(f"{folder}/out")


def test_what_can_not_be_deleted_is_an_error(folder: str) -> None:
    put("explorer/out/a")
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:DeleteObject",
                "Resource": "arn:aws:s3:::audience/*",
            }
        ],
    }
    boto3.client("s3").put_bucket_policy(Bucket="audience", Policy=json.dumps(policy))
    with pytest.raises(S3Error, match="s3://audience/explorer/out"):
        storage.delete_folder(f"{folder}/out")


# --- processes -------------------------------------------------------------------------------------


def write_and_read(location: str) -> str:
    with storage.new_file(location) as file:
        file.write(b"1" * 9 * MB)
    with storage.at(location).open("rb") as file:
        return f"{len(file.read())} {file.seek(5)} {len(file.read(10))}"


@pytest.mark.parametrize("method", ["fork", "spawn", "loky"])
def test_other_processes_read_and_write(folder: str, method: str) -> None:
    assert write_and_read(f"{folder}/here") == "9437184 5 10"
    if method == "loky":
        with ProcessPoolExecutor(2, timeout=10) as pool:
            said = list(pool.map(write_and_read, [f"{folder}/there", f"{folder}/too"]))
    else:
        with multiprocessing.get_context(method).Pool(2) as pool:
            said = pool.map(write_and_read, [f"{folder}/there", f"{folder}/too"])
    assert said == ["9437184 5 10"] * 2
    assert (keys(), uploads()) == (["explorer/here", "explorer/there", "explorer/too"], [])


def fail_to_write(location: str) -> str:
    try:
        with storage.new_file(location) as file:
            file.write(b"1" * 9 * MB)
            raise ZeroDivisionError
    except ZeroDivisionError:
        return "failed"


def test_a_write_that_fails_in_a_forked_process_leaves_nothing(folder: str) -> None:
    assert fail_to_write(f"{folder}/here") == "failed"
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(fail_to_write, [f"{folder}/there"]) == ["failed"]
    assert (keys(), uploads()) == ([], [])


# --- an S3 that refuses ----------------------------------------------------------------------------

Answer = tuple[int, dict[str, str], bytes]


class OtherS3:
    """Answers each request, such as `GET /bucket/key`, as it is told to, and keeps the headers `Authorization`."""

    def __init__(self, answer: Callable[[str], Answer]):
        self.authorizations: list[str] = []
        other = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                other.authorizations.append(self.headers["Authorization"])
                status, headers, body = answer(f"{self.command} {self.path}")
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def other_s3() -> Iterator[Callable[..., OtherS3]]:
    """Starts servers that are to end with the test."""
    started: list[OtherS3] = []

    def start(answer: Callable[[str], Answer]) -> OtherS3:
        started.append(OtherS3(answer))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are repeated twice only, and soon."""
    monkeypatch.setattr(s3, "_RETRIES", {"mode": "standard", "total_max_attempts": 3})
    soon = {"init_backoff": timedelta(seconds=0.01), "max_backoff": timedelta(seconds=0.1), "base": 2}
    monkeypatch.setattr(s3, "_OBSTORE_RETRIES", {"max_retries": 2, "backoff": soon})


BUCKET = 200, {"x-amz-bucket-region": "eu-west-3"}, b""


def with_an_object(request: str) -> Answer:
    """The answers of an S3 that has an object `a` in a bucket `audience` of the region eu-west-3."""
    if request == "HEAD /audience":
        return BUCKET
    known = {"ETag": '"1"', "Last-Modified": "Wed, 21 Oct 2026 07:28:00 GMT", "Content-Range": "bytes 0-0/1"}
    return 206 if request.startswith("GET") else 200, known, b"1"


def refusal(status: int, code: str) -> Answer:
    xml = f"<Error><Code>{code}</Code><Message>Go.</Message></Error>"
    return status, {"Content-Type": "application/xml"}, xml.encode()


RIGHT = "Give these credentials the right to it, or use others."
MAYBE = "Credentials that have expired are refused like that."
NEW = "Get new ones, as you got these (such as aws sso login), and run again."
LATER = "It did so for half a minute: run again later."
NO_BUCKET = "There is no bucket audience. Make it, or name another one."


@pytest.mark.parametrize(
    ("status", "code", "of_boto", "of_obstore"),
    [
        (
            403,
            "AccessDenied",
            f"S3 denies access to {{}}: Forbidden. {RIGHT}",
            f"S3 denies access to {{}}: Go. {RIGHT}",
        ),
        (
            400,
            "ExpiredToken",
            f"S3 refuses a request for {{}}: 400: Bad Request. {MAYBE} {NEW}",
            f"S3 refuses a request for {{}}: ExpiredToken: Go. The credentials have expired. {NEW}",
        ),
        (
            503,
            "SlowDown",
            f"S3 refuses a request for {{}}: 503: Service Unavailable. {LATER}",
            f"S3 refuses a request for {{}}: SlowDown: Go. {LATER}",
        ),
        (404, "NoSuchBucket", NO_BUCKET, NO_BUCKET),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_a_refusal_is_an_error_in_a_line(
    other_s3: Callable[..., OtherS3],
    environment: Callable[..., None],
    status: int,
    code: str,
    of_boto: str,
    of_obstore: str,
) -> None:
    refuses = other_s3(lambda request: BUCKET if request == "HEAD /audience" else refusal(status, code))
    environment(refuses.endpoint)
    location = "s3://audience/a"
    with pytest.raises(S3Error) as caught:
        storage.at(location).read_bytes()
    assert str(caught.value) == of_boto.format(location)
    for size in (1, 20 * MB):
        with pytest.raises(S3Error) as caught:
            storage.write_text(location, "1" * size)
        assert str(caught.value) == of_obstore.format(location)


@pytest.mark.usefixtures("impatient")
def test_a_job_and_a_command_report_it_in_a_line(
    other_s3: Callable[..., OtherS3],
    environment: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["select_k", "s3://audience/in", "s3://audience/out"])
    denies = other_s3(lambda _: refusal(403, "AccessDenied"))
    lines = {
        "http://127.0.0.1:9": "s3://audience can't be reached: Could not connect to the endpoint URL:"
        ' "http://127.0.0.1:9/audience"',
        denies.endpoint: "S3 denies access to s3://audience/in",
        other_s3(lambda _: refusal(404, "NoSuchBucket")).endpoint: "There is no bucket audience.",
    }
    for endpoint, line in lines.items():
        environment(endpoint)
        with pytest.raises(SystemExit, match="1"):
            run_as_command(select_k.main)
        said = capsys.readouterr().err
        assert said.startswith(f"Error: {line}")
        assert said.count("\n") == 1
        result = CliRunner().invoke(main, ["categories", "show", "tea", "--root", "s3://audience/in"])
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.output
        assert result.stderr.startswith(f"Error: {line}")


def test_missing_credentials_are_reported(
    environment: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(
        "http://127.0.0.1:9", AWS_EC2_METADATA_DISABLED="true", AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "no")
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(S3Error, match="there are no credentials of AWS"):
        storage.write_text("s3://audience/a", "1")


@pytest.mark.usefixtures("impatient")
def test_requests_that_are_refused_for_a_while_are_repeated(
    other_s3: Callable[..., OtherS3], environment: Callable[..., None]
) -> None:
    asked: Counter[str] = Counter()

    def answer(request: str) -> Answer:
        asked[request] += 1
        return refusal(503, "SlowDown") if asked[request] < 3 else with_an_object(request)

    environment(other_s3(answer).endpoint)
    storage.write_text("s3://audience/a", "1")
    assert storage.at("s3://audience/a").read_bytes() == b"1"
    assert asked == dict.fromkeys(["HEAD /audience", "PUT /audience/a", "HEAD /audience/a", "GET /audience/a"], 3)


def test_half_a_minute_is_ridden_out() -> None:
    # The waits of both are random, up to these.
    boto = sum(min(2**number, 20) for number in range(s3._RETRIES["total_max_attempts"] - 1))
    assert boto / 2 > 30
    assert s3._OBSTORE_RETRIES["retry_timeout"] >= timedelta(seconds=30)


# --- where S3 is, and who asks ---------------------------------------------------------------------


def test_a_bucket_is_asked_in_its_own_region(
    other_s3: Callable[..., OtherS3], environment: Callable[..., None]
) -> None:
    elsewhere = other_s3(with_an_object)
    environment("http://127.0.0.1:9", AWS_ENDPOINT_URL_S3=elsewhere.endpoint, AWS_REGION="eu-west-1")
    assert storage.at("s3://audience/a").read_bytes() == b"1"
    regions = [authorization.split("/")[2] for authorization in elsewhere.authorizations]
    assert regions == ["eu-west-1", "eu-west-3", "eu-west-3"]


def test_credentials_of_a_profile_are_used_and_renewed(
    other_s3: Callable[..., OtherS3],
    environment: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = """{"Version": 1, "AccessKeyId": "KEY$n", "SecretAccessKey": "secret", "Expiration": "$end"}"""
    program = tmp_path / "credentials"
    program.write_text(
        f"""#!/bin/sh
echo >>{tmp_path}/asked
n=$(wc -l <{tmp_path}/asked)
end=$(date -u -d "+1 minute" +%Y-%m-%dT%H:%M:%SZ)
cat <<END
{said}
END
"""
    )
    program.chmod(0o755)
    (tmp_path / "config").write_text(f"[profile team]\ncredential_process = {program}\n")
    s3_of_team = other_s3(with_an_object)
    environment(s3_of_team.endpoint, AWS_PROFILE="team", AWS_CONFIG_FILE=str(tmp_path / "config"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setattr(s3, "_CREDENTIALS_GOOD_FOR", timedelta(0))
    for _ in range(3):
        storage.write_text("s3://audience/a", "1")
    used = [authorization.split("Credential=")[1].split("/")[0] for authorization in s3_of_team.authorizations[-3:]]
    assert len(set(used)) == 3
    assert all(key.startswith("KEY") for key in used)
