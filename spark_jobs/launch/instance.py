"""The agent on an EC2 instance, which the image's boot program starts (`ami/boot.py`)."""

import json
import os
import time
import urllib.error
import urllib.request
from typing import Any

from spark_jobs.launch.agent import Jobs, Machine, run_launch
from spark_jobs.launch.aws import client
from spark_jobs.launch.folder import RetryingFolder, S3Folder
from spark_jobs.launch.writer import Log, Messages

_USER = "explorer"
_NOTICE_SECONDS = 2.0  # between two requests for a spot interruption notice; AWS recommends one every 5 s
_S3_ATTEMPTS = 5  # of boto3's, in each of our own


def main(location: str, max_seconds: float) -> None:
    """Do the launch whose folder is at `location`, on an instance that ends in so many seconds."""
    metadata = Metadata()
    folder = RetryingFolder(S3Folder(client("s3", None, _S3_ATTEMPTS), location))

    def stop_at_notice(jobs: Jobs, messages: Messages, _log: Log) -> bool:
        """Report a spot interruption as soon as it is announced, and let no further job start.

        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
        """
        try:
            notice = metadata.get("meta-data/spot/instance-action")
        except OSError as error:
            print(error, flush=True)
            return False
        if notice is None:
            return False
        messages.report("spot_notice", notice=json.loads(notice))
        jobs.start_no_more()
        return True

    machine = Machine(
        facts=_facts(metadata),
        scratch=_scratch(),
        user=_user(),
        # The jobs are ended a little before the machine is, so that there is time to write what they said.
        max_seconds=max_seconds - min(60, max_seconds / 10),
        watch=stop_at_notice,
        watch_seconds=_NOTICE_SECONDS,
    )
    print(f"what the jobs print is in {folder.log}", flush=True)
    run_launch(folder, machine)


class Metadata:
    """The instance metadata service, version 2.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
    """

    def __init__(self) -> None:
        endpoint = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
        self._address = endpoint.rstrip("/")
        self._token = ""

    def get(self, path: str) -> str | None:
        """What it has at a path; None if there is nothing.

        Raises:
            OSError: It does not answer.
        """
        for attempt in range(5):
            try:
                if not self._token:
                    self._token = self._request("PUT", "api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "21600"})
                return self._request("GET", path, {"X-aws-ec2-metadata-token": self._token})
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return None
                self._token = ""  # a token expires
            except OSError:
                pass
            time.sleep(0.2 * 2**attempt)
        raise OSError(f"the instance metadata service does not answer for {path}")

    def _request(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(f"{self._address}/latest/{path}", method=method, headers=headers)  # noqa: S310  # AWS's address
        # Never through a proxy, whatever the environment names.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=2) as answer:
            return str(answer.read().decode())


def _facts(metadata: Metadata) -> dict[str, Any]:
    identity = json.loads(metadata.get("dynamic/instance-identity/document") or "{}")
    return {
        "instance": identity.get("instanceId"),
        "instance_type": identity.get("instanceType"),
        "zone": identity.get("availabilityZone"),
        "market": metadata.get("meta-data/instance-life-cycle"),
    }


def _scratch() -> str:
    """The folder for what the jobs write while they run: the instance's own disks, where it has some."""
    scratch = os.environ.get("AUDIENCE_EXPLORER_SCRATCH", "/scratch")
    return scratch if os.path.isdir(scratch) else "/var/tmp"  # noqa: S108  # its folder in it is mkdtemp's


def _user() -> str | None:
    """The user of the jobs, so that what they run has no rights on the machine."""
    user = os.environ.get("AUDIENCE_EXPLORER_USER", _USER)
    return None if os.geteuid() != 0 or user == "root" else user
