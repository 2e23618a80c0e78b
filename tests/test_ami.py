"""The image: what a build asks of AWS, what it leaves behind, and what goes into it."""

import base64
import fnmatch
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, timezone
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import boto3
import pytest
from click.testing import CliRunner, Result
from moto import mock_aws
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.amis import Ami, AmiBackend
from moto.ec2.responses import EC2Response
from moto.ssm.models import Parameter, ssm_backends

import ami.build
from ami import archive, builder
from ami.__main__ import main
from ami.build import Build
from ami.images import tags_of
from ami.instances import as_tags
from ami.removal import discard
from audience_explorer_dagster.assets import grouped_users, segments
from audience_explorer_dagster.launchers.ec2.images import check_fit, find_image
from audience_explorer_dagster.launchers.launch_store import LaunchTags
from spark_jobs import REQUIRES

AMI = Path(archive.HERE)
REGION: Final = "eu-west-1"
ACCOUNT = "123456789012"  # moto's
LAUNCHES = "s3://audience/jobs"
TODAY = date(2026, 7, 31)  # for whoever builds: midnight may be in the middle of a test


class Account:
    """An AWS account with a Debian image, in which a builder does what a test says, once, when it is first waited for.

    A builder succeeds, unless `work` is replaced.
    """

    def __init__(self) -> None:
        self.ec2: Any = boto3.client("ec2", region_name=REGION)
        self.s3: Any = boto3.client("s3", region_name=REGION)
        self.s3.create_bucket(Bucket="audience", CreateBucketConfiguration={"LocationConstraint": REGION})
        iam = boto3.client("iam")
        iam.create_role(RoleName="builder", AssumeRolePolicyDocument="{}")
        iam.create_instance_profile(InstanceProfileName="builder")
        iam.add_role_to_instance_profile(InstanceProfileName="builder", RoleName="builder")
        self.work: Callable[[str, str], None] = self.succeed

    @property
    def backend(self) -> EC2Backend:
        backend: EC2Backend = ec2_backends[ACCOUNT][REGION]
        return backend

    def wait(self, _seconds: float) -> None:
        """What happens while a build waits."""
        for instance in self.builders("running"):
            data = self.ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")["UserData"]["Value"]
            self.work(instance, self.folder_in(data))

    @staticmethod
    def folder_in(user_data: str) -> str:
        found = re.search(r"builder\.py s3://audience/(\S+)", base64.b64decode(user_data).decode())
        assert found
        return found[1]

    def put(self, key: str, body: str) -> None:
        self.s3.put_object(Bucket="audience", Key=key, Body=body.encode())

    def succeed(self, instance: str, folder: str) -> None:
        self.put(f"{folder}/log/000001.txt", "provision: begins\n")
        self.put(f"{folder}/log/000002.txt", "provision: done\n")
        versions = dict.fromkeys(REQUIRES, "1.0") | {"Unheard_of": "3"}
        status = {"exit_code": 0, "python": "3.11.2", "dependencies": versions, "ssm_agent": None}
        self.put(f"{folder}/status.json", json.dumps(status))
        self.ec2.stop_instances(InstanceIds=[instance])

    def builders(self, *states: str) -> list[str]:
        filters = [{"Name": "tag:role", "Values": ["image-builder"]}]
        found = self.ec2.describe_instances(Filters=filters)["Reservations"]
        instances = [instance for reservation in found for instance in reservation["Instances"]]
        return [i["InstanceId"] for i in instances if not states or i["State"]["Name"] in states]

    def images(self) -> list[str]:
        return sorted(image["Name"] for image in self.ec2.describe_images(Owners=["self"])["Images"])

    def snapshots(self) -> list[str]:
        return [snapshot["SnapshotId"] for snapshot in self.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]]

    def make(self, name: str, **tags: str) -> str:
        """An image made by hand."""
        (instance,) = self.ec2.run_instances(ImageId="ami-debian", MinCount=1, MaxCount=1)["Instances"]
        image: str = self.ec2.create_image(InstanceId=instance["InstanceId"], Name=name)["ImageId"]
        if tags:
            self.ec2.create_tags(Resources=[image], Tags=as_tags(tags))
        self.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
        return image

    def snapshot(self, days: int, **tags: str) -> str:
        """A snapshot without an image, so many days old."""
        volume = self.ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=10)["VolumeId"]
        snapshot: str = self.ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
        if tags:
            self.ec2.create_tags(Resources=[snapshot], Tags=as_tags(tags))
        self.backend.snapshots[snapshot].start_time -= timedelta(days=days)
        return snapshot

    def age(self, image: str, days: int) -> None:
        self.backend.amis[image].creation_date = utcnow() - timedelta(days=days)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """An account, to which all of this process's requests go."""
    made = AmiBackend.create_image

    def with_snapshot_tags(self: Any, instance: str, name: str, description: str, tag_specifications: Any) -> Ami:
        # moto refuses tags of snapshots.
        kinds = {of["ResourceType"]: of for of in tag_specifications}
        snapshot = kinds.pop("snapshot", {"Tags": []})
        image = made(self, instance, name, description, list(kinds.values()))
        image.ebs_snapshot.add_tags({tag["Key"]: tag["Value"] for tag in snapshot["Tags"]})
        return image

    def no_images(_self: Any) -> None:
        """moto's own take seconds."""

    monkeypatch.setattr(AmiBackend, "create_image", with_snapshot_tags)
    monkeypatch.setattr(AmiBackend, "_load_amis", no_images)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AUDIENCE_EXPLORER_EC2_LAUNCHES", LAUNCHES)
    monkeypatch.setenv("AUDIENCE_EXPLORER_EC2_BUILDER_PROFILE", "builder")
    with mock_aws():
        account = Account()
        debian = Ami(account.backend, "ami-debian", owner_id="136693071363", name="debian-13-amd64", public=True)
        account.backend.amis[debian.id] = debian
        parameters = ssm_backends[ACCOUNT][REGION]._parameters
        now = datetime.now(timezone.utc)
        parameters[ami.build.DEBIAN].append(
            Parameter(  # type: ignore[abstract]
                ACCOUNT, ami.build.DEBIAN, debian.id, "String", None, None, None, now, 1, "text"
            )
        )
        monkeypatch.setattr(time, "sleep", account.wait)
        monkeypatch.setattr(ami.build, "date", SimpleNamespace(today=lambda: TODAY))
        yield account


def run(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=answer)


def test_a_build_prints_the_image_and_says_the_rest_to_the_person(account: Account) -> None:
    result = run("build")
    assert result.exit_code == 0, result.stderr
    image = find_image(account.ec2, result.stdout.strip())
    assert image.name == f"audience-explorer-{TODAY}"
    assert image.tags == {**tags_of("3.11.2", dict.fromkeys(REQUIRES, "1.0")), "Name": image.name}
    assert "provision: begins\nprovision: done\n" in result.stderr
    assert "WARNING: the image has no SSM agent" in result.stderr
    assert f"log {LAUNCHES}/ami/builds/{TODAY}-" in result.stderr


def test_the_builder_is_closed_encrypted_and_gone_when_it_is_done(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def look(instance: str, folder: str) -> None:
        seen.update(account.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0])
        (volume,) = account.ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [instance]}])[
            "Volumes"
        ]
        seen["volume"] = volume
        account.succeed(instance, folder)

    account.work = look
    subnet, other = (subnet["SubnetId"] for subnet in account.ec2.describe_subnets()["Subnets"][:2])
    monkeypatch.setenv("AUDIENCE_EXPLORER_EC2_SUBNETS", f"{subnet},{other}")
    assert run("build", "--instance-type", "c7i.xlarge", "--volume-gb", "12").exit_code == 0
    assert seen["InstanceType"] == "c7i.xlarge"
    assert seen["SubnetId"] == subnet
    assert seen["MetadataOptions"]["HttpTokens"] == "required"
    assert (seen["volume"]["Size"], seen["volume"]["Encrypted"]) == (12, True)
    assert {"Key": "project", "Value": "audience-explorer"} in seen["Tags"]
    assert account.builders("terminated") == account.builders()


def test_user_data_holds_where_things_are_and_nothing_else(account: Account) -> None:
    texts: list[str] = []

    def look(instance: str, folder: str) -> None:
        data = account.ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")["UserData"]["Value"]
        texts.append(base64.b64decode(data).decode())
        account.succeed(instance, folder)

    account.work = look
    assert run("build").exit_code == 0
    (text,) = texts
    digest, content = archive.pack()
    assert f"s3://audience/jobs/ami/{digest}.tar.gz" in text
    assert f"echo '{digest}  archive.tar.gz'" in text
    assert account.s3.get_object(Bucket="audience", Key=f"jobs/ami/{digest}.tar.gz")["Body"].read() == content
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_a_second_image_of_a_day_has_a_number(account: Account) -> None:
    for _ in range(3):
        assert run("build").exit_code == 0
    today = f"audience-explorer-{TODAY}"
    assert account.images() == [today, f"{today}-2", f"{today}-3"]


def test_a_failed_script_is_told_with_the_end_of_its_log(account: Account) -> None:
    def fail(_instance: str, folder: str) -> None:
        account.put(f"{folder}/log/000001.txt", "E: no such package\n")
        account.put(f"{folder}/status.json", json.dumps({"exit_code": 100}))

    account.work = fail
    result = run("build")
    assert result.exit_code == 1
    assert re.search(r"ProvisioningFailed: provision.sh exited with 100:\nE: no such package\n", result.stderr)
    assert re.search(r"\[builder i-\w+, log s3://audience/jobs/ami/builds/\S+/log/]", result.stderr)
    assert account.builders("terminated") == account.builders() != []
    assert account.images() == []


def test_a_builder_that_never_began_is_told_with_its_console(account: Account) -> None:
    account.work = lambda instance, _folder: account.ec2.stop_instances(InstanceIds=[instance])
    result = run("build")
    assert "BuilderSilent: it never came to provisioning. Its console:\n" in result.stderr
    assert "Linux version" in result.stderr  # moto's console
    assert account.builders("terminated") == account.builders() != []


def test_a_builder_that_somebody_ended_is_told(account: Account) -> None:
    account.work = lambda instance, _folder: account.ec2.terminate_instances(InstanceIds=[instance])
    assert "BuilderLost" in run("build").stderr


def test_a_build_that_takes_too_long_ends_its_builder(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100000, 50))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    account.work = lambda _instance, _folder: None
    result = run("build", "--timeout", "200")
    assert "BuildOverdue: after 200 s the builder has not stopped" in result.stderr
    assert account.builders("terminated") == account.builders() != []


def test_an_image_that_aws_cannot_make_is_removed_with_its_snapshot(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = account.snapshots()
    make = AmiBackend.create_image

    def fail(self: Any, *arguments: Any, **more: Any) -> Ami:
        image = make(self, *arguments, **more)
        image.state = "failed"
        return image

    monkeypatch.setattr(AmiBackend, "create_image", fail)
    result = run("build")
    assert re.search(r"ImageFailed: image ami-\w+ is failed", result.stderr)
    assert account.images() == []
    assert account.snapshots() == before
    assert account.builders("terminated") == account.builders() != []


def test_ctrl_c_ends_the_builder_even_while_it_is_being_started(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = EC2Backend.run_instances

    def interrupted(self: Any, *arguments: Any, **more: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return start(self, *arguments, **more)

    monkeypatch.setattr(EC2Backend, "run_instances", interrupted)
    result = run("build")
    assert result.exit_code == 130
    assert account.builders("terminated") == account.builders() != []


def test_ctrl_c_while_the_image_is_made_leaves_neither_image_nor_builder(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = account.snapshots()
    make = AmiBackend.create_image

    def interrupted(self: Any, *arguments: Any, **more: Any) -> Ami:
        os.kill(os.getpid(), signal.SIGINT)
        image = make(self, *arguments, **more)
        image.state = "pending"
        return image

    monkeypatch.setattr(AmiBackend, "create_image", interrupted)
    assert run("build").exit_code == 130
    assert (account.images(), account.snapshots()) == ([], before)
    assert account.builders("terminated") == account.builders() != []


@pytest.mark.usefixtures("account")
def test_a_region_without_debian_is_told() -> None:
    result = run("build", "--region", "eu-central-1")
    assert "NoBaseImage: eu-central-1 has no parameter /aws/service/debian/" in result.stderr


@pytest.mark.usefixtures("account")
def test_what_is_missing_is_told_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUDIENCE_EXPLORER_EC2_LAUNCHES")
    result = run("build")
    assert result.exit_code == 2
    assert "AUDIENCE_EXPLORER_EC2_LAUNCHES" in result.stderr
    assert "s3://bucket/prefix" in run("build", "--launches", "/tmp").stderr


@pytest.mark.usefixtures("account")
def test_without_a_place_for_launches_it_is_the_launchers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUDIENCE_EXPLORER_EC2_LAUNCHES")
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", "s3://audience/all/")
    result = run("build")
    assert result.exit_code == 0, result.stderr
    assert "log s3://audience/all/launches/ami/builds/" in result.stderr


def test_a_build_removes_the_oldest_images(account: Account) -> None:
    old = [account.make(f"audience-explorer-2026-01-0{day}", project="audience-explorer") for day in (1, 2, 3)]
    for days, image in enumerate(reversed(old), start=1):
        account.age(image, days)
    result = run("build", "--keep", "2")
    assert result.exit_code == 0, result.stderr
    assert account.images() == ["audience-explorer-2026-01-03", f"audience-explorer-{TODAY}"]


def test_prune_spares_what_is_in_use_and_what_is_not_ours(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [account.make(f"audience-explorer-2026-01-0{day}", project="audience-explorer") for day in range(1, 6)]
    for days, image in enumerate(reversed(ours), start=1):
        account.age(image, days)
    account.make("somebody-elses", project="audience-explorer")
    account.make("audience-explorer-of-somebody-else")
    account.ec2.run_instances(ImageId=ours[1], MinCount=1, MaxCount=1)
    monkeypatch.setenv("AUDIENCE_EXPLORER_EC2_IMAGE", ours[2])
    snapshots = len(account.snapshots())

    refused = run("prune", "--keep", "1", answer="n\n")
    assert refused.exit_code == 1
    assert len(account.images()) == 7

    assert run("prune", "--keep", "1", answer="y\n").exit_code == 0
    assert account.images() == [
        "audience-explorer-2026-01-02",
        "audience-explorer-2026-01-03",
        "audience-explorer-2026-01-05",
        "audience-explorer-of-somebody-else",
        "somebody-elses",
    ]
    assert len(account.snapshots()) == snapshots - 2
    assert "nothing to remove" in run("prune", "--keep", "1", "--yes").stderr


def test_prune_ends_builders_that_a_killed_build_left(account: Account) -> None:
    tags = as_tags(ami.build.BUILDER)
    started = account.ec2.run_instances(
        ImageId="ami-debian", MinCount=2, MaxCount=2, TagSpecifications=[{"ResourceType": "instance", "Tags": tags}]
    )
    old, new = (instance["InstanceId"] for instance in started["Instances"])
    account.backend.get_instance(old).launch_time = datetime.now(timezone.utc) - timedelta(days=2)
    assert run("prune", "--yes").exit_code == 0
    assert account.builders("terminated") == [old]
    assert account.builders("running") == [new]


def test_prune_deletes_the_snapshots_that_killed_builds_left_and_no_others(account: Account) -> None:
    tags = tags_of("3.13.5", {})
    image = account.ec2.describe_images(ImageIds=[run("build").stdout.strip()])["Images"][0]
    in_use = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    left = account.snapshot(days=2, **tags, Name="audience-explorer-2026-01-01")
    being_made = account.snapshot(days=0, **tags, Name="audience-explorer-2026-01-02")
    backup = account.snapshot(days=2, project="audience-explorer", Name="audience-explorer-box")
    another = account.snapshot(days=2, **{**tags, "project": "another"}, Name="audience-explorer-2026-01-03")
    account.backend.snapshots[in_use].start_time -= timedelta(days=2)

    refused = run("prune", answer="n\n")
    assert f"snapshot {left}, of audience-explorer-2026-01-01, which has no image, 10 GB" in refused.stderr
    assert left in account.snapshots()

    assert run("prune", "--yes").exit_code == 0
    assert left not in account.snapshots()
    assert {in_use, being_made, backup, another} <= set(account.snapshots())
    assert "nothing to remove" in run("prune", "--yes").stderr


def test_an_image_that_does_not_list_its_snapshot_yet_goes_with_it(account: Account) -> None:
    image = run("build").stdout.strip()
    (listed,) = account.ec2.describe_images(ImageIds=[image])["Images"]
    snapshot = listed["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    # As while it is being made: the snapshot that it lists is none, and the tagged one is known by its tags only.
    account.backend.amis[image].ebs_snapshot = account.backend.snapshots[account.snapshot(days=0)]
    discard(account.ec2, image, listed["Name"])
    assert snapshot not in account.snapshots()


def test_a_snapshot_that_ec2_still_counts_to_an_image_is_left_for_a_later_prune(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = account.snapshot(days=2, **tags_of("3.13.5", {}), Name="audience-explorer-2026-01-01")

    def in_use(_self: Any, snapshot: str) -> None:
        raise EC2ClientError("InvalidSnapshot.InUse", f"The snapshot {snapshot} is currently in use by ami-1")

    with monkeypatch.context() as patch:
        patch.setattr(EC2Backend, "delete_snapshot", in_use)
        assert run("prune", "--yes").exit_code == 0
    assert run("prune", "--yes").exit_code == 0
    assert left not in account.snapshots()


@pytest.mark.usefixtures("account")
def test_a_build_asks_whether_it_may_make_the_image_before_it_waits_for_provisioning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []
    follow = Build._follow

    def followed(self: Build, builder: str) -> dict[str, Any]:
        assert asked == [True]
        return follow(self, builder)

    def create_image(self: EC2Response) -> Any:
        asked.append(bool(self._get_bool_param("DryRun")))
        return made(self)

    made = EC2Response.create_image
    monkeypatch.setattr(Build, "_follow", followed)
    monkeypatch.setattr(EC2Response, "create_image", create_image)
    assert run("build").exit_code == 0
    assert asked == [True, False]


@pytest.mark.usefixtures("account")
def test_a_new_builder_whose_tags_ec2_does_not_know_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["UnauthorizedOperation", "InvalidInstanceID.NotFound", "UnauthorizedOperation"]
    made = EC2Response.create_image

    def create_image(self: EC2Response) -> Any:
        if answers:
            raise EC2ClientError(answers.pop(), "not yet")
        return made(self)

    monkeypatch.setattr(EC2Response, "create_image", create_image)
    result = run("build")
    assert result.exit_code == 0, result.stderr
    assert answers == []


def test_an_image_that_may_not_be_made_ends_the_build_and_its_builder(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: EC2Response) -> Any:
        raise EC2ClientError("UnauthorizedOperation", "You are not authorized to perform this operation.")

    clock = iter(range(0, 100000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(EC2Response, "create_image", refuse)
    account.work = lambda _instance, _folder: None
    result = run("build")
    assert result.exit_code == 1
    assert "ImageDenied: You are not authorized" in result.stderr
    assert "ami/iam/image_operator.json" in result.stderr
    assert account.builders("terminated") == account.builders() != []


# --- a role that was made just now


def unknown_profile(monkeypatch: pytest.MonkeyPatch, times: int) -> list[str]:
    """Let EC2 not know the builder's profile so many times; the client tokens of the requests."""
    tokens: list[str] = []
    start = EC2Response.run_instances

    def run_instances(self: EC2Response) -> Any:
        tokens.append(self._get_param("ClientToken"))
        if len(tokens) <= times:
            message = "Value (builder) for parameter iamInstanceProfile.name is invalid."
            raise EC2ClientError("InvalidParameterValue", f"{message} Invalid IAM Instance Profile name")
        return start(self)

    monkeypatch.setattr(EC2Response, "run_instances", run_instances)
    return tokens


def test_a_builders_profile_that_was_made_just_now_is_waited_for(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = unknown_profile(monkeypatch, times=3)
    result = run("build")
    assert result.exit_code == 0, result.stderr
    assert len(tokens) == 4
    assert len(set(tokens)) == 1, "a request that is repeated starts no second builder"
    assert result.stderr.count("EC2 does not know builder yet: a new profile is waited for, 120 s") == 1
    assert len(account.builders()) == 1


def test_a_builders_profile_that_stays_unknown_ends_the_build_after_two_minutes(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [0.0]
    clock = SimpleNamespace(monotonic=lambda: seconds[-1], sleep=lambda _: seconds.append(seconds[-1] + 10))
    monkeypatch.setattr(ami.build, "time", clock)
    tokens = unknown_profile(monkeypatch, times=1000)
    result = run("build")
    assert result.exit_code == 1
    assert "Invalid IAM Instance Profile name" in result.stderr
    assert "AUDIENCE_EXPLORER_EC2_BUILDER_PROFILE" in result.stderr
    assert len(tokens) == 14, "at once, and every ten seconds until two minutes are over"
    assert account.builders() == []


def test_a_builder_whose_role_s3_does_not_know_yet_asks_again_for_its_archive(tmp_path: Path) -> None:
    """The user data, with programs that only note their calls; the download fails twice."""
    programs, calls, content = tmp_path / "bin", tmp_path / "calls", archive.pack()[1]
    programs.mkdir()
    (tmp_path / "packed").write_bytes(content)
    download = f'[ "$(grep -c "^python3 -" {calls})" -gt 2 ] && cp {tmp_path}/packed archive.tar.gz'
    for program in ("apt-get", "shutdown", "sleep"):
        (programs / program).write_text(f'#!/bin/sh\necho {program} "$@" >>{calls}\n')
    (programs / "python3").write_text(
        f'#!/bin/sh\necho python3 "$@" >>{calls}\n[ "$1" != - ] || {{ {download} || exit 75; }}\n'
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    digest = sha256(content).hexdigest()
    script = ami.build.USER_DATA.format(region="r", archive="s3://b/a", digest=digest, folder="s3://b/f", seconds=60)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    subprocess.run(["bash"], input=script, text=True, env=environment, check=True)
    did = [line for line in calls.read_text().splitlines() if not line.startswith("apt-get")]
    again = ["python3 - s3://b/a", "sleep 5"]
    assert did == [*again, *again, "python3 - s3://b/a", "python3 builder.py s3://b/f", "shutdown -h now"]


def test_ls_warns_if_the_newest_image_is_old(account: Account) -> None:
    image = run("build").stdout.strip()
    assert "WARNING" not in run("ls").stderr
    account.age(image, 91)
    assert f"({image}) is 91 days old" in run("ls").stderr
    assert "python -m ami build" in run("ls").stderr
    assert json.loads(run("ls", "--json").stdout)[0]["days_old"] == 91


def test_all_packages_of_debians_image_are_upgraded_before_others_are_installed() -> None:
    script = (AMI / "provision.sh").read_text()
    commands = re.findall(r"^apt-get (\w+)", script, re.M)
    assert commands[:3] == ["update", "upgrade", "install"]


def test_images_are_looked_for_by_their_owner_or_their_id(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who names neither has AWS search all public images, which takes seconds."""
    asked: list[tuple[Any, Any]] = []
    describe = EC2Response.describe_images

    def describe_images(self: EC2Response) -> Any:
        asked.append((self._get_param("Owners"), self._get_param("ImageIds")))
        return describe(self)

    monkeypatch.setattr(EC2Response, "describe_images", describe_images)
    image = run("build").stdout.strip()
    for wanted in (image, "audience-explorer-*"):
        assert find_image(account.ec2, wanted).id == image
    assert run("ls").exit_code == run("prune").exit_code == 0
    assert len(asked) > 5
    assert all(owners or ids for owners, ids in asked)


def test_ls_tells_whether_jobs_would_run(account: Account) -> None:
    assert "no images" in run("ls").stdout
    assert run("build").exit_code == 0
    account.age(account.make("audience-explorer-2026-01-01", project="audience-explorer"), 400)
    header, new, old = run("ls").stdout.splitlines()
    assert header.split() == ["image", "name", "created", "GB", "used", "by", "fits"]
    assert "it has loky 1.0, loky" in new
    assert "its boot program is of version unknown" in old
    first, second = json.loads(run("ls", "--json").stdout)
    assert first["name"] == f"audience-explorer-{TODAY}"
    assert first["tags"]["dependency:loky"] == "1.0"
    assert second["misfits"]


def test_the_archive_is_the_same_for_the_same_files_and_holds_all_that_provisioning_installs() -> None:
    assert archive.pack() == archive.pack()
    with tarfile.open(fileobj=BytesIO(archive.pack()[1])) as tar:
        modes = {entry.name: entry.mode for entry in tar}
    script = (AMI / "provision.sh").read_text()
    installed = set(re.findall(r"(?<=[ <])[a-z_-]+\.(?:txt|conf|sh|py|service)\b", script)) - {"provision.sh"}
    assert {"boot.py", "constraints.txt", "requirements.txt", "spark-defaults.conf"} <= installed <= set(modes)
    assert modes["provision.sh"] == modes["audience-explorer-boot"] == 0o755


def test_the_requirements_are_those_of_the_jobs() -> None:
    lines = archive.requirements().splitlines()
    assert [re.split(r"[\[<>=]", line)[0] for line in lines] == list(REQUIRES)
    assert any(line.startswith("pyspark==") for line in lines)


def test_hadoop_aws_is_of_the_version_of_pysparks_hadoop() -> None:
    pyspark = importlib.util.find_spec("pyspark")
    assert pyspark
    assert pyspark.submodule_search_locations
    found = list(Path(pyspark.submodule_search_locations[0], "jars").glob("hadoop-client-api-*.jar"))
    if not found:
        pytest.skip("Apache Spark is not installed: pip install -e '.[dev]'")
    version = found[0].stem.removeprefix("hadoop-client-api-")
    assert f" org.apache.hadoop hadoop-aws {version}\n" in (AMI / "jars.txt").read_text()


@pytest.mark.parametrize("disks", [0, 1, 2])
def test_scratch_is_made_of_the_instances_own_disks(disks: int, tmp_path: Path) -> None:
    models = ["Amazon Elastic Block Store", *["Amazon EC2 NVMe Instance Storage"] * disks]
    for number, model in enumerate(models):
        device = tmp_path / f"sys/block/nvme{number}n1/device"
        device.mkdir(parents=True)
        (device / "model").write_text(f"{model:<40}\n")
    calls, programs, scratch = tmp_path / "calls", tmp_path / "bin", tmp_path / "scratch"
    programs.mkdir()
    scratch.mkdir()
    for program in ("mdadm", "mkfs.ext4", "mount"):
        (programs / program).write_text(f'#!/bin/sh\necho {program} "$@" >>{calls}\n')
        (programs / program).chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "AUDIENCE_EXPLORER_SYSFS": str(tmp_path / "sys"),
        "AUDIENCE_EXPLORER_SCRATCH": str(scratch),
    }
    subprocess.run([AMI / "audience-explorer-scratch"], env=environment, check=True)
    did = calls.read_text() if calls.exists() else ""
    assert "nvme0n1" not in did  # the root volume
    assert did.count("mdadm") == (disks > 1)
    if disks:
        volume = "/dev/nvme1n1" if disks == 1 else "/dev/md/scratch"
        assert did.splitlines()[-1] == f"mount -o noatime {volume} {scratch}"
        assert scratch.stat().st_mode & 0o7777 == 0o1777
    if disks == 2:
        assert "--level=0 --raid-devices=2 /dev/nvme1n1 /dev/nvme2n1" in did


@pytest.mark.parametrize("exit_code", [0, 7])
def test_the_builder_tells_s3_what_provisioning_prints_and_how_it_ended(
    exit_code: int, account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "provision.sh"
    script.write_text(f"#!/bin/sh\necho one\necho two >&2\nexit {exit_code}\n")
    script.chmod(0o755)
    monkeypatch.setattr(builder, "HERE", tmp_path)
    monkeypatch.setattr(builder, "PYTHON", sys.executable)
    monkeypatch.setattr(builder, "SHIP_SECONDS", 0.05)
    builder.main("s3://audience/build")

    def read(name: str) -> bytes:
        return bytes(account.s3.get_object(Bucket="audience", Key=f"build/{name}")["Body"].read())

    assert read("log/000001.txt").startswith(b"one\n")
    status = json.loads(read("status.json"))
    assert status["exit_code"] == exit_code
    assert ("dependencies" in status) == (exit_code == 0)


def policies() -> dict[str, Any]:
    return {file.stem: json.loads(file.read_text()) for file in sorted((AMI / "iam").glob("*.json"))}


@pytest.mark.parametrize("name", ["launcher", "check", "instance", "image_operator", "image_builder", "mllib"])
def test_every_allowed_action_has_its_why_and_nothing_else_has(name: str) -> None:
    allowed = {action for statement in policies()[name]["Statement"] for action in _listed(statement["Action"])}
    readme = (AMI / "README.md").read_text()
    section = re.search(rf"^### `{name}\.json`.*?(?=^###? |\Z)", readme, re.M | re.S)
    assert section
    explained = set(re.findall(r"`([a-z0-9]+:[A-Za-z]+)`", section[0]))
    assert explained == allowed
    assert not any("*" in action for action in allowed)


def test_every_placeholder_of_the_policies_is_explained() -> None:
    used = {word for policy in policies().values() for word in re.findall(r"@[A-Z_]+@", json.dumps(policy))}
    explained = set(re.findall(r"`(@[A-Z_]+@)`", (AMI / "README.md").read_text()))
    assert used == explained


def test_launches_lie_where_the_policies_allow_to_read_and_write_them() -> None:
    place = "arn:aws:s3:::@LAUNCHES_BUCKET@/@LAUNCHES_PREFIX@"
    folder = f"{place}/{LaunchTags('l', 'p', 'r', 'coffee-2024-01').folder}"

    def may(role: str, action: str, name: str) -> bool:
        return any(
            action in _listed(statement["Action"])
            and any(fnmatch.fnmatchcase(name, of) for of in _listed(statement["Resource"]))
            for statement in policies()[role]["Statement"]
        )

    for name in ("messages/000001.jsonl", "log/000001.txt", "status.json"):
        assert may("instance", "s3:PutObject", f"{folder}/{name}")
        assert may("launcher", "s3:GetObject", f"{folder}/{name}")
    for name in ("description.json", "lease"):
        assert may("launcher", "s3:PutObject", f"{folder}/{name}")
        assert not may("instance", "s3:PutObject", f"{folder}/{name}")
    assert may("instance", "s3:GetObject", f"{folder}/description.json")
    assert may("instance", "s3:GetObject", f"{place}/code/abc.tar.gz")
    assert not may("instance", "s3:PutObject", f"{place}/code/abc.tar.gz")


@pytest.mark.parametrize("policy", ["ami/iam/instance.json", "emr/iam/job.json"])
def test_jobs_may_write_the_outputs_of_every_asset(policy: str) -> None:
    statements = json.loads((AMI.parent / policy).read_text())["Statement"]
    (writes,) = (statement for statement in statements if statement["Sid"] == "WriteOutputs")
    specs = [spec for asset in (grouped_users, segments) for spec in asset.specs]
    assert set(writes["Resource"]) == {
        f"arn:aws:s3:::@DATA_BUCKET@/@DATA_PREFIX@/{spec.key.to_user_string()}/*" for spec in specs
    }


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_an_image_of_an_earlier_dependency_set_is_refused_by_name(account: Account) -> None:
    image = run("build").stdout.strip()
    with pytest.raises(Exception, match=r"ImageMisfit: Image audience-explorer-.* it has loky 1\.0"):
        check_fit(find_image(account.ec2, image), volume_gb=50)
