"""`audience-explorer emr-serverless check`: each line ok and failed, on AWS as moto plays it; what moto does not play
(releases with Spark 4, quotas, IAM's simulation) is answered here as AWS's documents have it.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from click.testing import CliRunner
from moto import mock_aws
from moto.moto_api._internal import moto_api_backend

from audience_explorer_dagster.cli import main
from audience_explorer_dagster.launchers import LaunchFailed, packing
from audience_explorer_dagster.launchers.aws_checks import Result
from audience_explorer_dagster.launchers.emr_serverless.check import application, run_checks
from audience_explorer_dagster.launchers.emr_serverless.check.archive import check_archive
from audience_explorer_dagster.launchers.emr_serverless.check.capacity import check_capacity, check_quota
from audience_explorer_dagster.launchers.emr_serverless.check.network import check_network
from audience_explorer_dagster.launchers.emr_serverless.check.rights import Rights, check_role
from audience_explorer_dagster.launchers.emr_serverless.check.tags import check_tags
from audience_explorer_dagster.launchers.emr_serverless.launcher import EMRServerlessLauncher
from tests.answers import Answers

pytestmark = pytest.mark.filterwarnings("ignore")

REGION, BUCKET, ACCOUNT = "us-east-1", "audience", "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/audience-explorer-jobs"
USER = f"arn:aws:iam::{ACCOUNT}:user/bob"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "emr-serverless.amazonaws.com"}}
    ],
}
APPLICATION = {
    "applicationId": "00f1",
    "name": "explorer",
    "releaseLabel": "emr-spark-8.1.0",
    "type": "Spark",
    "state": "CREATED",
    "architecture": "X86_64",
    "autoStartConfiguration": {"enabled": True},
}
DENIED = ("AccessDeniedException", "You are not authorized to perform this operation.", 403)


@pytest.fixture(scope="module", autouse=True)
def aws() -> Iterator[None]:
    """moto, for all tests: to start it takes as long as some of them."""
    with mock_aws():
        yield


@pytest.fixture(autouse=True)
def settings(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """An account with nothing in it, and the environment of somebody who launches."""
    moto_api_backend.reset()
    for name, value in {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AUDIENCE_EXPLORER_ROOT": f"s3://{BUCKET}/explorer",
        "AUDIENCE_EXPLORER_EMR_APPLICATION": "00f1",
        "AUDIENCE_EXPLORER_EMR_ROLE": ROLE,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(application, "_PYTHON", "3.11")
    monkeypatch.setattr(packing, "name", lambda architecture: f"environment-{architecture}.tar.gz")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """AWS's answers to what moto does not play, for a new account and a caller who may do all."""
    given = Answers(monkeypatch)
    given.give("GetServiceQuota", {"Quota": {"Value": 16.0}})
    allow(given)
    return given


def allow(answers: Answers, **decisions: str) -> None:
    """Let IAM decide on actions, named with `_` for `:` and `-`; on the others as for somebody who may."""

    def decide(request: dict[str, Any]) -> dict[str, Any]:
        named = {action: decisions.get(re.sub("[:-]", "_", action), "allowed") for action in request["ActionNames"]}
        return {"EvaluationResults": [{"EvalActionName": a, "EvalDecision": d} for a, d in named.items()]}

    answers.give("SimulatePrincipalPolicy", decide)


def launcher(**changed: Any) -> EMRServerlessLauncher:
    given = {"application": "00f1", "role": ROLE, "launches": f"s3://{BUCKET}/explorer/launches"}
    return EMRServerlessLauncher(**{**given, **changed})


def rights(caller: str = USER) -> Rights:
    return Rights(boto3.client("iam"), caller)


def by_check(results: list[Result]) -> dict[str, Result]:
    return {result.check: result for result in results}


def states(results: list[Result]) -> dict[str, str]:
    return {result.check: result.state for result in results}


# --- the application ---


def found(**changed: Any) -> dict[str, Result]:
    return by_check(application.check_application({**APPLICATION, **changed}))


def test_an_application_is_there_or_the_command_that_makes_one(answers: Answers) -> None:
    emr = boto3.client("emr-serverless")
    (missing,) = application.find_application(emr, "00f1")[1]
    assert (missing.state, missing.finding) == ("failed", "us-east-1 has no application 00f1")
    assert "AUDIENCE_EXPLORER_EMR_APPLICATION" in missing.to_do
    answers.refuse("GetApplication", *DENIED)
    (refused,) = application.find_application(emr, "00f1")[1]
    assert (refused.state, refused.to_do) == (
        "failed",
        "Allow emr-serverless:GetApplication, as emr/iam/launcher.json does.",
    )

    def no_such_region(_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://emr-serverless.xx-1.amazonaws.com")

    answers.give("GetApplication", no_such_region)
    assert application.find_application(emr, "00f1")[1][0].state == "failed"
    answers.give("GetApplication", {"application": APPLICATION})
    assert application.find_application(emr, "00f1") == (APPLICATION, [])


@pytest.mark.parametrize(
    ("state", "starts", "expected"),
    [
        ("CREATED", True, "ok"),
        ("STOPPED", True, "ok"),
        ("STARTED", False, "ok"),
        ("STOPPED", False, "failed"),
        ("CREATING", True, "failed"),
        ("TERMINATED", True, "failed"),
    ],
)
def test_an_application_takes_job_runs_or_what_lets_it(state: str, starts: bool, expected: str) -> None:
    result = found(state=state, autoStartConfiguration={"enabled": starts})["application"]
    assert (result.state, bool(result.to_do)) == (expected, expected != "ok")
    if state == "STOPPED" and not starts:
        assert "aws emr-serverless start-application --application-id 00f1" in result.to_do


@pytest.mark.parametrize(
    ("label", "python", "expected", "said"),
    [
        ("emr-spark-8.1.0", "3.11", "ok", "as here"),
        ("emr-spark-8.0.0", "3.13", "ok", "as here"),
        ("emr-spark-8.1.0", "3.12", "failed", "the launcher has 3.12"),
        ("emr-7.12.0", "3.11", "failed", "Spark 3"),
        ("emr-spark-9.0.0", "3.11", "unseen", "not known here"),
    ],
)
def test_a_release_has_spark_4_and_the_launchers_python(
    monkeypatch: pytest.MonkeyPatch, label: str, python: str, expected: str, said: str
) -> None:
    monkeypatch.setattr(application, "_PYTHON", python)
    result = found(releaseLabel=label)["release"]
    assert (result.state, bool(result.to_do)) == (expected, expected != "ok")
    assert said in result.finding


def test_an_application_of_another_type_fails() -> None:
    result = found(type="Hive")["release"]
    assert (result.state, "SPARK" in result.finding) == ("failed", True)


# --- network ---


def test_subnets_of_an_application_need_a_way_to_s3_without_public_addresses() -> None:
    ec2 = boto3.client("ec2")
    assert [r.state for r in check_network(ec2, APPLICATION)] == ["ok"]
    subnet = ec2.describe_subnets()["Subnets"][0]
    name, vpc = subnet["SubnetId"], subnet["VpcId"]
    within = {**APPLICATION, "networkConfiguration": {"subnetIds": [name]}}
    table = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"][0]["RouteTableId"]
    (closed,) = check_network(ec2, within)
    assert (closed.state, f"--route-table-ids {table}" in closed.to_do) == ("failed", True)
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    assert subnet["MapPublicIpOnLaunch"]
    (public,) = check_network(ec2, within)
    assert (public.state, "workers get none" in public.finding) == ("failed", True)
    assert "map-public-ip" not in public.to_do
    ec2.create_vpc_endpoint(VpcId=vpc, ServiceName=f"com.amazonaws.{REGION}.s3", RouteTableIds=[table])
    assert [r.state for r in check_network(ec2, within)] == ["ok"]
    (missing,) = check_network(ec2, {**APPLICATION, "networkConfiguration": {"subnetIds": ["subnet-00000000"]}})
    assert (missing.state, missing.finding) == ("failed", "us-east-1 has no subnet-00000000")


def test_a_network_that_may_not_be_looked_at_is_not_ok(answers: Answers) -> None:
    answers.refuse("DescribeSubnets", "UnauthorizedOperation", "no", 403)
    within = {"networkConfiguration": {"subnetIds": ["subnet-1"]}}
    (result,) = check_network(boto3.client("ec2"), within)
    assert (result.state, "ec2:DescribeSubnets, as emr/iam/check.json" in result.to_do) == ("unseen", True)


# --- tags, sizes, limits ---


def test_tags_with_characters_that_emr_does_not_take_fail() -> None:
    emr = boto3.client("emr-serverless")
    assert [r.state for r in check_tags(emr, launcher(extra_tags={"team": "data & more"}))] == ["failed"]
    assert [r.state for r in check_tags(emr, launcher(extra_tags={"größe": "1"}))] == ["failed"]
    assert [r.state for r in check_tags(emr, launcher(extra_tags={"k" * 129: "1"}))] == ["failed"]
    assert [r.state for r in check_tags(emr, launcher(extra_tags={"team": "data-1"}))] == ["ok"]


@pytest.mark.parametrize(
    ("cores", "memory", "expected"),
    [(4, 16, "ok"), (4, 30, "ok"), (4, 32, "failed"), (3, 8, "failed"), (8, 18, "failed"), (16, 120, "ok")],
)
def test_workers_have_sizes_that_emr_has(cores: int, memory: int, expected: str) -> None:
    checked = by_check(check_capacity(launcher(driver_cores=cores, driver_memory_gb=memory), APPLICATION))
    result = checked["size of driver"]
    assert (result.state, bool(result.to_do)) == (expected, expected == "failed")
    assert checked["size of executors"].state == "ok"
    of_executors = launcher(executor_cores=cores, executor_memory_gb=memory)
    assert by_check(check_capacity(of_executors, {}))["size of executors"].state == expected


@pytest.mark.parametrize(
    ("cpu", "memory", "expected"),
    [
        ("16 vCPU", "64 GB", "ok"),
        ("8 vCPU", "32 GB", "warning"),
        ("16 vCPU", "48GB", "warning"),
        ("4 vCPU", "64 GB", "failed"),
        ("16 vCPU", "16 GB", "failed"),
    ],
)
def test_the_applications_limit_is_compared_with_a_launch(cpu: str, memory: str, expected: str) -> None:
    limited = {**APPLICATION, "maximumCapacity": {"cpu": cpu, "memory": memory}}
    result = by_check(check_capacity(launcher(), limited))["limit of the application"]
    assert result.state == expected
    assert ("--maximum-capacity cpu=16vCPU,memory=64GB" in result.to_do) == (expected != "ok")
    assert "limit of the application" not in by_check(check_capacity(launcher(), APPLICATION))


def test_the_quota_is_compared_with_the_vcpus_of_a_launch(answers: Answers) -> None:
    quotas = boto3.client("service-quotas")
    (enough,) = check_quota(quotas, launcher())
    assert (enough.state, enough.finding) == ("ok", "16 vCPUs at a time, and a launch takes up to 16")
    (few,) = check_quota(quotas, launcher(max_executors=4))
    assert few.state == "failed"
    assert "--quota-code L-D05C8A75 --desired-value 20 " in few.to_do
    answers.refuse("GetServiceQuota", "NoSuchResourceException", "The specified resource does not exist.")
    assert [r.state for r in check_quota(quotas, launcher())] == ["unseen"]
    answers.refuse("GetServiceQuota", *DENIED)
    (unseen,) = check_quota(quotas, launcher())
    assert (unseen.state, "servicequotas:GetServiceQuota, as emr/iam/check.json" in unseen.to_do) == ("unseen", True)


# --- the role, and rights ---


def make_role(trust: dict[str, Any] = TRUST, name: str = "audience-explorer-jobs", path: str = "/") -> None:
    boto3.client("iam").create_role(RoleName=name, Path=path, AssumeRolePolicyDocument=json.dumps(trust))


@pytest.mark.usefixtures("answers")
def test_the_jobs_role_is_there_and_one_that_emr_may_take() -> None:
    missing = check_role(rights(), launcher())
    assert states(missing) == {"job role": "failed", "rights": "unseen"}
    assert "emr/README.md" in missing[0].to_do
    make_role(
        {"Statement": {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}}}
    )
    (foreign, _) = check_role(rights(), launcher())
    assert (foreign.state, "update-assume-role-policy" in foreign.to_do) == ("failed", True)
    boto3.client("iam").update_assume_role_policy(RoleName="audience-explorer-jobs", PolicyDocument=json.dumps(TRUST))
    assert states(check_role(rights(), launcher())) == {"job role": "ok", "pass role": "ok", "rights": "ok"}


@pytest.mark.usefixtures("answers")
@pytest.mark.parametrize("role", ["audience-explorer-jobs", ROLE.replace(ACCOUNT, "210987654321"), USER])
def test_a_role_that_is_not_one_of_this_account_fails(role: str) -> None:
    result = check_role(rights(), launcher(role=role))[0]
    assert (result.state, "AUDIENCE_EXPLORER_EMR_ROLE" in result.to_do) == ("failed", True)


def test_a_role_that_may_not_be_passed_and_job_runs_that_may_not_be_started_fail(answers: Answers) -> None:
    make_role()
    allow(answers, iam_PassRole="implicitDeny", emr_serverless_StartJobRun="explicitDeny")
    checked = by_check(check_role(rights(), launcher()))
    assert (checked["pass role"].state, checked["rights"].state) == ("failed", "failed")
    assert checked["pass role"].to_do == f"Allow iam:PassRole on {ROLE}, as emr/iam/launcher.json does."
    assert checked["rights"].to_do.startswith("Allow emr-serverless:StartJobRun on arn:aws:emr-serverless:us-east-1:")
    asked = [request for operation, request in answers.made if operation == "SimulatePrincipalPolicy"]
    assert asked[0]["ContextEntries"][0]["ContextKeyValues"] == ["emr-serverless.amazonaws.com"]
    assert {request["PolicySourceArn"] for request in asked} == {USER}


def test_a_session_is_asked_about_by_its_role_with_the_path(answers: Answers) -> None:
    make_role()
    make_role(name="launcher", path="/team/")
    check_role(rights(f"arn:aws:sts::{ACCOUNT}:assumed-role/launcher/session"), launcher())
    asked = [request for operation, request in answers.made if operation == "SimulatePrincipalPolicy"]
    assert {request["PolicySourceArn"] for request in asked} == {f"arn:aws:iam::{ACCOUNT}:role/team/launcher"}


def test_the_root_user_is_not_asked_about(answers: Answers) -> None:
    make_role()
    assert states(check_role(rights(f"arn:aws:iam::{ACCOUNT}:root"), launcher()))["rights"] == "ok"
    assert "SimulatePrincipalPolicy" not in [operation for operation, _ in answers.made]


@pytest.mark.parametrize("operation", ["GetRole", "SimulatePrincipalPolicy"])
def test_rights_that_can_not_be_seen_are_not_ok(answers: Answers, operation: str) -> None:
    make_role()
    answers.refuse(operation, "AccessDenied", "not authorized", 403)
    unseen = [result for result in check_role(rights(), launcher()) if result.state == "unseen"]
    assert unseen
    assert {f"iam:{operation}, as emr/iam/check.json" in result.to_do for result in unseen} == {True}


# --- the archive ---


def archive(architecture: str = "X86_64") -> Result:
    (result,) = check_archive(rights(), launcher(), {**APPLICATION, "architecture": architecture})
    return result


def test_the_archive_is_on_s3_or_can_be_brought_there(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    assert (archive().state, "140 MB" in archive().finding) == ("ok", True)
    allow(answers, s3_PutObject="implicitDeny")
    assert (archive().state, f"s3:PutObject on arn:aws:s3:::{BUCKET}/explorer/launches/code/*" in archive().to_do) == (
        "warning",
        True,
    )
    allow(answers, s3_PutObject="explicitDeny")
    assert archive().state == "failed"
    monkeypatch.setattr(packing, "find_spec", lambda _: None)
    monkeypatch.setenv("XDG_CACHE_HOME", "/nonexistent")
    assert archive().to_do == "Install pip here."
    s3.put_object(Bucket=BUCKET, Key="explorer/launches/code/environment-x86_64.tar.gz", Body=b"packed")
    assert (archive().state, archive().finding) == ("ok", "it is on S3")
    assert (archive("ARM64").check, archive("ARM64").state) == ("archive for aarch64", "failed")


def test_a_package_that_is_missing_here_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> str:
        raise LaunchFailed("pip install 'audience-explorer[spark]'")

    monkeypatch.setattr(packing, "name", missing)
    assert (archive().state, archive().to_do) == ("failed", "pip install 'audience-explorer[spark]'")


# --- the command ---


def check(*arguments: str) -> tuple[int, dict[str, str], str]:
    result = CliRunner().invoke(main, ["emr-serverless", "check", "--json", *arguments])
    return result.exit_code, {of["check"]: of["state"] for of in json.loads(result.stdout)}, result.stdout


def test_from_an_empty_account_to_one_that_is_ready(answers: Answers) -> None:
    code, empty, _ = check()
    assert code == 1
    assert {empty[name] for name in ("bucket audience", "application", "job role")} == {"failed"}
    assert (empty["quota"], empty["archive"]) == ("ok", "unseen")
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    answers.give("GetApplication", {"application": APPLICATION})
    code, half, _ = check()
    assert (code, {name for name, state in half.items() if state == "failed"}) == (1, {"job role"})
    make_role()
    before = len(answers.made)
    code, ready, _ = check()
    assert (code, set(ready.values())) == (0, {"ok"})
    changing = ("Create", "Put", "Delete", "Update", "Start", "Cancel")
    assert not [operation for operation, _ in answers.made[before:] if operation.startswith(changing)]
    printed = CliRunner().invoke(main, ["emr-serverless", "check"])
    assert (printed.exit_code, printed.stderr) == (0, "\nLaunches would work.\n")


@pytest.mark.usefixtures("answers")
def test_settings_that_are_missing_fail_and_the_rest_is_not_called_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUDIENCE_EXPLORER_EMR_ROLE")
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", "data")
    code, checked, printed = check()
    assert code == 1
    assert (checked["root"], checked["settings"]) == ("failed", "failed")
    assert checked["application, tags, workers, quota, role, rights, archive"] == "unseen"
    assert "AUDIENCE_EXPLORER_EMR_ROLE: needed" in " ".join(printed.split())


@pytest.mark.parametrize("last", ["identity", "region"])
def test_after_wrong_credentials_or_a_wrong_region_nothing_else_is_asked(
    answers: Answers, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    if last == "identity":
        answers.refuse("GetCallerIdentity", "InvalidClientTokenId", "The security token is invalid.", 403)
    else:
        monkeypatch.setenv("AUDIENCE_EXPLORER_EMR_REGION", "eu-west-9")
    results = run_checks()
    assert [(of.check, of.state) for of in results[-2:]] == [(last, "failed"), ("everything else", "unseen")]
    assert {operation for operation, _ in answers.made} <= {"GetCallerIdentity", "DescribeRegions"}


def test_the_policies_that_are_named_are_those_of_emr(answers: Answers) -> None:
    answers.give("GetCallerIdentity", {"Arn": f"arn:aws:iam::{ACCOUNT}:root", "Account": ACCOUNT})
    for operation in ("DescribeRegions", "GetBucketEncryption"):
        answers.refuse(operation, *DENIED)
    answers.refuse("ListObjectsV2", "AccessDenied", "no", 403)
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    results = run_checks()
    named = [result.to_do for result in results if "/iam/" in result.to_do]
    assert len(named) >= 4
    assert not [to_do for to_do in named if "ami/iam" in to_do]
