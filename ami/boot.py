"""The boot program of an instance: fetches the code of a launch, verifies it, and starts the agent that is in it.

It is the only part of this project's code that is in the image: one file, which needs nothing but boto3 and can be read
by itself. What the agent does, and the folder of a launch, are explained in `spark_jobs/launch`, which comes with the
code.

As root, it is given the S3 folder of the launch, and reads `description.json` there:

- `max_runtime`: seconds that the machine may live, which it writes down for the watchdog
- `code`, `code_sha256`: the archive of `spark_jobs`, and its digest

If that fails, nothing of the launch has run, and it writes why, as the agent would: `log/000001.txt` and `status.json`.
"""

import argparse
import compileall
import hashlib
import importlib
import io
import json
import os
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

REFUSED_SECONDS = 120.0  # how long S3 may refuse: new roles and their rights take a moment to be known everywhere


def main(location: str, deadline_file: str) -> None:
    """Do the launch whose folder is at `location`."""
    began = time.monotonic()
    s3 = retry(client)
    try:
        description = json.loads(get(s3, f"{location}/description.json"))
        ends_at = began + float(description["max_runtime"])
        write_deadline(deadline_file, ends_at - time.monotonic())
        unpack(get(s3, description["code"]), description["code_sha256"])
        agent = importlib.import_module("spark_jobs.launch.instance")
    except Exception as error:
        traceback.print_exc()
        status = {"error": f"{type(error).__name__}: {error}", "messages": 0, "objects": {"messages": 0, "log": 1}}
        put(s3, f"{location}/log/000001.txt", traceback.format_exc().encode())
        put(s3, f"{location}/status.json", json.dumps(status, indent=1).encode())
    else:
        agent.main(location, max_seconds=ends_at - time.monotonic())


def client() -> Any:
    """A client of S3's that has credentials: one that was made without would never look for them again.

    Raises:
        NoCredentialsError: The machine has none yet: those of a role that was made just now come a little later.
    """
    session = boto3.Session()
    if session.get_credentials() is None:
        raise NoCredentialsError
    return session.client("s3", config=Config(retries={"mode": "standard"}, connect_timeout=5, read_timeout=20))


def write_deadline(deadline_file: str, seconds: float) -> None:
    """Write down for the watchdog when the machine's time is over."""
    uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    draft = Path(deadline_file + ".new")
    draft.write_text(f"{int(uptime + seconds)}\n", encoding="ascii")
    draft.replace(deadline_file)


def unpack(archive: bytes, digest: str) -> None:
    """Unpack the code, and let this process import it.

    Raises:
        ValueError: It has another digest.
    """
    if hashlib.sha256(archive).hexdigest() != digest:
        raise ValueError("the archive of the code is not the one that the launch was made with")
    code = tempfile.mkdtemp(prefix="code-")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(code)  # noqa: S202  # whose content the digest vouches for
    compileall.compile_dir(code, quiet=2)
    os.chmod(code, 0o755)  # noqa: S103  # so that the jobs can read it; only root can write it, and root runs the agent from it
    sys.path.insert(0, code)


def get(s3: Any, location: str) -> bytes:
    """Read an object."""
    place = urlsplit(location)

    def read() -> bytes:
        return bytes(s3.get_object(Bucket=place.netloc, Key=place.path.lstrip("/"))["Body"].read())

    return bytes(retry(read))


def put(s3: Any, location: str, body: bytes) -> None:
    """Write an object."""
    place = urlsplit(location)
    retry(lambda: s3.put_object(Bucket=place.netloc, Key=place.path.lstrip("/"), Body=body))


def retry(request: Callable[[], Any]) -> Any:
    """Make a request as often as it takes, unless S3 refuses it; the watchdog sets the limit."""
    wait, began = 0.2, time.monotonic()
    while True:
        try:
            return request()
        except (BotoCoreError, ClientError, OSError) as error:
            if isinstance(error, ClientError):
                code = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if code == 404 or (code == 403 and time.monotonic() - began > REFUSED_SECONDS):
                    raise
            print(f"S3: {error}; again in {wait:.1f} s", flush=True)
        time.sleep(wait)
        wait = min(wait * 2, 5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Do one launch; see the top of this file.")
    parser.add_argument("folder", help="the S3 folder of the launch")
    parser.add_argument("--deadline-file", required=True, help="where to write the uptime at which the machine ends")
    options = parser.parse_args()
    main(options.folder, options.deadline_file)
