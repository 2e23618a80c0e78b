"""The boot program of an instance: runs the jobs of one launch, ships what they say to S3, and writes how they ended.

It is one file, so that it can be read and tested by itself. As root, it is given the S3 folder of the launch, in which
it finds `description.json`:

- `code`, `code_sha256`: the archive of `spark_jobs`, and its digest
- `context`: the Pipes context of the jobs
- `max_runtime`: seconds that the machine may live

and into which it writes, while the jobs run:

- `messages/000001.jsonl`, …: what the jobs tell over the Pipes protocol, and what it tells itself, as `{"boot": …}`
- `log/000001.txt`, …: what they print
- `status.json`, last: how it ended, and how many objects of both there are

An object is never written twice with other content, and a later one only after the earlier ones are through. Requests
to S3 are repeated for as long as it takes, unless it refuses them; the machine's watchdog sets the limit.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import pwd
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from dagster_pipes import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    PipesDefaultContextLoader,
    PipesDefaultMessageWriter,
    encode_param,
)

USER = "explorer"
SHIP_SECONDS = 0.3  # how long what is written waits for more
NOTICE_SECONDS = 2.0  # between two looks for a spot interruption notice; AWS recommends one every 5 s
REFUSED_SECONDS = 60.0  # how long S3 may refuse: new roles and their rights take a moment to be known everywhere
MAX_LOG_WAITING = 16 << 20  # bytes of log that wait for S3; the jobs may write without end, and memory is theirs
STOPPED = 3  # the exit code of jobs that were told to take no further one


class Metadata:
    """The instance metadata service, version 2.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
    """

    def __init__(self) -> None:
        endpoint = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
        self._address = endpoint.rstrip("/")
        self._token = ""

    def get(self, path: str) -> str | None:
        """What it says of a path; None if it knows none such."""
        for attempt in range(5):
            try:
                if not self._token:
                    self._token = self._ask("PUT", "api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "21600"})
                return self._ask("GET", path, {"X-aws-ec2-metadata-token": self._token})
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return None
                self._token = ""  # a token expires
            except OSError:
                pass
            time.sleep(0.2 * 2**attempt)
        raise OSError(f"the instance metadata service does not answer for {path}")

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(f"{self._address}/latest/{path}", method=method, headers=headers)
        # No proxy is asked for it, whatever the environment names.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=2) as answer:
            return str(answer.read().decode())


class Folder:
    """An S3 folder, in which every request is repeated until it is through."""

    def __init__(self, location: str):
        parts = urlsplit(location)
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        retries = Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=5, read_timeout=20)
        self._s3 = boto3.client("s3", config=retries)

    def put(self, name: str, body: bytes) -> None:
        """Write an object of the folder."""
        self._until_through(lambda: self._s3.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}", Body=body))

    def get(self, name: str) -> bytes:
        """An object of the folder."""
        return self.get_from(self._bucket, f"{self._prefix}/{name}")

    def get_from(self, bucket: str, key: str) -> bytes:
        """Any object."""

        def ask() -> bytes:
            return self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()

        return bytes(self._until_through(ask))

    @staticmethod
    def _until_through(ask: Callable[[], Any]) -> Any:
        wait, began = 0.2, time.monotonic()
        while True:
            try:
                return ask()
            except (BotoCoreError, ClientError, OSError) as error:
                if isinstance(error, ClientError):
                    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                    if status == 404 or (status == 403 and time.monotonic() - began > REFUSED_SECONDS):
                        raise
                _say(f"S3: {error}; again in {wait:.1f} s")
            time.sleep(wait)
            wait = min(wait * 2, 5)


class Stream:
    """Ships what `take` gives, as numbered objects, from a thread of its own, until it is closed and all is through."""

    def __init__(self, folder: Folder, name: str, take: Callable[[], bytes]):
        self._folder, self._name, self._take = folder, name, take
        self._closed = threading.Event()
        self._failure: Exception | None = None
        self.objects = 0  # those that are through
        self._thread = threading.Thread(target=self._ship, name=name, daemon=True)
        self._thread.start()

    def close(self) -> int:
        """Ship what is left; how many objects there are.

        Raises:
            Exception: Not all is through: what kept it.
        """
        self._closed.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self.objects

    def _ship(self) -> None:
        try:
            while True:
                last = self._closed.is_set()  # asked first, so that all that was given before it was closed is taken
                if chunk := self._take():
                    self._folder.put(self._name.format(self.objects + 1), chunk)
                    self.objects += 1
                elif last:
                    return
                self._closed.wait(SHIP_SECONDS)
        except Exception as error:  # told by who closes it: a launch of which something is lost must not end well
            self._failure = error


class Messages:
    """The jobs' messages, which they write to a file on disk, and this program's own."""

    def __init__(self) -> None:
        self._file: IO[bytes] = io.BytesIO()
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._rest = b""  # the beginning of a message that is still being written
        self.count = 0  # those taken

    def follow(self, file: Path) -> None:
        """Take what is written to a file, too."""
        file.touch()
        self._file = file.open("rb")

    def tell(self, event: str, **facts: Any) -> None:
        """Say something of this program's own, after all that the jobs have said until now."""
        with self._lock:
            self._read()
            self._waiting.append(json.dumps({"boot": event, "at": time.time(), **facts}).encode())

    def take(self) -> bytes:
        """All whole messages that were not taken yet, a line each."""
        with self._lock:
            self._read()
            taken, self._waiting = self._waiting, []
        self.count += len(taken)
        return b"".join(message + b"\n" for message in taken)

    def _read(self) -> None:
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        self._waiting += whole


class Log:
    """What the jobs print, as it waits for S3."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self._left_out = 0

    def add(self, text: bytes) -> None:
        """Add what was printed; what is more than can wait is left out, and that is said."""
        with self._lock:
            fits = MAX_LOG_WAITING - len(self._waiting)
            self._waiting += text[:fits]
            self._left_out += max(0, len(text) - fits)

    def take(self) -> bytes:
        """All that was not taken yet."""
        with self._lock:
            taken, self._waiting = bytes(self._waiting), bytearray()
            if self._left_out:
                taken += f"\n… {self._left_out} bytes are left out, because S3 took no more …\n".encode()
                self._left_out = 0
        return taken


class Jobs:
    """The process that runs the jobs, with all that it starts."""

    def __init__(self, work: Path, description: dict[str, Any], messages: Messages, log: Log):
        self._stop = work / "stop"
        spool = work / "messages.jsonl"
        messages.follow(spool)
        context = work / "context.json"
        context.write_text(json.dumps(description["context"]), encoding="utf-8")
        environment = {
            **os.environ,
            "HOME": str(work),
            "TMPDIR": str(work),
            "SPARK_LOCAL_DIRS": str(work),
            "SPARK_DRIVER_MEMORY": f"{_memory_bytes() * 7 // 10 >> 20}m",
            # On EMR Serverless the code and its packages are there already.
            "PYTHONPATH": os.pathsep.join([str(work / "code"), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "PYTHONUNBUFFERED": "1",
            DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({PipesDefaultContextLoader.FILE_PATH_KEY: str(context)}),
            DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param({PipesDefaultMessageWriter.FILE_PATH_KEY: str(spool)}),
        }
        self._user = _as_unprivileged(work)
        self._oom_kills = _oom_kills()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "spark_jobs", "--stop-file", str(self._stop)],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **self._user,
        )
        self._reader = threading.Thread(target=self._read, args=(log,), daemon=True)
        self._reader.start()

    def take_no_further(self) -> None:
        """Let the job that runs end, and start none after it."""
        self._stop.touch()

    def wait(self, seconds: float) -> dict[str, Any]:
        """Wait until they end, at most so long; how they ended."""
        overdue = False
        try:
            self._process.wait(timeout=max(0, seconds))
        except subprocess.TimeoutExpired:
            overdue = True
        self.end_all()
        code = self._process.wait()
        # Be it this process or one that it started, such as Spark's JVM.
        return {"exit_code": code, "overdue": overdue, "out_of_memory": _oom_kills() > self._oom_kills}

    def end_all(self) -> None:
        """End what is left: nothing of it writes once the end is told."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # Spark's workers leave the process group; but the user has nothing else here.
        for process in Path("/proc").glob("[0-9]*") if self._user else ():
            with contextlib.suppress(OSError):
                if process.stat().st_uid == self._user["user"]:
                    os.kill(int(process.name), signal.SIGKILL)
        self._reader.join(timeout=5)

    def _read(self, log: Log) -> None:
        assert self._process.stdout is not None
        while text := os.read(self._process.stdout.fileno(), 1 << 16):
            log.add(text)
            _say(text.decode(errors="replace"), end="")


def main(location: str, deadline_file: str) -> None:
    """Do the launch whose folder is at `location`, and write its status, whatever happens."""
    started = time.monotonic()
    machine = Metadata()
    identity = json.loads(machine.get("dynamic/instance-identity/document") or "{}")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        os.environ.setdefault(name, identity["region"])
    folder = Folder(location)

    def run(work: Path, messages: Messages, log: Log) -> dict[str, Any]:
        return _run(folder, work, machine, messages, log, started, deadline_file)

    tell_all(folder, _facts(identity, machine), run)


def tell_all(
    folder: Folder, facts: dict[str, Any], run: Callable[[Path, Messages, Log], dict[str, Any]]
) -> dict[str, Any]:
    """Do a launch, ship what it tells, and write its status, whatever happens.

    Args:
        folder: That of the launch.
        facts: What is told of where it runs.
        run: Does it, in a work folder, which is deleted then; how it ended.

    Returns:
        The status.
    """
    started = time.monotonic()
    messages, log = Messages(), Log()
    streams = {
        "messages": Stream(folder, "messages/{:06}.jsonl", messages.take),
        "log": Stream(folder, "log/{:06}.txt", log.take),
    }
    messages.tell("started", **facts)
    try:
        with tempfile.TemporaryDirectory(prefix="launch-", dir=_scratch(), ignore_cleanup_errors=True) as work:
            status = run(Path(work), messages, log)
    except Exception as error:
        traceback.print_exc()
        log.add(traceback.format_exc().encode())
        status = {"error": f"{type(error).__name__}: {error}"}
    messages.tell("ended", **status)
    objects = {}
    for name, stream in streams.items():
        try:
            objects[name] = stream.close()
        except Exception as error:
            status["error"] = f"of the {name} not all is shipped: {error}"
            objects[name] = stream.objects
    status |= {"messages": messages.count, "objects": objects, "seconds": round(time.monotonic() - started, 3)}
    folder.put("status.json", json.dumps(status, indent=1).encode())
    return status


def _run(
    folder: Folder, work: Path, machine: Metadata, messages: Messages, log: Log, started: float, deadline_file: str
) -> dict[str, Any]:
    description = json.loads(folder.get("description.json"))
    max_runtime = float(description["max_runtime"])
    # The jobs are ended a little before the machine is, so that there is time to tell.
    limit = max_runtime - min(60, max_runtime / 10)
    _write_deadline(deadline_file, max_runtime - (time.monotonic() - started))
    _fetch_code(folder, description, work / "code")
    jobs = Jobs(work, description, messages, log)
    messages.tell("jobs", boot_seconds=round(time.monotonic() - started, 3))
    ended = threading.Event()
    watch = threading.Thread(target=_watch_for_notice, args=(machine, messages, jobs, ended), daemon=True)
    watch.start()
    try:
        return jobs.wait(limit - (time.monotonic() - started))
    finally:
        ended.set()


def _watch_for_notice(machine: Metadata, messages: Messages, jobs: Jobs, ended: threading.Event) -> None:
    """Report a spot interruption as soon as it is announced, and let no further job start.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
    """
    while not ended.wait(NOTICE_SECONDS):
        try:
            notice = machine.get("meta-data/spot/instance-action")
        except OSError as error:
            _say(str(error))
            continue
        if notice is not None:
            messages.tell("spot_notice", notice=json.loads(notice))
            jobs.take_no_further()
            return


def _fetch_code(folder: Folder, description: dict[str, Any], target: Path) -> None:
    parts = urlsplit(description["code"])
    archive = folder.get_from(parts.netloc, parts.path.lstrip("/"))
    if hashlib.sha256(archive).hexdigest() != description["code_sha256"]:
        raise ValueError(f"{description['code']} is not the archive that the launch was made with")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(target)  # whose content the digest vouches for


def _write_deadline(deadline_file: str, seconds: float) -> None:
    """Tell the watchdog when the machine's time is over."""
    uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    draft = Path(deadline_file + ".new")
    draft.write_text(f"{int(uptime + seconds)}\n", encoding="ascii")
    draft.replace(deadline_file)


def _facts(identity: dict[str, Any], machine: Metadata) -> dict[str, Any]:
    return {
        "instance": identity.get("instanceId"),
        "instance_type": identity.get("instanceType"),
        "zone": identity.get("availabilityZone"),
        "market": machine.get("meta-data/instance-life-cycle"),
    }


def _say(text: str, end: str = "\n") -> None:
    """Print to the console, which must not keep anything from being done."""
    with contextlib.suppress(OSError):
        print(text, end=end, flush=True)


def _scratch() -> str:
    """The folder for what the jobs write while they run: the instance's own disks, where it has some."""
    scratch = os.environ.get("AUDIENCE_EXPLORER_SCRATCH", "/scratch")
    return scratch if os.path.isdir(scratch) else "/var/tmp"


def _as_unprivileged(work: Path) -> dict[str, Any]:
    """Who the jobs run as: a user of their own, to whom the work folder is given."""
    if os.geteuid() != 0 or os.environ.get("AUDIENCE_EXPLORER_USER") == "root":
        return {}
    user = pwd.getpwnam(os.environ.get("AUDIENCE_EXPLORER_USER", USER))
    for path in [work, *work.rglob("*")]:
        os.chown(path, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _oom_kills() -> int:
    """How many processes the kernel has ended for their memory, be it the machine's or a cgroup's that was used up."""
    for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run the jobs of one launch; see the top of this file.")
    parser.add_argument("folder", help="the S3 folder of the launch")
    parser.add_argument("--deadline-file", required=True, help="where to write the uptime at which the machine ends")
    options = parser.parse_args()
    main(options.folder, options.deadline_file)
