"""Claims: of jobs that would make an output in one folder at the same time, one does, and none harms another's."""

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from spark_jobs import outputs, storage
from spark_jobs.config import KMeansConfig
from spark_jobs.errors import OutputExists
from spark_jobs.outputs import claims
from spark_jobs.outputs.claims import MARKER, has_writer
from spark_jobs.reporting import Reporter
from spark_jobs.storage import s3

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder that is not there yet, in a local folder and on S3."""
    monkeypatch.setattr(claims, "_POLL_SECONDS", 0.01)
    if request.param == "local":
        return str(tmp_path / "out")
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    for backend in s3_backends.values():
        backend["aws"].reset()
    boto3.client("s3").create_bucket(Bucket="audience")
    return "s3://audience/out"


class Heard(Reporter):
    """Keeps what is reported, and calls back when a job waits."""

    def __init__(self, on_wait: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.said: list[str] = []
        self.made: list[str] = []
        self._on_wait = on_wait

    def progress(self, message: str) -> None:
        self.said.append(message)
        self._on_wait()

    def output(self, _: str, manifest: outputs.Manifest) -> None:
        self.made.append(manifest["summary"]["by"])


def make(
    folder: str, by: str, report: Reporter, fingerprint: str = "f", body: Callable[[], None] = lambda: None
) -> None:
    """Make an output of one file, and do something before it is finished."""
    config = KMeansConfig(k=2)
    with outputs.writing("kmeans", "1", folder, report, config=config, inputs=[], fingerprint=fingerprint) as made:
        if not made.finished:
            made.write_json("by.json", by)
            body()
            made.complete(rows={}, summary={"by": by})


def files(folder: str) -> list[str]:
    return sorted(storage.list_below(folder))


def test_of_two_jobs_of_the_same_output_one_makes_it_and_the_other_waits_and_takes_it(folder: str) -> None:
    second_waits = threading.Event()
    second = Heard(second_waits.set)
    other = threading.Thread(target=make, args=(folder, "second", second))

    def start_the_other() -> None:
        other.start()
        assert second_waits.wait(120), "it neither waits nor ends"

    first = Heard()
    make(folder, "first", first, body=start_the_other)
    other.join(120)
    assert (first.made, second.made) == (["first"], ["first"])
    assert second.said == [
        f"process {os.getpid()} on {os.uname().nodename} is writing the same output to {folder}: waiting for it"
    ]
    assert json.loads(storage.read_bytes(storage.join(folder, "by.json"))) == "first"
    assert files(folder) == ["by.json", "manifest.json"]


def test_a_job_of_another_output_is_told_who_writes_there_and_deletes_nothing(folder: str) -> None:
    def start_another() -> None:
        with pytest.raises(OutputExists, match=rf"process {os.getpid()} on .* is writing another output there. Name"):
            make(folder, "another", Heard(), fingerprint="g")
        assert has_writer(folder)

    made = Heard()
    make(folder, "first", made, body=start_another)
    assert made.made == ["first"]
    assert files(folder) == ["by.json", "manifest.json"]
    assert not has_writer(folder)


def test_what_a_job_that_failed_left_keeps_nobody_waiting(folder: str) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make(folder, "first", Heard(), body=fail)
    assert files(folder) == [MARKER, "by.json"]
    assert not outputs.is_finished(folder)
    second = Heard()
    make(folder, "second", second, fingerprint="g")
    assert (second.made, second.said) == (["second"], [])


def test_an_unfinished_output_of_an_earlier_version_is_cleared(folder: str) -> None:
    storage.write_text(storage.join(folder, MARKER), "This output is not finished: nothing reads it.\n")
    storage.write_text(storage.join(folder, "sub/old.json"), "1")
    made = Heard()
    make(folder, "new", made)
    assert (made.made, files(folder)) == (["new"], ["by.json", "manifest.json"])


def _die_while_writing(folder: str) -> None:
    make(folder, "first", Heard(), body=lambda: os.kill(os.getpid(), signal.SIGKILL))


@pytest.mark.parametrize("folder", ["local"], indirect=True)
def test_a_job_that_is_killed_frees_its_folder(folder: str) -> None:
    killed = multiprocessing.get_context("fork").Process(target=_die_while_writing, args=(folder,))
    killed.start()
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL
    assert files(folder) == [MARKER, "by.json"]
    assert not has_writer(folder)
    second = Heard()
    make(folder, "second", second, fingerprint="g")
    assert (second.made, second.said) == (["second"], [])


@pytest.mark.parametrize("folder", ["s3"], indirect=True)
def test_a_marker_on_s3_that_nobody_renews_is_taken_over_and_who_comes_back_finishes_nothing(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_taken_over() -> None:
        assert has_writer(folder)
        monkeypatch.setattr(claims, "LEASE_SECONDS", -1.0)
        make(folder, "second", second)

    second, first = Heard(), Heard()
    with pytest.raises(OutputExists, match=r"Another job took .* over while this one paused. Run again"):
        make(folder, "first", first, body=be_taken_over)
    assert (first.made, second.made) == ([], ["second"])
    assert json.loads(storage.read_bytes(storage.join(folder, "by.json"))) == "second"
    assert files(folder) == ["by.json", "manifest.json"]


@pytest.mark.parametrize("folder", ["s3"], indirect=True)
def test_a_marker_on_s3_is_renewed_while_its_job_goes_on(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.01)
    renewed = threading.Event()
    put, written = s3.put_if, []

    def put_if(location: str, body: bytes, etag: str | None) -> str | None:
        written.append(etag)
        if len(written) > 3:
            renewed.set()
        return put(location, body, etag)

    monkeypatch.setattr(s3, "put_if", put_if)
    made = Heard()
    make(folder, "first", made, body=lambda: _wait_for(renewed))
    assert made.made == ["first"]
    assert len(set(written[:4])) == 4, "each replaces the one before"
    assert files(folder) == ["by.json", "manifest.json"]


def _wait_for(event: threading.Event) -> None:
    assert event.wait(120)


@pytest.mark.parametrize("folder", ["s3"], indirect=True)
def test_an_object_is_written_on_its_condition_alone(folder: str) -> None:
    location = storage.join(folder, "a")
    etag = s3.put_if(location, b"1", None)
    assert etag is not None
    assert s3.put_if(location, b"2", None) is None
    assert s3.put_if(location, b"2", "0" * 32) is None
    assert s3.put_if(storage.join(folder, "b"), b"2", etag) is None
    assert storage.read_bytes(location) == b"1"
    assert s3.put_if(location, b"2", etag) not in (None, etag)
    assert storage.read_bytes(location) == b"2"
