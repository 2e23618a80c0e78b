"""Both ends of the launch protocol over a store that loses requests: everything arrives, in order and once, or it is
noticed that something is missing.
"""

import json
import random
import threading
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from spark_jobs.launch import folder as folders
from spark_jobs.launch import lease
from spark_jobs.launch.agent import Machine, run_launch
from spark_jobs.launch.folder import Folder, RetryingFolder
from spark_jobs.launch.reader import BrokenMessage, StreamReader, Transcript
from spark_jobs.launch.status import Status
from spark_jobs.launch.writer import Log, Messages, StreamWriter

MESSAGES = 200
CHUNKS = 100


class LossyFolder(Folder):
    """A folder in memory. By chance a request fails before it is done, or is done and its answer is lost; and one that
    failed may still be done later, after others.
    """

    def __init__(self, seed: int = 0, losses: float = 0.0):
        self.location = "memory://launch"
        self.objects: dict[str, bytes] = {}
        self.written: dict[str, float] = {}  # when, by the folder's clock
        self.writes: list[str] = []
        self.clock = 0.0
        self.forgets: set[str] = set()  # objects that are accepted, and then lost
        self.refuses: set[str] = set()  # objects that may not be written
        self._chance, self._losses, self._late = random.Random(seed), losses, list[tuple[str, bytes]]()
        self._lock = threading.Lock()

    def put(self, name: str, body: bytes) -> None:
        with self._lock:
            if name in self.refuses:
                answer: Any = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
                raise ClientError(answer, "PutObject")
            if self._late and self._happens():
                self._write(*self._late.pop(0))
            if self._happens():
                if self._happens():
                    self._late.append((name, body))
                raise EndpointConnectionError(endpoint_url=self.location)
            self._write(name, body)
            if self._happens():
                raise EndpointConnectionError(endpoint_url=self.location)

    def get(self, name: str) -> bytes | None:
        with self._lock:
            if self._happens():
                raise EndpointConnectionError(endpoint_url=self.location)
            return self.objects.get(name)

    def age(self, name: str) -> float | None:
        with self._lock:
            if self._happens():
                raise EndpointConnectionError(endpoint_url=self.location)
            return self.clock - self.written[name] if name in self.written else None

    def _write(self, name: str, body: bytes) -> None:
        assert self.objects.get(name, body) == body, f"{name} is written again with other content"
        if name not in self.forgets:
            self.objects[name], self.written[name] = body, self.clock
        self.writes.append(name)

    def _happens(self) -> bool:
        return self._chance.random() < self._losses


def write(folder: Folder, broken: bool = False) -> None:
    """The writing end: messages and chunks of a log, written while others are being stored."""
    messages, log = Messages(), Log()
    retrying = RetryingFolder(folder, sleep=lambda _: time.sleep(0.001))
    writers = [
        StreamWriter(retrying, "messages", messages.take, collect_seconds=0.001),
        StreamWriter(retrying, "log", log.take, collect_seconds=0.001),
    ]
    for number in range(MESSAGES):
        messages.report("number", number=number)
        if number < CHUNKS:
            log.add(f"line {number}\n".encode())
        time.sleep(0.0005)
    error = None
    for writer in writers:
        try:
            writer.close()
        except ClientError as refusal:
            error = str(refusal)
    objects = {writer.stream: writer.objects for writer in writers}
    count = messages.count + broken
    retrying.end(Status(exit_code=0, error=error, messages=count, objects=objects))


def read(folder: Folder, seconds: float = 120) -> tuple[list[int], str, str]:
    """The reading end, as launchers do it: the messages, what is missing in the end, and the last lines of the log."""
    transcript, numbers, deadline = Transcript(folder), list[int](), time.monotonic() + seconds
    complete_by = float("inf")
    while time.monotonic() < deadline:
        try:
            status = folder.status()
            numbers += (message["number"] for message in transcript.new_messages())
        except EndpointConnectionError:
            continue
        if status is not None:
            missing = transcript.missing(status)
            complete_by = min(complete_by, time.monotonic() + 0.2)
            if not missing or time.monotonic() > complete_by:
                return numbers, missing, transcript.tail
        time.sleep(0.001)
    raise AssertionError("the status never came")


def exchange(folder: LossyFolder) -> tuple[list[int], str, str]:
    """What arrives of what is written at the same time."""
    writer = threading.Thread(target=write, args=(folder,))
    writer.start()
    try:
        return read(folder)
    finally:
        writer.join()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("losses", [0.0, 0.1, 0.4])
def test_everything_arrives_in_order_and_once_however_many_requests_are_lost(losses: float, seed: int) -> None:
    folder = LossyFolder(seed, losses)
    numbers, missing, tail = exchange(folder)
    assert (numbers, missing) == (list(range(MESSAGES)), "")
    assert tail.splitlines() == [f"line {number}" for number in range(CHUNKS - 20, CHUNKS)]
    assert len(folder.objects) > 10, "one object would be no proof"
    assert folder.writes.index("status.json") > max(
        folder.writes.index(name) for name in folder.objects if name != "status.json"
    )


@pytest.mark.parametrize("lost", ["messages/000001.jsonl", "messages/000003.jsonl", "log/000002.txt"])
def test_an_object_that_is_lost_is_noticed_and_nothing_after_it_is_read(lost: str) -> None:
    folder = LossyFolder()
    folder.forgets.add(lost)
    numbers, missing, _ = exchange(folder)
    assert missing.startswith("it wrote {'messages': ")
    assert numbers == list(range(len(numbers)))
    assert len(numbers) < MESSAGES or lost.startswith("log/")


def test_messages_that_were_counted_and_are_in_no_object_are_noticed() -> None:
    folder = LossyFolder()
    write(folder, broken=True)
    assert read(folder)[1] == f"it wrote {MESSAGES + 1} messages, {MESSAGES} arrived"


def test_a_stream_that_is_refused_is_an_error_of_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_REFUSED_SECONDS", 0.0)
    folder = LossyFolder()
    folder.refuses.add("log/000002.txt")
    assert exchange(folder)[:2] == (list(range(MESSAGES)), ""), "all that was stored has arrived"
    status = folder.status()
    assert status is not None
    assert "AccessDenied" in str(status.error)


def test_half_a_message_is_not_taken_and_a_broken_one_is_noticed(tmp_path: Any) -> None:
    messages, file = Messages(), tmp_path / "messages.jsonl"
    messages.follow(file)
    with file.open("a") as spool:
        spool.write('{"number": 0}\n{"num')
        spool.flush()
        assert messages.take() == b'{"number": 0}\n'
        spool.write('ber": 1}\n')
    assert messages.take() == b'{"number": 1}\n'
    folder = LossyFolder()
    folder.put_object("messages", 1, b'{"number": 0}\n{"num')
    transcript = Transcript(folder)
    with pytest.raises(BrokenMessage, match="message 2 is broken"):
        list(transcript.new_messages())


def test_a_request_that_fails_in_the_middle_of_reading_reads_nothing_twice() -> None:
    folder = LossyFolder()
    for number in range(1, 51):
        folder.put_object("log", number, b"%d " % number)
    reader, chunks = StreamReader(folder, "log"), list[bytes]()
    folder._losses = 0.5
    while reader.objects < 50:
        try:
            chunks.extend(reader.new())
        except EndpointConnectionError:
            continue
    assert b"".join(chunks).split() == [b"%d" % number for number in range(1, 51)]


def test_a_log_that_waits_for_too_long_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spark_jobs.launch.writer._MAX_LOG_WAITING", 4)
    log = Log()
    log.add(b"abc")
    log.add(b"def")
    assert log.take().decode() == "abcd\n… 2 bytes are left out, because S3 took no more …\n"
    log.add(b"g")
    assert log.take() == b"g"


# --- the lease


def test_a_lease_is_renewed_while_somebody_waits_though_requests_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.001)
    folder = LossyFolder()
    assert not lease.is_valid(folder.lease_age()), "nobody has ever waited"
    with lease.renewed(folder):
        assert folder.lease_age() == 0
        folder._losses = 0.5
        folder.clock = 1000.0
        renewals = folder.writes.count("lease")
        until = time.monotonic() + 120
        while folder.writes.count("lease") < renewals + 5 and time.monotonic() < until:
            time.sleep(0.001)
        folder._losses = 0.0
        assert folder.lease_age() == 0
    for thread in threading.enumerate():  # a renewal that has begun is the last
        if thread.name == "lease":
            thread.join(120)
    folder.clock += lease.LEASE_SECONDS - 1
    assert lease.is_valid(folder.lease_age())
    folder.clock += 1
    assert not lease.is_valid(folder.lease_age())


def test_a_lease_that_cannot_be_had_is_an_error_before_anything_is_started() -> None:
    folder = LossyFolder(losses=1.0)
    with pytest.raises(EndpointConnectionError), lease.renewed(folder):
        raise AssertionError("nothing may be started")


# --- the status


def test_a_status_is_read_as_it_was_written_and_what_is_not_known_of_it_left_out() -> None:
    status = Status(exit_code=-9, out_of_memory=True, messages=3, objects={"messages": 1, "log": 2}, seconds=1.5)
    assert Status.parse(status.as_json()) == status
    assert Status.parse(b'{"error": "ValueError: no", "of later versions": 1}') == Status(error="ValueError: no")


# --- the agent


@pytest.fixture
def described() -> LossyFolder:
    """A launch without jobs."""
    folder = LossyFolder()
    context: dict[str, Any] = {"run_id": "r", "job_name": "j", "retry_number": 0, "extras": {"jobs": []}}
    for name in ("asset_keys", "code_version_by_asset_key", "provenance_by_asset_key"):
        context[name] = None
    for name in ("partition_key", "partition_key_range", "partition_time_window"):
        context[name] = None
    folder.describe({"max_runtime": 60, "context": context})
    return folder


def test_what_an_agent_writes_over_a_lossy_store_is_read_whole(described: LossyFolder) -> None:
    described._losses = 0.3
    retrying = RetryingFolder(described, sleep=lambda _: None)
    status = run_launch(retrying, Machine(watch=lambda *_: True, watch_seconds=60, facts={"instance": "i-1"}))
    described._losses = 0.0
    transcript = Transcript(described)
    messages = list(transcript.new_messages())
    assert (status.exit_code, transcript.missing(status)) == (0, "")
    assert [message["boot"] for message in messages if "boot" in message] == ["started", "jobs", "ended"]
    assert messages[0]["instance"] == "i-1"
    assert json.loads(described.objects["status.json"])["exit_code"] == 0


def test_an_agent_without_a_description_says_so() -> None:
    folder = LossyFolder()
    status = run_launch(RetryingFolder(folder), Machine(watch=lambda *_: True, watch_seconds=60))
    assert status.error == "FileNotFoundError: the launch has no description.json"
    assert folder.status() == status
    assert Transcript(folder).missing(status), "nothing was read yet"
