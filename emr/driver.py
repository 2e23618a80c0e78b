"""The program of the driver on EMR Serverless: runs the jobs of one launch, and tells of them as an instance does.

It is in the packed archive (`audience_explorer_dagster.launchers.packing`), and is given the S3 folder of the launch.
There it finds `description.json`, and writes messages, log and status: see `ami/boot.py`, whose parts it is made of.

Once nobody waits for the launch any more, it ends the jobs, for else they would go on to cost.
"""

import json
import os
import tempfile
import threading
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ami.boot import Folder, Jobs, Log, Messages, tell_all

LEASE_SECONDS = 300.0  # nobody waits for a launch that was not held for so long
_LOOK_SECONDS = 30.0  # between two looks at the lease


def main(location: str) -> int:
    """Do the launch whose folder is at `location`; 0 if all its jobs ended well."""
    # It runs as a user without rights already, and /scratch is for large machines of one's own.
    os.environ.setdefault("AUDIENCE_EXPLORER_USER", "root")
    os.environ.setdefault("AUDIENCE_EXPLORER_SCRATCH", tempfile.gettempdir())
    folder, started = _LeasedFolder(location), time.monotonic()

    def run(work: Path, messages: Messages, log: Log) -> dict[str, Any]:
        description = json.loads(folder.get("description.json"))
        jobs = Jobs(work, description, messages, log)
        messages.tell("jobs", boot_seconds=round(time.monotonic() - started, 3))
        ended = threading.Event()
        threading.Thread(target=_watch_lease, args=(folder, jobs, log, ended), daemon=True).start()
        try:
            # EMR sets the limit for the whole launch; this one leaves the time to tell.
            return jobs.wait(float(description["max_runtime"]))
        finally:
            ended.set()

    return 0 if tell_all(folder, {}, run).get("exit_code") == 0 else 1


class _LeasedFolder(Folder):
    def seconds_since_held(self) -> float:
        """How long ago somebody last said that they wait for the launch, by S3's own clock."""
        answer = self._s3.head_object(Bucket=self._bucket, Key=f"{self._prefix}/lease")
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return float((now - answer["LastModified"]).total_seconds())


def _watch_lease(folder: _LeasedFolder, jobs: Jobs, log: Log, ended: threading.Event) -> None:
    while not ended.wait(_LOOK_SECONDS):
        try:
            unheld = folder.seconds_since_held()
        except (BotoCoreError, ClientError) as error:
            print(f"the lease can't be seen: {error}", flush=True)
            if not isinstance(error, ClientError) or error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                continue
            unheld = LEASE_SECONDS + 1  # somebody deleted the launch
        if unheld > LEASE_SECONDS:
            log.add(f"nobody has waited for this launch for {unheld:.0f} s: its jobs are ended\n".encode())
            jobs.end_all()
            return
