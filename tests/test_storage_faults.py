"""Faults of S3 and disks while an output is written and read: ridden out, or told at once; nothing is half readable.

Each request meets one of the faults; with EVERY_FAULT=1 in the environment, all of them, in some three minutes.
"""

import errno
import http.client
import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pytest
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from spark_jobs import outputs, storage
from spark_jobs.config import KMeansConfig
from spark_jobs.errors import InputError, S3Error
from spark_jobs.outputs.claims import MARKER
from spark_jobs.outputs.tables import read_table
from spark_jobs.reporting import Reporter
from spark_jobs.storage import s3

pytestmark = pytest.mark.filterwarnings("ignore")

TABLE = pa.table({"a": [1, 2]})
FOLDER = "s3://audience/root/out"
Fault = Callable[["FaultyS3", Any, Callable[[], None]], None]


def refuse(status: int, code: str) -> Fault:
    def answer(_: "FaultyS3", handler: Any, __: Callable[[], None]) -> None:
        body = f"<Error><Code>{code}</Code><Message>Go.</Message></Error>".encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("Content-Type", "application/xml")
        handler.end_headers()
        handler.wfile.write(body if handler.command != "HEAD" else b"")

    return answer


def reset(_: "FaultyS3", handler: Any, __: Callable[[], None]) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def lose_the_answer(s3: "FaultyS3", handler: Any, forward: Callable[[], None]) -> None:
    """S3 does what is asked, and the connection is lost before it says so."""
    kept, handler.wfile = handler.wfile, io.BytesIO()
    forward()
    handler.wfile = kept
    reset(s3, handler, forward)


def be_slow(s3: "FaultyS3", _: Any, forward: Callable[[], None]) -> None:
    """S3 answers when it has been asked again."""
    number, deadline = s3.asked, time.monotonic() + 120
    while s3.asked == number and time.monotonic() < deadline:
        time.sleep(0.05)
    forward()


class FaultyS3:
    """Hands requests on to moto, but for those that are to meet a fault: the one of a number, or all from it on."""

    def __init__(self, port: int):
        self.fault: Fault | None = None
        self.first, self.once, self.asked = 0, True, 0
        other = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with lock:
                    other.asked += 1
                    number = other.asked
                meets = number == other.first if other.once else number >= other.first
                if other.fault is not None and meets:
                    other.fault(other, self, lambda: self.forward(body))
                else:
                    self.forward(body)

            do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

            def forward(self, body: bytes) -> None:
                to = http.client.HTTPConnection("127.0.0.1", port)
                to.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    to.putheader(name, value)
                to.endheaders(body)
                answer = to.getresponse()
                content = answer.read()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                self.wfile.write(content)
                to.close()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def meet(self, fault: Fault | None, first: int = 1, *, once: bool = True) -> None:
        self.fault, self.first, self.once, self.asked = fault, first, once, 0

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def proxy() -> Iterator[FaultyS3]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    faulty = FaultyS3(server.get_host_and_port()[1])
    yield faulty
    faulty.close()
    server.stop()


@pytest.fixture
def faulty(proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> FaultyS3:
    """S3 with an empty bucket; who asks it is impatient."""
    for name, value in {
        "AWS_ENDPOINT_URL": proxy.endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    soon = {"init_backoff": timedelta(seconds=0.01), "max_backoff": timedelta(seconds=0.1), "base": 2}
    monkeypatch.setattr(s3, "_OBSTORE_RETRIES", {"max_retries": 4, "backoff": soon})
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
    s3._bucket.cache_clear()
    proxy.meet(None)
    for backend in s3_backends.values():
        backend["aws"].reset()
    boto3.client("s3").create_bucket(Bucket="audience")
    storage.list_below(FOLDER)  # the bucket is known
    return proxy


def make(folder: str) -> None:
    config = KMeansConfig(k=2)
    report = Reporter()
    with outputs.writing("kmeans", "1", folder, report, config=config, inputs=[], fingerprint="f") as made:
        if not made.finished:
            made.write_json("a.json", {"a": 1})
            made.write_table("sub/a.parquet", TABLE)
            made.complete(rows={}, summary={})


def read(folder: str) -> None:
    manifest = outputs.read_manifest(folder, "kmeans")
    assert [file["path"] for file in manifest["files"]] == ["a.json", "sub/a.parquet"]
    assert read_table(folder, "sub/a.parquet") == TABLE


def make_and_read(folder: str) -> None:
    make(folder)
    read(folder)


def requests_of(faulty: FaultyS3) -> int:
    """How many requests it takes to make and read an output."""
    faulty.meet(None)
    make(FOLDER)
    read(FOLDER)
    asked = faulty.asked
    storage.delete_folder(FOLDER)
    return asked


def share(asked: int, fault: int, of: int) -> range:
    """The numbers of the requests that meet a fault, one of so many."""
    return range(1, asked + 1) if os.environ.get("EVERY_FAULT") else range(1 + fault, asked + 1, of)


SHORT = {
    "throttled": refuse(503, "SlowDown"),
    "500": refuse(500, "InternalError"),
    "reset": reset,
    "lost": lose_the_answer,
}


@pytest.mark.parametrize("fault", SHORT)
def test_whichever_request_meets_a_short_fault_an_output_is_made_and_read(faulty: FaultyS3, fault: str) -> None:
    asked = requests_of(faulty)
    for number in share(asked, list(SHORT).index(fault), len(SHORT)):
        faulty.meet(SHORT[fault], number)
        make(FOLDER)
        read(FOLDER)
        assert faulty.asked > asked, f"request {number} was repeated"
        faulty.meet(None)
        assert sorted(storage.list_below(FOLDER)) == ["a.json", "manifest.json", "sub/a.parquet"]
        storage.delete_folder(FOLDER)


def test_an_answer_that_does_not_come_is_asked_for_again(faulty: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    # Here alone: a busy machine takes that long for any answer now and then.
    monkeypatch.setattr(s3, "_ANSWER_SECONDS", 1)
    s3._bucket.cache_clear()
    storage.list_below(FOLDER)  # the bucket is known
    for number in (1, 3):
        faulty.meet(be_slow, number)
        make(FOLDER)
        read(FOLDER)
        faulty.meet(None)
        storage.delete_folder(FOLDER)
    s3._bucket.cache_clear()


LASTING = {
    "S3 denies access to s3://audience/root/out": refuse(403, "AccessDenied"),
    "Get new ones, as you got these": refuse(400, "ExpiredToken"),
    "There is no bucket audience. Make it, or name another one.": refuse(404, "NoSuchBucket"),
}


@pytest.mark.parametrize("told", LASTING)
def test_from_whichever_request_on_s3_refuses_it_is_told_at_once_and_nothing_is_half_readable(
    faulty: FaultyS3, told: str
) -> None:
    asked = requests_of(faulty)
    for number in share(asked, list(LASTING).index(told), len(LASTING)):
        faulty.meet(LASTING[told], number, once=False)
        began = time.monotonic()
        with pytest.raises((S3Error, OSError, InputError)) as caught:  # the answer to HEAD does not name a bucket
            make_and_read(FOLDER)
        assert time.monotonic() - began < 25, "it waits for nothing: a lease takes 30 s"
        assert faulty.asked - number < 8, "it is not asked again and again"
        if "bucket" not in told:
            assert told in str(caught.value)
        faulty.meet(None)
        if outputs.is_finished(FOLDER):
            read(FOLDER)
        storage.delete_folder(FOLDER)  # else the next one waits until the lease is over


def test_a_listing_that_is_behind_makes_an_output_again_and_reads_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(tmp_path / "out")
    make(folder)
    whole = storage.list_below(folder)
    for missing in whole:
        behind = {name: file for name, file in whole.items() if name != missing}
        monkeypatch.setattr(storage, "list_below", lambda _, behind=behind: behind)
        assert not outputs.is_whole(folder, "kmeans")


# --- disks -----------------------------------------------------------------------------------------


def test_at_whichever_file_the_disk_is_full_nothing_is_half_readable_and_then_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, opened, full_at = str(tmp_path / "out"), 0, 1
    open_file = Path.open

    def full(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        nonlocal opened
        if mode != "wb":
            return open_file(path, mode, *more, **named)
        opened += 1
        return open_file(Path("/dev/full") if opened == full_at else path, mode, *more, **named)

    monkeypatch.setattr(Path, "open", full)
    for number in (1, 2, 3):
        opened, full_at = 0, number
        with pytest.raises(OSError, match="No space left on device"):
            make(folder)
        assert not outputs.is_finished(folder)
        assert not [name for name in storage.list_below(folder) if name.rpartition("/")[2].startswith(".")]
    opened, full_at = 0, 0
    make(folder)
    read(folder)
    assert opened == 3, "two files, and the manifest"


def test_what_a_manifest_lists_is_on_the_disk_before_the_manifest_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, Path.rename

    def note_sync(descriptor: int) -> None:
        done.append(f"sync {os.readlink(f'/proc/self/fd/{descriptor}')}")
        sync(descriptor)

    def note_rename(path: Path, target: Path) -> Path:
        done.append(f"rename {target}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", note_rename)
    folder = tmp_path / "month" / "out"
    make(str(folder))
    there = done.index(f"rename {folder}/manifest.json")
    for first in (folder / "a.json", folder / "sub/a.parquet", folder / "sub", folder, folder.parent, tmp_path):
        assert f"sync {first}" in done[:there], first
    assert done[there - 1].startswith(f"sync {folder}/.manifest.json."), "its content before its name"
    assert done[there + 1] == f"sync {folder}", "and then its name"


def test_a_disk_that_fails_to_sync_finishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        make(str(tmp_path / "out"))
    assert sorted(storage.list_below(str(tmp_path / "out"))) == [MARKER, "a.json", "sub/a.parquet"]
    small = tmp_path / "current.json"
    small.write_text(json.dumps({"folder": "before"}))
    with pytest.raises(OSError, match="Input/output error"):
        storage.write_text(str(small), "{}", lasting=True)
    assert json.loads(small.read_text()) == {"folder": "before"}
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["current.json"]
