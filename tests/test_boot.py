"""An instance's boot program, and the agent that it starts: against moto's S3 and a metadata service of this file."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

import spark_jobs.launch
from spark_jobs.__main__ import STOPPED
from spark_jobs.launch.folder import S3Folder
from spark_jobs.launch.reader import Transcript
from spark_jobs.launch.targz import write_tar_gz

BOOT = Path(__file__).parents[1] / "ami" / "boot.py"
LAUNCH = Path(spark_jobs.launch.__file__).parent
LIMIT = 240  # seconds, of what takes a few

# A stand-in for what runs jobs: each job is a line of Python, run after a message that it starts.
RUNNER = """
import os, signal, sys, time
from pathlib import Path
from dagster_pipes import open_dagster_pipes
stop_file = Path(sys.argv[sys.argv.index("--stop-file") + 1])
with open_dagster_pipes() as pipes:
    for number, job in enumerate(pipes.extras["jobs"]):
        if stop_file.exists():
            sys.exit(3)
        pipes.report_custom_message(f"job {number}")
        print("printed by job", number, flush=True)
        exec(job)
"""
CODE = {
    "spark_jobs/__init__.py": b"",
    "spark_jobs/__main__.py": RUNNER.encode(),
    **{
        f"spark_jobs/{name}.py": (LAUNCH.parent / f"{name}.py").read_bytes()
        for name in ("errors", "kms", "missing_objects", "schema_versions")
    },
    **{f"spark_jobs/launch/{file.name}": file.read_bytes() for file in LAUNCH.glob("*.py")},
}


class Cloud:
    """S3 and the metadata service of one instance, and the launches of a test."""

    def __init__(self, folder: Path, s3_url: str):
        self.work = folder
        self.notice: dict[str, str] | None = None
        self.metadata_url = ""
        self.s3_url = s3_url
        self.s3 = boto3.client("s3", endpoint_url=s3_url, region_name="eu-west-1")
        self.s3.create_bucket(Bucket="launches", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

    def describe(self, *jobs: str, files: Mapping[str, bytes] = CODE, **changed: Any) -> None:
        packed = io.BytesIO()
        write_tar_gz(packed, files.items())
        self.s3.put_object(Bucket="launches", Key="code.tar.gz", Body=packed.getvalue())
        description = {
            "code": "s3://launches/code.tar.gz",
            "code_sha256": sha256(packed.getvalue()).hexdigest(),
            "max_runtime": 60,
            "context": {"run_id": "r", "job_name": "j", "retry_number": 0, "extras": {"jobs": jobs}}
            | dict.fromkeys(
                (
                    "asset_keys",
                    "code_version_by_asset_key",
                    "provenance_by_asset_key",
                    "partition_key",
                    "partition_key_range",
                    "partition_time_window",
                )
            ),
            **changed,
        }
        self.s3.put_object(Bucket="launches", Key="launch/description.json", Body=json.dumps(description).encode())

    def boot(self, console: int | IO[bytes] = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_ENDPOINT_URL": self.s3_url,
            "AWS_REGION": "eu-west-1",  # as user data has it
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "TMPDIR": str(self.work),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.metadata_url,
            "AUDIENCE_EXPLORER_SCRATCH": str(self.work),
            "AUDIENCE_EXPLORER_USER": "root",
        }
        command = [sys.executable, str(BOOT), "s3://launches/launch", "--deadline-file", str(self.work / "deadline")]
        return subprocess.Popen(command, env=environment, stdout=console)

    def run(self, *jobs: str, **changed: Any) -> dict[str, Any]:
        """Boot with these jobs, and wait for the end; the status."""
        self.describe(*jobs, **changed)
        assert self.boot().wait(timeout=LIMIT) == 0
        return self.status()

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.read("status.json"))
        return status

    def read(self, key: str) -> bytes:
        return bytes(self.s3.get_object(Bucket="launches", Key=f"launch/{key}")["Body"].read())

    def objects(self, stream: str) -> list[str]:
        listed = self.s3.list_objects_v2(Bucket="launches", Prefix=f"launch/{stream}/")
        return [entry["Key"].rpartition("/")[2] for entry in listed.get("Contents", [])]

    def messages(self) -> list[dict[str, Any]]:
        text = b"".join(self.read(f"messages/{name}") for name in self.objects("messages"))
        return [json.loads(line) for line in text.splitlines()]

    def told(self) -> list[str]:
        """What the agent and the jobs reported, in short."""
        return [
            message["boot"] if "boot" in message else message["params"]["payload"]
            for message in self.messages()
            if "boot" in message or message["method"] == "report_custom_message"
        ]

    def log(self) -> str:
        return b"".join(self.read(f"log/{name}") for name in self.objects("log")).decode()


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    cloud = Cloud(tmp_path, f"http://{host}:{port}")

    class MetadataService(BaseHTTPRequestHandler):
        def answer(self, text: str | None) -> None:
            self.send_response(404 if text is None else 200)
            self.end_headers()
            self.wfile.write((text or "").encode())

        def do_PUT(self) -> None:
            self.answer("token")

        def do_GET(self) -> None:
            assert self.headers["X-aws-ec2-metadata-token"] == "token"
            identity = {"instanceId": "i-1", "instanceType": "t", "availabilityZone": "eu-west-1a"}
            known = {
                "dynamic/instance-identity/document": json.dumps({**identity, "region": "eu-west-1"}),
                "meta-data/spot/instance-action": cloud.notice and json.dumps(cloud.notice),
                "meta-data/instance-life-cycle": "spot",
            }
            self.answer(known.get(self.path.removeprefix("/latest/")))

        def log_message(self, *_: object) -> None:
            pass

    metadata = ThreadingHTTPServer(("127.0.0.1", 0), MetadataService)
    threading.Thread(target=metadata.serve_forever, daemon=True).start()
    cloud.metadata_url = f"http://127.0.0.1:{metadata.server_port}"
    yield cloud
    metadata.shutdown()
    urllib.request.urlopen(f"{cloud.s3_url}/moto-api/reset", data=b"").close()
    server.stop()


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


def test_what_jobs_tell_and_print_is_shipped_and_counted_and_the_status_comes_last(cloud: Cloud) -> None:
    status = cloud.run("pass", "pass")
    assert cloud.told() == ["started", "jobs", "job 0", "job 1", "ended"]
    assert cloud.log() == "printed by job 0\nprinted by job 1\n"
    assert status["exit_code"] == 0
    assert status["messages"] == len(cloud.messages())
    assert status["objects"] == {stream: len(cloud.objects(stream)) for stream in ("messages", "log")}
    assert cloud.objects("messages")[0] == "000001.jsonl"
    assert cloud.messages()[0] | {"at": 0} == {
        **{"boot": "started", "at": 0, "instance": "i-1"},
        **{"instance_type": "t", "zone": "eu-west-1a", "market": "spot"},
    }


def test_jobs_print_to_s3_and_not_to_the_console_which_is_slow_and_would_be_waited_for(cloud: Cloud) -> None:
    console = cloud.work / "console"
    cloud.describe("print('x' * 100_000)")
    with console.open("wb") as file:
        assert cloud.boot(file).wait(timeout=LIMIT) == 0
    assert "x" * 100_000 in cloud.log()
    assert console.read_text() == "what the jobs print is in s3://launches/launch/log/\n"


def test_messages_can_be_read_while_the_job_runs(cloud: Cloud) -> None:
    cloud.describe(f"while not os.path.exists({str(cloud.work / 'go')!r}): time.sleep(0.05)")
    boot = cloud.boot()
    wait_for(lambda: "job 0" in cloud.told() and "printed by job 0" in cloud.log())
    (cloud.work / "go").touch()
    assert boot.wait(timeout=LIMIT) == 0


def test_a_job_that_takes_too_long_is_ended_with_all_it_started_and_that_is_told(cloud: Cloud) -> None:
    status = cloud.run("os.system('sleep 3600')", max_runtime=5)
    assert status["overdue"]
    assert not status["out_of_memory"]
    assert float((cloud.work / "deadline").read_text()) > 0


def test_a_process_that_is_killed_leaves_its_messages_and_is_told_from_one_without_memory(cloud: Cloud) -> None:
    status = cloud.run("os.kill(os.getpid(), signal.SIGKILL)")
    assert (status["exit_code"], status["out_of_memory"]) == (-signal.SIGKILL, False)
    assert "job 0" in cloud.told()


def test_jobs_are_ended_for_their_memory_before_the_agent_that_reports_it(cloud: Cloud) -> None:
    adjusted = "Path(f'/proc/{pid}/oom_score_adj').read_text().strip()"
    status = cloud.run(
        f"pid = os.getpid()\nwhile {adjusted} != '500': time.sleep(0.05)",
        f"pid = os.getppid()\nassert {adjusted} == '{Path('/proc/self/oom_score_adj').read_text().strip()}'",
    )
    assert status["exit_code"] == 0, cloud.log()


def test_a_spot_notice_is_told_at_once_and_no_further_job_is_taken(cloud: Cloud) -> None:
    go = cloud.work / "go"
    cloud.describe(f"while not os.path.exists({str(go)!r}): time.sleep(0.05)", "pass")
    boot = cloud.boot()
    wait_for(lambda: "job 0" in cloud.told())
    cloud.notice = {"action": "terminate", "time": "2026-01-01T00:00:00Z"}
    wait_for(lambda: "spot_notice" in cloud.told())
    go.touch()
    assert boot.wait(timeout=LIMIT) == 0
    assert cloud.status()["exit_code"] == STOPPED
    assert "job 1" not in cloud.told()


def test_code_that_is_not_the_launchs_is_not_run(cloud: Cloud) -> None:
    status = cloud.run("pass", code_sha256="0" * 64)
    assert "not the one that the launch was made with" in status["error"]
    assert (cloud.told(), cloud.objects("log")) == ([], ["000001.txt"])


def test_code_whose_agent_cannot_start_is_reported_with_the_traceback_in_the_log(cloud: Cloud) -> None:
    # Not code without one: where the project is installed for development, the agent would come from there.
    status = cloud.run("pass", files={"spark_jobs/__init__.py": b"raise ImportError('torn')"})
    assert "ImportError: torn" in status["error"]
    assert "Traceback" in cloud.log()


def test_a_launch_without_its_code_is_told(cloud: Cloud) -> None:
    cloud.describe("pass", code="s3://launches/another.tar.gz")
    assert cloud.boot().wait(timeout=LIMIT) == 0
    assert "NoSuchKey" in cloud.status()["error"]


def test_a_launch_without_a_description_is_told(cloud: Cloud) -> None:
    assert cloud.boot().wait(timeout=LIMIT) == 0
    assert "NoSuchKey" in cloud.status()["error"]


def test_what_the_launcher_reads_of_a_launch_that_could_not_begin_is_complete(cloud: Cloud) -> None:
    cloud.run("pass", code_sha256="0" * 64)
    folder = S3Folder(cloud.s3, "s3://launches/launch")
    transcript = Transcript(folder)
    assert list(transcript.new_messages()) == []
    status = folder.status()
    assert status is not None
    assert transcript.missing(status) == ""
    assert "not the one that the launch was made with" in transcript.tail
