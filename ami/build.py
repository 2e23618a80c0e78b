"""Builds an image: a builder, started from the newest Debian 13, provisions itself and stops; its disk is the image."""

import json
import shlex
import signal
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError
from packaging.utils import canonicalize_name

from ami import archive, instances
from ami.errors import (
    BuilderLost,
    BuilderSilent,
    BuildOverdue,
    ImageDenied,
    ImageFailed,
    NoBaseImage,
    ProvisioningFailed,
)
from ami.images import NAME, tags_of
from ami.instances import as_tags
from ami.removal import discard
from spark_jobs import REQUIRES
from spark_jobs.launch.aws import PROJECT
from spark_jobs.launch.folder import S3Folder
from spark_jobs.launch.reader import StreamReader

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_ssm import SSMClient

# https://wiki.debian.org/Cloud/AmazonEC2Image/Trixie
DEBIAN = "/aws/service/debian/release/13/latest/amd64"
BUILDER = {**PROJECT, "role": "image-builder"}
POLL_SECONDS = 2.0
UNKNOWN_SECONDS = 60.0  # how long EC2 may not know a new builder, or not its tags
TAIL = 30  # lines of the log, or of the console, that an error shows

_IF_DENIED = (
    "Whoever builds may not make an image of the builder, and was asked before the provisioning. Put"
    " ami/iam/image_operator.json, as it is now, in force: its statements MakeImagesOfBuilders, MakeImages and"
    " TagImages. `aws sts decode-authorization-message` explains an encoded message."
)

Report = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How a builder is started.

    Attributes:
        launches: `s3://bucket/prefix`, below whose `ami/` are the builder's input, its log and its status.
        instance_profile: Its name or ARN; its role is in ami/iam/image_builder.json.
        instance_type: Of the x86-64 kind.
        subnet: Its id, in which packages can be fetched; the default network's if there is none.
        security_groups: Their ids; no port need be open.
        volume_gb: The size of its disk; instances can have a larger one.
        timeout: Seconds that all of it may take.
    """

    launches: str
    instance_profile: str
    instance_type: str = "m7i.large"
    subnet: str | None = None
    security_groups: tuple[str, ...] = ()
    volume_gb: int = 10
    timeout: float = 3600


class Build:
    """One build.

    Args:
        ec2: The client, as are the next two.
        s3: It reads and writes below `settings.launches`.
        ssm: It is asked for Debian's newest image.
        settings: How the builder is started.
        report: Is given each line that is for a person.
    """

    def __init__(self, ec2: "EC2Client", s3: "S3Client", ssm: "SSMClient", settings: Settings, report: Report):
        self._ec2, self._s3, self._ssm = ec2, s3, ssm
        self._settings, self._report = settings, report
        self._id = uuid.uuid4().hex
        place = urlsplit(settings.launches)
        self._bucket = place.netloc
        self._prefix = "/".join(part for part in (place.path.strip("/"), "ami") if part)
        self._folder = S3Folder(s3, f"s3://{self._bucket}/{self._prefix}/builds/{date.today()}-{self._id}")
        self._deadline = time.monotonic() + settings.timeout
        self._builder: str | None = None

    def run(self) -> str:
        """Make an image; its id. The builder is ended, whatever happens.

        Raises:
            BuildFailed: Why there is none; its kinds are in `ami.errors`.
        """
        base = self._newest_debian()
        user_data = self._user_data(self._keep_archive())
        with self._running_builder(base, user_data) as builder:
            self._check_that_image_may_be_made(builder)
            status = self._follow(builder)
            if status["ssm_agent"] is None:
                self._report("WARNING: the image has no SSM agent; the log says why")
            return self._make_image(builder, tags_of(status["python"], _needed(status["dependencies"])))

    def _newest_debian(self) -> dict[str, Any]:
        try:
            image = self._ssm.get_parameter(Name=DEBIAN)["Parameter"]["Value"]
        except self._ssm.exceptions.ParameterNotFound:
            raise NoBaseImage(f"{self._ssm.meta.region_name} has no parameter {DEBIAN}") from None
        found = self._ec2.describe_images(ImageIds=[image])["Images"]
        if not found:
            raise NoBaseImage(f"{DEBIAN} names {image}, and there is no such image")
        self._report(f"from {found[0].get('Name', '')} ({image})")
        return dict(found[0])

    def _keep_archive(self) -> tuple[str, str]:
        """Put what the builder needs on S3; its digest, and its URL."""
        digest, content = archive.pack()
        key = f"{self._prefix}/{digest}.tar.gz"
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=content)
        return digest, f"s3://{self._bucket}/{key}"

    def _user_data(self, kept: tuple[str, str]) -> str:
        digest, location = kept
        return USER_DATA.format(
            region=shlex.quote(self._ec2.meta.region_name),
            archive=shlex.quote(location),
            digest=digest,
            folder=shlex.quote(self._folder.location),
            seconds=int(self._settings.timeout),
        )

    @contextmanager
    def _running_builder(self, base: Mapping[str, Any], user_data: str) -> Iterator[str]:
        settings = self._settings
        kind = "Arn" if settings.instance_profile.startswith("arn:") else "Name"
        tags = as_tags({**BUILDER, "Name": "audience-explorer image builder", "build": self._id})
        disk = {"VolumeSize": settings.volume_gb, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
        request: dict[str, Any] = {
            "ImageId": base["ImageId"],
            "InstanceType": settings.instance_type,
            "MinCount": 1,
            "MaxCount": 1,
            "ClientToken": self._id,  # so that a request that boto3 repeats starts no second one
            "UserData": user_data,
            "InstanceInitiatedShutdownBehavior": "stop",
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
            "IamInstanceProfile": {kind: settings.instance_profile},
            "BlockDeviceMappings": [{"DeviceName": base["RootDeviceName"], "Ebs": disk}],
            "TagSpecifications": [{"ResourceType": of, "Tags": tags} for of in ("instance", "volume")],
            **({"SubnetId": settings.subnet} if settings.subnet else {}),
            **({"SecurityGroupIds": list(settings.security_groups)} if settings.security_groups else {}),
        }
        try:
            builder = self._start(request)
            self._report(f"builder {builder} ({settings.instance_type}), log {self._folder.log}")
            yield builder
        finally:
            if self._builder is not None:
                self._end(self._builder)

    def _start(self, request: Mapping[str, Any]) -> str:
        """Start the builder; its id. An instance profile that EC2 does not know yet is waited for."""
        known_by, waits = time.monotonic() + instances.PROFILE_SECONDS, False
        while True:
            try:
                with _uninterrupted():
                    self._builder = self._ec2.run_instances(**request)["Instances"][0]["InstanceId"]
                return self._builder
            except ClientError as error:
                if not instances.is_profile_unknown(error) or time.monotonic() > known_by:
                    raise
            if not waits:
                profile, seconds = self._settings.instance_profile, instances.PROFILE_SECONDS
                self._report(f"EC2 does not know {profile} yet: a new profile is waited for, {seconds:.0f} s")
            waits = True
            self._wait(f"EC2 does not know {self._settings.instance_profile}")

    def _end(self, builder: str) -> None:
        try:
            instances.terminate(self._ec2, [builder])
            self._report(f"builder {builder} is ended")
        except (BotoCoreError, ClientError) as error:
            self._report(f"WARNING: builder {builder} could not be ended: {error}. Later: python -m ami prune")

    def _check_that_image_may_be_made(self, builder: str) -> None:
        """Ask EC2 whether it would make the image, before the provisioning is waited and paid for.

        It is asked of the builder itself, as it is by the builder's tags that the image is allowed.

        Raises:
            ImageDenied: It would not.
        """
        known_from = time.monotonic() + UNKNOWN_SECONDS
        while True:
            try:
                # Rights depend on names of tags at most; the versions, which other tags have, are not known yet.
                self._ec2.create_image(**self._image_request(builder, self._free_name(), tags_of("", {})), DryRun=True)
            except ClientError as error:
                # "If you have the required permissions, the error response is DryRunOperation. Otherwise, it is
                # UnauthorizedOperation." https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateImage.html
                code = error.response["Error"]["Code"]
                if code not in ("UnauthorizedOperation", "InvalidInstanceID.NotFound"):
                    return  # it may: what is wrong else is the state of a builder that has just begun
                # A new instance may be unknown for a moment, and so may its tags, by which it is allowed.
                if time.monotonic() > known_from:
                    if code != "UnauthorizedOperation":
                        return  # somebody ended the builder, which is seen when it is followed
                    raise self._error(ImageDenied, f"{error.response['Error']['Message']} {_IF_DENIED}") from None
            self._wait("the image may not be made")

    def _image_request(self, builder: str, name: str, tags: Mapping[str, str]) -> dict[str, Any]:
        named = as_tags({**tags, "Name": name})
        return {
            "InstanceId": builder,
            "Name": name,
            "Description": "Runs the jobs of Audience Explorer",
            "TagSpecifications": [{"ResourceType": of, "Tags": named} for of in ("image", "snapshot")],
        }

    def _follow(self, builder: str) -> dict[str, Any]:
        """Show the builder's log until it has stopped; its status."""
        log, tail = StreamReader(self._folder, "log"), deque[str](maxlen=TAIL)
        while True:
            # Before its last words are read, so that a builder that has stopped has said all.
            seen = instances.describe(self._ec2, builder)
            for chunk in log.new():
                for line in chunk.decode(errors="replace").splitlines():
                    tail.append(line)
                    self._report(line)
            written = self._folder.get("status.json")
            status: dict[str, Any] | None = None if written is None else json.loads(written)
            if status is not None and status["exit_code"] != 0:
                last = "\n".join(tail)
                raise self._error(ProvisioningFailed, f"provision.sh exited with {status['exit_code']}:\n{last}\n")
            if seen is not None and seen.state in ("shutting-down", "terminated"):
                raise self._error(BuilderLost, f"it was ended before the image was made ({seen.reason})")
            if seen is not None and seen.state == "stopped":
                if status is None:
                    raise self._error(
                        BuilderSilent, f"it never came to provisioning. Its console:\n{self._console()}\n"
                    )
                return status
            self._wait("the builder has not stopped")

    def _make_image(self, builder: str, tags: dict[str, str]) -> str:
        name, image = self._free_name(), None
        try:
            with _uninterrupted():
                image = self._ec2.create_image(**self._image_request(builder, name, tags))["ImageId"]
            self._report(f"image {name} ({image}) is being made")
            self._wait_until_available(image)
        except BaseException:
            if image is not None:
                discard(self._ec2, image, name)
            raise
        self._report(f"image {name} ({image}) is available")
        return image

    def _free_name(self) -> str:
        first = f"{NAME}{date.today()}"
        found = self._ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": [f"{first}*"]}])[
            "Images"
        ]
        taken = {image["Name"] for image in found}
        number = 1
        while (name := first if number == 1 else f"{first}-{number}") in taken:
            number += 1
        return name

    def _wait_until_available(self, image: str) -> None:
        while True:
            # By filter, since an image that is very new may not be known by its id yet, which is no error then.
            wanted = [{"Name": "image-id", "Values": [image]}]
            found = self._ec2.describe_images(Owners=["self"], Filters=wanted)["Images"]  # type: ignore[arg-type]
            state = found[0]["State"] if found else "pending"
            if state == "available":
                return
            if state != "pending":
                reason = found[0].get("StateReason", {}).get("Message", "AWS gives no reason")
                raise self._error(ImageFailed, f"image {image} is {state}: {reason}")
            self._wait(f"image {image} is {state}")

    def _wait(self, why: str) -> None:
        if time.monotonic() > self._deadline:
            raise self._error(BuildOverdue, f"after {self._settings.timeout:.0f} s {why}")
        time.sleep(POLL_SECONDS)

    def _console(self) -> str:
        try:
            output = self._ec2.get_console_output(InstanceId=self._builder or "").get("Output", "")
        except (BotoCoreError, ClientError) as error:
            return f"(it cannot be had: {error})"
        return "\n".join(output.splitlines()[-TAIL:]) or "(EC2 has nothing of it yet; it takes some minutes)"

    def _error(self, kind: type[Any], what: str) -> Exception:
        return kind(what, builder=self._builder, log=self._folder.log)  # type: ignore[no-any-return]


# Whatever fails, the builder shuts down, which stops it: it then costs no more than its disk until it is ended.
USER_DATA = """\
#!/bin/bash
# Builds an image of Audience Explorer's: ami/README.md
set -euo pipefail
folder=$(mktemp -d)
trap 'cd /; rm -rf "$folder"; shutdown -h now' EXIT
export DEBIAN_FRONTEND=noninteractive AWS_DEFAULT_REGION={region}
apt-get update -qq
apt-get install -qq --no-install-recommends ca-certificates python3-boto3 >/dev/null
cd "$folder"
# For a minute or so S3 refuses a role that was made just now (75).
SECONDS=0
until python3 - {archive} <<'END'
import os, sys, urllib.parse, boto3, botocore.exceptions
place = urllib.parse.urlsplit(sys.argv[1])
s3 = boto3.client("s3", endpoint_url=os.environ.get("AWS_ENDPOINT_URL"))
try:
    s3.download_file(place.netloc, place.path[1:], "archive.tar.gz")
except botocore.exceptions.ClientError as error:
    print(sys.argv[1], error, file=sys.stderr)
    sys.exit(75 if error.response["ResponseMetadata"]["HTTPStatusCode"] == 403 else 1)
END
do
  [ $? -eq 75 ] && [ $SECONDS -lt 120 ] || exit 1
  sleep 5
done
echo '{digest}  archive.tar.gz' | sha256sum --check --quiet
tar -xf archive.tar.gz
timeout {seconds} python3 builder.py {folder}
"""


def _needed(installed: Mapping[str, str]) -> dict[str, str]:
    """The versions of what jobs need, among all that is installed."""
    versions = {canonicalize_name(name): version for name, version in installed.items()}
    return {name: versions[canonicalize_name(name)] for name in REQUIRES}


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C back: something is being made whose id is not known yet, and could not be removed."""
    # Not by a mask, which is one thread's, and leaves the signal to any other.
    caught: list[int] = []
    before = {
        each: signal.signal(each, lambda number, _: caught.append(number)) for each in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        for number in caught[:1]:
            signal.raise_signal(number)
