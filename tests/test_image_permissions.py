"""An image is built and removed by what its policies allow, which the sandbox enforces as AWS does."""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from moto.ec2.models import ec2_backends

import ami.build
from acceptance.sandbox import Sandbox, light
from acceptance.sandbox.ec2 import ACCOUNT, REGION
from acceptance.sandbox.permissions import Permissions, Role
from ami.__main__ import main
from ami.images import tags_of
from ami.instances import as_tags
from spark_jobs import REQUIRES

IAM = Path(__file__).parents[1] / "ami" / "iam"
NAMES = {
    "REGION": REGION,
    "ACCOUNT": ACCOUNT,
    "LAUNCHES_BUCKET": "audience",
    "LAUNCHES_PREFIX": "explorer/launches",
    "BUILDER_ROLE": "audience-explorer-instance",  # the sandbox's only one
}
_SAID = {"exit_code": 0, "python": "3.13.5", "dependencies": dict.fromkeys(REQUIRES, "1.0"), "ssm_agent": None}
STATUS = json.dumps(_SAID).encode().hex()  # which needs no quotes

# A builder that provisions nothing: it fetches its archive, says that all went well, and stops.
USER_DATA = f"""\
#!/bin/bash
trap 'shutdown -h now' EXIT
{shlex.quote(sys.executable)} - {{archive}} {{folder}} <<'END'
import boto3, os, sys, urllib.parse
archive, folder = map(urllib.parse.urlsplit, sys.argv[1:])
s3 = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="{REGION}")
s3.get_object(Bucket=archive.netloc, Key=archive.path[1:])
s3.put_object(Bucket=folder.netloc, Key=folder.path[1:] + "/log/000001.txt", Body=b"provision: done")
s3.put_object(Bucket=folder.netloc, Key=folder.path[1:] + "/status.json", Body=bytes.fromhex("{STATUS}"))
END
"""

# What a build and a prune that go well do not ask for, and why.
UNUSED = {("ReadTheConsoleOfBuilders", "ec2:GetConsoleOutput"): "a builder that never came to provisioning"}


class Account:
    """An account with the roles of this project, and with one image."""

    def __init__(self, sandbox: Sandbox, permissions: Permissions):
        self.sandbox, self.permissions = sandbox, permissions
        self.ec2 = sandbox.client("ec2")

    def run(self, *arguments: str) -> Result:
        """Type `python -m ami …`."""
        return CliRunner().invoke(main, arguments)

    def changed(self, change: dict[str, Any], statement: str, folder: Path) -> None:
        """Put a policy in force in which one statement is another."""
        policy = json.loads((IAM / "image_operator.json").read_text())
        (found,) = [each for each in policy["Statement"] if each["Sid"] == statement]
        found |= change
        file = folder / "changed.json"
        file.write_text(json.dumps(policy))
        self.permissions.roles["launcher"].statements = Role([file], NAMES).statements


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    operator, builder = Role([IAM / "image_operator.json"], NAMES), Role([IAM / "image_builder.json"], NAMES)
    permissions = Permissions({"launcher": operator, "instance": builder}, NAMES)
    monkeypatch.setattr(ami.build, "USER_DATA", USER_DATA)
    monkeypatch.setattr(ami.build, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(ami.build, "UNKNOWN_SECONDS", 0.5)
    for name in [name for name in os.environ if name.startswith(("AWS_", "AUDIENCE_EXPLORER_"))]:
        monkeypatch.delenv(name)
    with Sandbox(tmp_path / "sandbox", permissions=permissions) as sandbox:
        monkeypatch.setattr(light, "NAME", "")  # builders may run here, since these provision nothing
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AUDIENCE_EXPLORER_EC2_LAUNCHES", f"s3://{sandbox.bucket}/explorer/launches")
        monkeypatch.setenv("AUDIENCE_EXPLORER_EC2_BUILDER_PROFILE", sandbox.instance_profile)
        yield Account(sandbox, permissions)


def test_a_build_and_a_prune_use_all_that_their_policies_allow_and_no_more(account: Account) -> None:
    first = account.sandbox.image
    built = account.run("build", "--keep", "1")
    assert built.exit_code == 0, built.output
    assert account.sandbox.image == built.stdout.strip() != first
    assert f"({first}), which is not among the newest 1" in built.stderr
    assert account.run("ls").exit_code == 0
    assert account.permissions.refused == []
    operator, builder = account.permissions.roles["launcher"], account.permissions.roles["instance"]
    assert operator.allowed - operator.used == set(UNUSED)
    assert builder.allowed == builder.used


def test_debians_images_are_of_the_owner_that_aws_calls_amazon(account: Account, tmp_path: Path) -> None:
    (debian,) = account.ec2.describe_images(ImageIds=[account.sandbox.base_image])["Images"]
    assert (debian["OwnerId"], debian["ImageOwnerAlias"]) == ("136693071363", "amazon")
    by_number = {"Condition": {"StringEquals": {"ec2:Owner": "136693071363"}}}
    account.changed(by_number, "LaunchFromDebiansImagesOnly", tmp_path)
    result = account.run("build")
    assert result.exit_code == 1
    assert "UnauthorizedOperation" in result.stderr
    assert "ami/iam/image_operator.json" in result.stderr
    assert account.sandbox.instances == []


@pytest.mark.parametrize(
    ("statement", "change"),
    [
        ("MakeImages", {"Condition": {"StringEquals": {"aws:RequestTag/project": "audience-explorer"}}}),
        ("MakeImagesOfBuilders", {"Condition": {"StringEquals": {"aws:ResourceTag/role": "another"}}}),
        ("TagImages", {"Condition": {"StringEquals": {"ec2:CreateAction": "RunInstances"}}}),
    ],
)
def test_an_image_that_may_not_be_made_is_reported_before_anything_is_provisioned(
    statement: str, change: dict[str, Any], account: Account, tmp_path: Path
) -> None:
    account.changed(change, statement, tmp_path)
    result = account.run("build")
    assert result.exit_code == 1
    assert "ImageDenied: You are not authorized" in result.stderr
    assert "ami/iam/image_operator.json, as it is now, in force" in result.stderr
    assert "provision: " not in result.stderr, "the log was not waited for"
    (builder,) = account.sandbox.instances
    builder.wait_until("terminated")


def test_only_snapshots_of_this_projects_builds_may_be_deleted(account: Account) -> None:
    made = datetime.now(timezone.utc) - timedelta(days=3)
    tagged = {**tags_of("3.13.5", {}), "Name": "audience-explorer-2026-01-01"}
    ours, theirs = (snapshot(account, tags, made) for tags in (tagged, {"Name": "backup"}))
    assert account.run("prune", "--yes").exit_code == 0
    left = [each["SnapshotId"] for each in account.ec2.describe_snapshots()["Snapshots"]]
    assert ours not in left
    assert theirs in left
    role = account.permissions.roles["launcher"]
    used = set(role.used)
    assert ("RemoveOldImages", "ec2:DeleteSnapshot") in used
    with pytest.raises(Exception, match="UnauthorizedOperation"):
        client_of(account).delete_snapshot(SnapshotId=theirs)


def snapshot(account: Account, tags: dict[str, str], made: datetime) -> str:
    """A snapshot without an image; its id."""
    volume = account.ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=10)["VolumeId"]
    tagged = [{"ResourceType": "snapshot", "Tags": as_tags(tags)}]
    snapshot: str = account.ec2.create_snapshot(VolumeId=volume, TagSpecifications=tagged)["SnapshotId"]
    ec2_backends[ACCOUNT][REGION].snapshots[snapshot].start_time = made.replace(tzinfo=None)
    return snapshot


def client_of(account: Account) -> Any:
    """EC2 for whoever builds."""
    import boto3

    return boto3.client("ec2", endpoint_url=account.sandbox.environment["AWS_ENDPOINT_URL"], region_name=REGION)
