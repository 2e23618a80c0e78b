"""What the roles of this project may do, and above all what they may not; their files are in ami, deploy and emr."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from acceptance.sandbox.permissions import Permissions, Request, Role, requests_of

PROJECT = Path(__file__).parents[1]
FILES = sorted(PROJECT.glob("*/iam/*.json"))
NAMES = {
    "REGION": "eu-west-1",
    "ACCOUNT": "123456789012",
    "DATA_BUCKET": "bucket",
    "DATA_PREFIX": "audience",
    "LAUNCHES_BUCKET": "bucket",
    "LAUNCHES_PREFIX": "audience/launches",
    "LOGS_BUCKET": "bucket",
    "LOGS_PREFIX": "logs",
    "INSTANCE_ROLE": "audience-explorer-instance",
    "BUILDER_ROLE": "audience-explorer-image-builder",
    "JOB_ROLE": "audience-explorer-jobs",
    "LAUNCHER_ROLE": "audience-explorer-launcher",
    "APPLICATION": "00f1",
    "KEY": "1234abcd-12ab-34cd-56ef-1234567890ab",
}
DATA = "arn:aws:s3:::bucket/audience"
LAUNCH = f"{DATA}/launches/launch=1,pipeline=1,run=1,label=2024-01"
INSTANCE = "arn:aws:ec2:eu-west-1:123456789012:instance/i-1"
OURS, OTHERS = {"aws:ResourceTag/project": "audience-explorer"}, {"aws:ResourceTag/project": "another"}
CURRENT = f"{DATA}/kmeans/month=2024-01/category=tea/current.json"
OUTPUT = f"{DATA}/kmeans/month=2024-01/category=tea/20240201T000000-00000001"


def may(file: str, action: str, resource: str = "arn:aws:s3:::bucket", **context: str) -> bool:
    keys = {name.replace("__", ":").replace("_slash_", "/"): value for name, value in context.items()}
    return Role([PROJECT / file], NAMES).may(Request(action, resource, keys))


def statements(file: Path) -> list[dict[str, Any]]:
    return list(json.loads(file.read_text())["Statement"])


@pytest.mark.parametrize("jobs", ["ami/iam/instance.json", "emr/iam/job.json"])
def test_jobs_write_their_outputs_and_cannot_change_what_is_current_or_finished(jobs: str) -> None:
    for name in ("data.json", "manifest.json", "rejects/part.parquet"):
        assert may(jobs, "s3:PutObject", f"{OUTPUT}/{name}")
    assert may(jobs, "s3:DeleteObject", f"{OUTPUT}/_unfinished")
    assert not may(jobs, "s3:DeleteObject", f"{OUTPUT}/manifest.json")
    for place in (CURRENT, f"{DATA}/audience_report/index.html", f"{DATA}/audience_report/index-private.html"):
        assert not may(jobs, "s3:PutObject", place)
        assert not may(jobs, "s3:DeleteObject", place)


@pytest.mark.parametrize("jobs", ["ami/iam/instance.json", "emr/iam/job.json"])
def test_jobs_cannot_change_their_inputs_nor_what_a_launch_is_told_to_do(jobs: str) -> None:
    for place in ("raw/month=2024-01/a.csv", "categories/tea.json", "edits/tea.yaml"):
        assert may(jobs, "s3:GetObject", f"{DATA}/{place}")
        assert not may(jobs, "s3:PutObject", f"{DATA}/{place}")
        assert not may(jobs, "s3:DeleteObject", f"{DATA}/{place}")
    for place in (f"{LAUNCH}/description.json", f"{LAUNCH}/lease", f"{DATA}/launches/code/1.tar.gz"):
        assert not may(jobs, "s3:PutObject", place)
        assert not may(jobs, "s3:DeleteObject", place)
    assert not may(jobs, "s3:GetObject", f"{LAUNCH}/messages/000001.jsonl")
    assert not may(jobs, "s3:DeleteObject", f"{LAUNCH}/messages/000001.jsonl")


@pytest.mark.parametrize("jobs", ["ami/iam/instance.json", "emr/iam/job.json"])
@pytest.mark.parametrize("action", ["ec2:TerminateInstances", "ec2:RunInstances", "iam:PassRole", "sts:AssumeRole"])
def test_jobs_cannot_do_anything_to_instances_or_roles(jobs: str, action: str) -> None:
    assert not [statement for statement in statements(PROJECT / jobs) if action in listed(statement["Action"])]


@pytest.mark.parametrize("launcher", ["ami/iam/launcher.json", "emr/iam/launcher.json"])
def test_the_launcher_reads_nobodys_actions_and_writes_no_data(launcher: str) -> None:
    assert not may(launcher, "s3:GetObject", f"{DATA}/raw/month=2024-01/a.csv")
    assert not may(launcher, "s3:PutObject", f"{OUTPUT}/data.json")
    assert not may(launcher, "s3:DeleteObject", f"{OUTPUT}/data.json")
    assert may(launcher, "s3:PutObject", CURRENT)


@pytest.mark.parametrize("launcher", ["ami/iam/launcher.json", "emr/iam/launcher.json"])
def test_who_cleans_up_deletes_outputs_and_uploads_of_them_and_nothing_else(launcher: str) -> None:
    role = Role([PROJECT / launcher, PROJECT / "ami/iam/gc.json"], NAMES)
    assert role.may(Request("s3:ListBucketMultipartUploads", "arn:aws:s3:::bucket"))
    for asset in ("grouped_users", "clustering_inputs", "k_selection", "kmeans", "segments", "audience_report"):
        for action in ("s3:DeleteObject", "s3:AbortMultipartUpload"):
            assert role.may(Request(action, f"{DATA}/{asset}/month=2024-01/20240201T000000-00000001/manifest.json"))
    for place in ("raw/month=2024-01/a.csv", "categories/tea.json", "edits/tea.yaml", "../other/kmeans/data.json"):
        for action in ("s3:DeleteObject", "s3:AbortMultipartUpload"):
            assert not role.may(Request(action, f"{DATA}/{place}"))
    assert not role.may(Request("s3:PutObject", f"{OUTPUT}/data.json")), "it takes away, and makes nothing up"


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.stem not in ("gc", "instance", "job")], ids=lambda f: f.stem
)
def test_nobody_deletes_outputs_who_does_not_have_to(file: Path) -> None:
    path = str(file.relative_to(PROJECT))
    assert not may(path, "s3:DeleteObject", f"{OUTPUT}/data.json")
    assert not may(path, "s3:ListBucketMultipartUploads")


@pytest.mark.parametrize("file", [file for file in FILES if file.stem != "mllib"], ids=lambda f: str(f.parts[-3:]))
def test_nobody_sees_more_of_a_bucket_than_the_projects_part(file: Path) -> None:
    path = str(file.relative_to(PROJECT))
    assert not may(path, "s3:ListBucket")
    for prefix in ("", "other/", "audienc", "audience2/", "launches/"):
        assert not may(path, "s3:ListBucket", s3__prefix=prefix)


@pytest.mark.parametrize("tags", [OTHERS, {}])
def test_only_what_is_the_projects_can_be_ended(tags: dict[str, str]) -> None:
    launcher = Role([PROJECT / "ami/iam/launcher.json"], NAMES)
    assert launcher.may(Request("ec2:TerminateInstances", INSTANCE, OURS))
    assert not launcher.may(Request("ec2:TerminateInstances", INSTANCE, tags))
    operator = Role([PROJECT / "ami/iam/image_operator.json"], NAMES)
    assert not operator.may(Request("ec2:TerminateInstances", INSTANCE, OURS)), "an instance that runs jobs"


@pytest.mark.parametrize(
    ("file", "role", "service"),
    [
        ("ami/iam/launcher.json", "audience-explorer-instance", "ec2"),
        ("ami/iam/image_operator.json", "audience-explorer-image-builder", "ec2"),
        ("emr/iam/launcher.json", "audience-explorer-jobs", "emr-serverless"),
    ],
)
def test_one_role_can_be_passed_to_one_service(file: str, role: str, service: str) -> None:
    arn, passed = "arn:aws:iam::123456789012:role", f"{service}.amazonaws.com"
    assert may(file, "iam:PassRole", f"{arn}/{role}", iam__PassedToService=passed)
    assert not may(file, "iam:PassRole", f"{arn}/admin", iam__PassedToService=passed)
    assert not may(file, "iam:PassRole", f"{arn}/{role}", iam__PassedToService="lambda.amazonaws.com")


RUN = {
    "ImageId": "ami-1",
    "MetadataOptions.HttpTokens": "required",
    "BlockDeviceMapping.1.Ebs.Encrypted": "true",
    "IamInstanceProfile.Name": "audience-explorer-instance",
    "SubnetId": "subnet-1",
    "TagSpecification.1.ResourceType": "instance",
    "TagSpecification.1.Tag.1.Key": "project",
    "TagSpecification.1.Tag.1.Value": "audience-explorer",
    "TagSpecification.2.ResourceType": "volume",
    "TagSpecification.2.Tag.1.Key": "project",
    "TagSpecification.2.Tag.1.Value": "audience-explorer",
}


@pytest.mark.parametrize(
    ("changed", "allowed"),
    [
        ({}, True),
        ({"MetadataOptions.HttpTokens": "optional"}, False),
        ({"BlockDeviceMapping.1.Ebs.Encrypted": "false"}, False),
        ({"IamInstanceProfile.Name": "admin"}, False),
        ({"TagSpecification.1.Tag.1.Value": "another"}, False),
        ({"TagSpecification.2.Tag.1.Key": "other"}, False),
        ({"ImageId": "ami-of-others"}, False),
        ({"InstanceMarketOptions.MarketType": "spot"}, False),  # its request has no tag here
    ],
)
def test_an_instance_is_launched_tagged_encrypted_and_with_its_own_role_or_not_at_all(
    changed: dict[str, str], allowed: bool
) -> None:
    role = Role([PROJECT / "ami/iam/launcher.json"], NAMES)
    permissions = Permissions({"launcher": role}, NAMES)
    tags = {"ami-1": {"project": "audience-explorer"}}
    asked = {**RUN, **changed}
    denied = permissions.denied("launcher", "ec2", "RunInstances", asked, lambda name: tags.get(name, {}))
    assert (denied == []) == allowed
    assert bool(permissions.refused) != allowed


@pytest.mark.parametrize("action", ["ssmmessages:OpenDataChannel", "ssm:ResumeSession", "ssm:TerminateSession"])
def test_a_session_is_opened_resumed_and_ended_by_whom_it_belongs_to(action: str) -> None:
    launcher = Role([PROJECT / "ami/iam/launcher.json"], NAMES)
    session = "arn:aws:ssm:eu-west-1:123456789012:session/jane-0123456789abcdef0"
    for key in ("aws:username", "aws:userid"):
        assert launcher.may(Request(action, session, {key: "jane"}))
        assert not launcher.may(Request(action, session, {key: "john"}))
    assert not launcher.may(Request(action, session))


@pytest.mark.parametrize(("owner", "allowed"), [("amazon", True), ("136693071363", True), ("123456789012", False)])
def test_a_builder_is_started_from_debians_images_whichever_way_aws_names_their_owner(
    owner: str, allowed: bool
) -> None:
    image = "arn:aws:ec2:eu-west-1::image/ami-1"
    assert may("ami/iam/image_operator.json", "ec2:RunInstances", image, ec2__Owner=owner) == allowed


def test_images_are_made_of_builders_only_and_get_this_projects_tag() -> None:
    operator, place = "ami/iam/image_operator.json", "arn:aws:ec2:eu-west-1"
    for role, allowed in {"image-builder": True, "another": False}.items():
        context = {"aws__ResourceTag_slash_role": role}
        assert may(operator, "ec2:CreateImage", INSTANCE, **context) == allowed
    for project, allowed in {"audience-explorer": True, "another": False}.items():
        context = {"ec2__CreateAction": "CreateImage", "aws__RequestTag_slash_project": project}
        for kind in ("image", "snapshot"):
            assert may(operator, "ec2:CreateTags", f"{place}::{kind}/*", **context) == allowed
            assert not may(operator, "ec2:CreateTags", f"{place}::{kind}/*", **{**context, "ec2__CreateAction": ""})


def test_subnet_and_groups_of_a_network_interface_are_asked_about_as_those_of_an_instance() -> None:
    interface = {"NetworkInterface.1.SubnetId": "subnet-1", "NetworkInterface.1.SecurityGroupId.1": "sg-1"}
    asked = {**{name: value for name, value in RUN.items() if name != "SubnetId"}, **interface}
    resources = {request.resource for request in requests_of("ec2", "RunInstances", asked, NAMES, lambda _: {})}
    place = "arn:aws:ec2:eu-west-1:123456789012"
    assert {f"{place}:subnet/subnet-1", f"{place}:security-group/sg-1"} <= resources


KEY = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.mark.parametrize(("action", "place"), [("GetObject", "raw/month=2024-01/a.csv"), ("UploadPart", f"{OUTPUT}/a")])
def test_a_bucket_with_a_key_of_ones_own_takes_the_rights_of_kms_json(action: str, place: str) -> None:
    params = {"Bucket": "bucket", "Key": f"audience/{place.removeprefix(f'{DATA}/')}"}

    def denied(*files: str, key: str = KEY) -> list[str]:
        roles = {"instance": Role([PROJECT / "ami" / "iam" / file for file in files], NAMES)}
        refused = Permissions(roles, NAMES).denied("instance", "s3", action, params, lambda _: {}, lambda _: key)
        return [request.action for request in refused]

    assert set(denied("instance.json")) & {"kms:Decrypt", "kms:GenerateDataKey"}
    assert denied("instance.json", "kms.json") == []
    assert denied("instance.json", key="") == []
    assert denied("instance.json", "kms.json", key=KEY.replace("1234abcd", "00000000")) != []
    elsewhere = Request("kms:Decrypt", KEY, {"kms:ViaService": "ec2.eu-west-1.amazonaws.com"})
    assert not Role([PROJECT / "ami/iam/kms.json"], NAMES).may(elsewhere)


@pytest.mark.parametrize("region", ["us-east-1", "us-gov-west-1", "cn-north-1"])
def test_the_policies_fit_another_partition_once_the_documented_names_are_put_in(region: str, tmp_path: Path) -> None:
    readme = (PROJECT / "ami" / "README.md").read_text()
    marks = {"us-gov-west-1": "# GovCloud", "cn-north-1": "# China"}
    line = next((line for line in readme.splitlines() if line.endswith(marks.get(region, "no mark"))), "")
    command = ["sed", *(shlex.split(line, comments=True) if line else ["-n", "p"]), "launcher.json"]
    file = tmp_path / "launcher.json"
    done = subprocess.run(command, cwd=PROJECT / "ami" / "iam", capture_output=True, check=True)
    file.write_bytes(done.stdout)
    names = {**NAMES, "REGION": region}
    permissions = Permissions({"launcher": Role([file], names)}, names)
    tags = {"project": "audience-explorer"}
    asked = {"Bucket": "bucket", "Key": "audience/categories/tea.json"}
    assert permissions.denied("launcher", "ec2", "RunInstances", RUN, lambda _: tags) == []
    assert permissions.denied("launcher", "ec2", "TerminateInstances", {"InstanceId.1": "i-1"}, lambda _: tags) == []
    assert permissions.denied("launcher", "s3", "GetObject", asked, lambda _: tags) == []


def test_an_instance_that_ec2_does_not_know_yet_may_not_be_ended_by_its_tags() -> None:
    permissions = Permissions({"launcher": Role([PROJECT / "ami/iam/launcher.json"], NAMES)}, NAMES)
    assert permissions.denied("launcher", "ec2", "TerminateInstances", {"InstanceId.1": "i-1"}, lambda _: {}) != []


# --- the files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.parts[-3:]))
def test_a_policy_is_written_as_least_privilege_is(file: Path) -> None:
    policy = json.loads(file.read_text())
    assert policy["Version"] == "2012-10-17"
    assert len({statement["Sid"] for statement in policy["Statement"]}) == len(policy["Statement"])
    for statement in policy["Statement"]:
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        actions, resources = listed(statement["Action"]), listed(statement["Resource"])
        assert not any("*" in action for action in actions)
        if "*" in resources:
            assert actions == [action for action in actions if knows_no_resource(action)], statement["Sid"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.parts[-3:]))
def test_the_linter_finds_nothing(file: Path) -> None:
    if not os.environ.get("CI"):
        pytest.importorskip("cloudsplaining")
    from cloudsplaining.scan.policy_document import PolicyDocument

    text = re.sub("@([A-Z_]+)@", lambda found: NAMES[found[1]], file.read_text())
    found = PolicyDocument(json.loads(text))
    assert found.allows_privilege_escalation == []
    assert found.allows_data_exfiltration_actions == []
    assert found.credentials_exposure == []
    assert found.permissions_management_without_constraints == []
    assert found.infrastructure_modification == []
    assert found.service_wildcard == []


def knows_no_resource(action: str) -> bool:
    """Whether AWS lets an action be limited to no resource."""
    service, _, name = action.partition(":")
    return (service == "ec2" and name.startswith("Describe")) or service in ("pricing", "ssmmessages")


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
