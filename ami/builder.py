"""Runs on the builder, as root: provisions it, and writes to S3 how that goes and how it ended.

Into the folder that it is given it writes `log/000001.txt`, …, while it works, and `status.json` last. It needs nothing
but Debian's Python and its boto3.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3

HERE = Path(__file__).parent
PYTHON = "/opt/audience-explorer/venv/bin/python"
SHIP_SECONDS = 1.0


class Folder:
    """An S3 folder."""

    def __init__(self, location: str):
        parts = urlsplit(location)
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        # Debian's boto3 may be too old to know AWS_ENDPOINT_URL by itself.
        self._s3 = boto3.client("s3", endpoint_url=os.environ.get("AWS_ENDPOINT_URL"))

    def put(self, name: str, body: bytes) -> None:
        """Write an object."""
        self._s3.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}", Body=body)


class Log:
    """What provisioning prints: it is shown on the console at once, and shipped every second."""

    def __init__(self, folder: Folder):
        self._folder = folder
        self._waiting = bytearray()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._ship)
        self._thread.start()

    def add(self, text: bytes) -> None:
        """Show it, and have it shipped."""
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
        with self._lock:
            self._waiting += text

    def close(self) -> None:
        """Ship what is left."""
        self._closed.set()
        self._thread.join()

    def _ship(self) -> None:
        objects = 0
        while True:
            last = self._closed.wait(SHIP_SECONDS)  # asked before it takes, so that nothing is left behind
            with self._lock:
                text, self._waiting = bytes(self._waiting), bytearray()
            if text:
                objects += 1
                self._folder.put(f"log/{objects:06}.txt", text)
            if last:
                return


def provision(log: Log) -> int:
    """Run the script; its exit code."""
    with subprocess.Popen(
        [str(HERE / "provision.sh")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        while text := os.read(process.stdout.fileno(), 1 << 16):
            log.add(text)
    return process.returncode


def versions() -> dict[str, Any]:
    """What is installed: Python, its distributions, and the SSM agent, if it is there."""
    listed = json.loads(_output(PYTHON, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"))
    return {
        "python": _output(PYTHON, "-c", "import platform; print(platform.python_version())"),
        "dependencies": {entry["name"]: entry["version"] for entry in listed},
        "ssm_agent": _output("dpkg-query", "--show", "--showformat", "${Version}", "amazon-ssm-agent") or None,
    }


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def main(location: str) -> None:
    """Provision this machine, and leave log and status in the S3 folder at `location`."""
    folder = Folder(location)
    log = Log(folder)
    try:
        status: dict[str, Any] = {"exit_code": provision(log)}
    finally:
        log.close()
    if status["exit_code"] == 0:
        status |= versions()
    folder.put("status.json", json.dumps(status, indent=1).encode())


if __name__ == "__main__":
    main(sys.argv[1])
