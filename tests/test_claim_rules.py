"""Who may write to an output folder: what a marker says, whom it keeps waiting, and what is cleared before."""

import errno
import fcntl
import json
import os
import threading
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spark_jobs import storage
from spark_jobs.errors import OutputExists, S3Error
from spark_jobs.outputs import claims
from spark_jobs.outputs.claims import LEASE_SECONDS, MARKER, RENEW_SECONDS, claimed, has_writer, read_marker
from spark_jobs.reporting import Reporter
from spark_jobs.storage import s3


class Heard(Reporter):
    """Keeps what is reported."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def progress(self, message: str) -> None:
        self.said.append(message)


def claim(folder: Path, fingerprint: str = "f") -> AbstractContextManager[claims.Claim | None]:
    return claimed(str(folder), fingerprint, Heard())


# --- markers


def test_a_marker_names_its_writer_and_output_and_no_two_are_the_same(tmp_path: Path) -> None:
    waiting = claims._Waiting(str(tmp_path), "f", Heard())
    one, other = waiting.marker(), waiting.marker()
    assert one != other
    said = read_marker(one)
    assert (said["writer"], said["fingerprint"]) == (f"process {os.getpid()} on {os.uname().nodename}", "f")
    assert said["note"] == "This output is not finished: nothing reads it."
    assert len(said["at"]) == len("2024-01-31T12:00:00+00:00")
    assert one.count(b"\n") == len(said) + 2, "a line a fact, for people"


@pytest.mark.parametrize(
    "marker", [b"", b'{"writer": "pro', b"This output is not finished.\n", b"[]", b'"writer"', b"{}", b"\xff"]
)
def test_a_marker_that_was_released_or_is_not_whole_names_nobody(tmp_path: Path, marker: bytes) -> None:
    assert read_marker(marker) == {}
    assert read_marker(claims._Waiting(str(tmp_path), "f", Heard()).marker(released=True)) == {}


def test_a_job_that_waits_says_so_once_and_not_for_a_marker_that_names_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(claims.time, "sleep", slept.append)
    heard = Heard()
    waiting = claims._Waiting(str(tmp_path), "f", heard)
    waiting.wait(b"")
    assert heard.said == []
    marker = json.dumps({"writer": "somebody", "fingerprint": "f"}).encode()
    waiting.wait(marker)
    waiting.wait(marker)
    assert heard.said == [f"somebody is writing the same output to {tmp_path}: waiting for it"]
    assert slept == [claims._POLL_SECONDS] * 3
    with pytest.raises(OutputExists, match=f"{tmp_path}: somebody is writing another output there. Name another"):
        waiting.wait(json.dumps({"writer": "somebody", "fingerprint": "g"}).encode())


def test_a_lease_outlasts_several_renewals_that_fail() -> None:
    assert 0 < RENEW_SECONDS <= LEASE_SECONDS / 5


@pytest.mark.parametrize(("age", "writes"), [(None, False), (0.0, True), (29.9, True), (30.0, False)])
def test_on_s3_a_marker_has_a_writer_for_half_a_minute_after_it_was_renewed(
    monkeypatch: pytest.MonkeyPatch, age: float | None, writes: bool
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(s3, "age", lambda location: asked.append(location) or age)
    assert has_writer("s3://bucket/out") is writes
    assert asked == [f"s3://bucket/out/{MARKER}"]


# --- local folders


def test_a_folder_without_marker_or_with_one_that_nobody_locks_has_no_writer(tmp_path: Path) -> None:
    assert has_writer(str(tmp_path / "nowhere")) is False
    assert has_writer(str(tmp_path)) is False
    (tmp_path / MARKER).touch()
    assert has_writer(str(tmp_path)) is False
    with claim(tmp_path):
        assert has_writer(str(tmp_path)) is True


def test_what_an_unfinished_output_left_is_cleared_folders_and_files_before_the_new_one_is_written(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    storage.write_text(str(out / "part" / "deep" / "a.json"), "1")
    storage.write_text(str(out / "b.json"), "1")
    (out / MARKER).write_text("x" * 5000)
    with claim(out) as made:
        assert made is not None
        assert sorted(os.listdir(out)) == [MARKER]
        said = json.loads((out / MARKER).read_text())
        assert said["fingerprint"] == "f", "of the longer marker before it nothing is left"
    assert sorted(os.listdir(out)) == [MARKER], "what was not finished stays so"


def test_a_claim_is_finished_by_a_manifest_that_is_on_the_disk_after_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, bool]] = []
    write = storage.write_text

    def settle(folder: str) -> None:
        done.append((f"settle {folder}", (tmp_path / "out" / "manifest.json").exists()))

    def write_text(location: str, text: str, *, lasting: bool = False) -> None:
        done.append((location, lasting))
        write(location, text)

    monkeypatch.setattr(storage, "settle", settle)
    monkeypatch.setattr(storage, "write_text", write_text)
    with claim(tmp_path / "out") as made:
        assert made is not None
        made.finish('{"a": 1}')
        assert not (tmp_path / "out" / MARKER).exists()
    assert done == [(f"settle {tmp_path}/out", False), (f"{tmp_path}/out/manifest.json", True)]
    assert (tmp_path / "out" / "manifest.json").read_text() == '{"a": 1}'


def test_a_folder_with_a_manifest_is_not_claimed_and_nothing_in_it_is_touched(tmp_path: Path) -> None:
    for name in ("manifest.json", "data.json"):
        (tmp_path / name).write_text(name)
    with claim(tmp_path) as made:
        assert made is None
    assert sorted(os.listdir(tmp_path)) == ["data.json", "manifest.json"]


def test_files_of_somebody_else_are_refused_with_the_way_out_and_an_empty_folder_is_not(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with claim(tmp_path / "mine") as made:
        assert made is not None
    (tmp_path / "mine" / MARKER).unlink()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    says = f"^{tmp_path}/mine is not empty. Name a folder that is new or empty"
    with pytest.raises(OutputExists, match=says), claim(tmp_path / "mine"):
        pass
    assert os.listdir(tmp_path / "mine") == ["notes.txt"]


def test_a_file_in_place_of_the_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(NotADirectoryError) as refused, claim(tmp_path / "out"):
        pass
    assert (refused.value.errno, refused.value.filename) == (errno.ENOTDIR, str(tmp_path / "out"))


def test_no_file_stays_open_whoever_had_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims.time, "sleep", lambda _: (_ for _ in ()).throw(TimeoutError))
    with claim(tmp_path / "out"):
        for _ in range(3):
            with pytest.raises(TimeoutError), claim(tmp_path / "out"):
                pass
            assert has_writer(str(tmp_path / "out"))
    assert opened_below(tmp_path) == []


def opened_below(folder: Path) -> list[str]:
    """The files below a folder that this process has open."""
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [link for link in links if link.startswith(str(folder))]


def test_where_the_file_system_has_no_locks_a_job_writes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_descriptor: int, how: int) -> None:
        assert how == fcntl.LOCK_EX | fcntl.LOCK_NB
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with claim(tmp_path / "out") as made:
        assert made is not None
        made.finish("{}")
    assert os.listdir(tmp_path / "out") == ["manifest.json"]


def test_a_marker_that_its_writer_deleted_before_it_was_locked_is_not_taken_for_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another job finishes between the opening of its marker and the lock on it."""
    lock, tries = claims._try_to_lock, []

    def finish_before(descriptor: int) -> bool:
        tries.append(descriptor)
        if len(tries) == 1:
            (tmp_path / MARKER).unlink()
            (tmp_path / "manifest.json").write_text("{}")
        return lock(descriptor)

    monkeypatch.setattr(claims, "_try_to_lock", finish_before)
    with claim(tmp_path) as made:
        assert made is None, "it finds what the other one made"
    assert os.listdir(tmp_path) == ["manifest.json"]


def test_a_marker_that_another_job_wrote_anew_is_another_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    descriptor = os.open(tmp_path / "a", os.O_RDONLY)
    try:
        assert claims._is_file(descriptor, tmp_path / "a") is True
        (tmp_path / "b").touch()
        (tmp_path / "b").rename(tmp_path / "a")
        assert claims._is_file(descriptor, tmp_path / "a") is False
        (tmp_path / "a").unlink()
        assert claims._is_file(descriptor, tmp_path / "a") is False
    finally:
        os.close(descriptor)


# --- S3


class Objects:
    """A bucket in memory, with what claims ask of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.etags: dict[str, str] = {}
        self.bodies: dict[str, bytes] = {}
        self.down = False
        self.cleared: list[str] = []
        self._written = 0
        monkeypatch.setattr(s3, "put_if", self.put_if)
        monkeypatch.setattr(claims, "RENEW_SECONDS", 3600.0)

    def put_if(self, location: str, body: bytes, etag: str | None) -> str | None:
        if self.down:
            raise S3Error("no answer")
        if self.etags.get(location) != etag:
            return None
        self._written += 1
        self.bodies[location], self.etags[location] = body, str(self._written)
        return self.etags[location]


def claim_on_s3(objects: Objects) -> claims._S3Claim:
    waiting = claims._Waiting("s3://bucket/out", "f", Heard())
    etag = objects.put_if(f"s3://bucket/out/{MARKER}", waiting.marker(), None)
    assert etag is not None
    return claims._S3Claim("s3://bucket/out", etag, waiting.marker)


def test_a_claim_that_is_released_names_nobody_and_one_that_lost_its_marker_leaves_it_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects, marker = Objects(monkeypatch), f"s3://bucket/out/{MARKER}"
    made = claim_on_s3(objects)
    assert read_marker(objects.bodies[marker])
    made.release()
    assert not read_marker(objects.bodies[marker])
    released = objects.etags[marker]
    made.release()
    assert objects.etags[marker] == released, "once is enough"
    objects.etags.clear()
    lost = claim_on_s3(objects)
    objects.etags[marker], objects.bodies[marker] = "other", b"another job's"
    lost.release()
    assert objects.bodies[marker] == b"another job's"


def test_a_release_that_s3_does_not_answer_is_no_error_for_the_marker_grows_old_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects = Objects(monkeypatch)
    made = claim_on_s3(objects)
    objects.down = True
    made.release()


def test_a_job_whose_marker_was_taken_over_writes_no_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects(monkeypatch)
    made = claim_on_s3(objects)
    objects.etags[f"s3://bucket/out/{MARKER}"] = "other"
    with pytest.raises(OutputExists, match="Another job took s3://bucket/out over while this one paused"):
        made.finish("{}")
    assert "s3://bucket/out/manifest.json" not in objects.bodies
    made.release()


def test_renewals_go_on_after_one_that_failed_and_end_with_the_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects(monkeypatch)
    tried, failed, renewed = [0], threading.Event(), threading.Event()
    put_if = objects.put_if

    def put_sometimes(location: str, body: bytes, etag: str | None) -> str | None:
        tried[0] += 1
        if tried[0] == 2:
            failed.set()
            raise S3Error("no answer")
        if tried[0] > 3:
            renewed.set()
        return put_if(location, body, etag)

    monkeypatch.setattr(s3, "put_if", put_sometimes)
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.001)
    before = set(threading.enumerate())
    made = claim_on_s3(objects)
    (renewing,) = set(threading.enumerate()) - before
    assert renewing.name == "claim"
    assert renewing.daemon, "it keeps no process alive"
    assert failed.wait(120)
    assert renewed.wait(120)
    made.release()
    renewing.join(120)
    assert not renewing.is_alive()
    assert not read_marker(objects.bodies[f"s3://bucket/out/{MARKER}"])


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> Objects:
    """A bucket in which another job left a marker and a file, which is gone when somebody would clear it."""
    objects, marker = Objects(monkeypatch), f"s3://bucket/out/{MARKER}"
    objects.put_if(marker, claims._Waiting("s3://bucket/out", "g", Heard()).marker(), None)

    def at(location: str) -> Any:
        def unlink(missing_ok: bool = False) -> None:
            objects.cleared.append(location)
            if not missing_ok:
                raise FileNotFoundError(location)

        return SimpleNamespace(unlink=unlink)

    def list_below(folder: str) -> dict[str, storage.ListedFile]:
        assert folder == "s3://bucket/out"
        return {MARKER: storage.ListedFile(1, 0.0, objects.etags[marker]), "gone": storage.ListedFile(1, 0.0, "e")}

    monkeypatch.setattr(storage, "at", at)
    monkeypatch.setattr(storage, "list_below", list_below)
    monkeypatch.setattr(storage, "read_bytes", objects.bodies.__getitem__)
    return objects


@pytest.mark.parametrize(("age", "taken"), [(0.0, False), (29.9, False), (30.0, True), (None, True)])
def test_on_s3_a_folder_is_taken_over_and_cleared_once_its_marker_is_half_a_minute_old(
    monkeypatch: pytest.MonkeyPatch, left: Objects, age: float | None, taken: bool
) -> None:
    monkeypatch.setattr(s3, "age", lambda _: age)
    waiting = claims._Waiting("s3://bucket/out", "f", Heard())
    if not taken:
        other = claims._claim_on_s3("s3://bucket/out", waiting)
        with pytest.raises(OutputExists, match="is writing another output there"), other:
            pass
        assert left.cleared == []
        return
    with claims._claim_on_s3("s3://bucket/out", waiting) as made:
        assert made is not None
        assert read_marker(left.bodies[f"s3://bucket/out/{MARKER}"])["fingerprint"] == "f"
    assert left.cleared == ["s3://bucket/out/gone"], "that it is gone already is no error"
    assert read_marker(left.bodies[f"s3://bucket/out/{MARKER}"]) == {}


def test_on_s3_a_job_that_waits_for_the_same_output_takes_nothing_before_the_marker_is_old(
    monkeypatch: pytest.MonkeyPatch, left: Objects
) -> None:
    marker, ages, seen = f"s3://bucket/out/{MARKER}", iter([0.0, 29.9, 30.0]), list[str]()
    before = left.etags[marker]
    monkeypatch.setattr(s3, "age", lambda _: next(ages))
    monkeypatch.setattr(claims.time, "sleep", lambda _: seen.append(left.etags[marker]))
    heard = Heard()
    with claims._claim_on_s3("s3://bucket/out", claims._Waiting("s3://bucket/out", "g", heard)) as made:
        assert made is not None
    assert seen == [before] * 2
    assert len(heard.said) == 1
