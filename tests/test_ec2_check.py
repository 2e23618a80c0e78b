"""`audience-explorer ec2 check`: each line ok and failed, on AWS as moto plays it; what moto does not play is answered
here as AWS's documents have it.
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from importlib import metadata
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, NoCredentialsError
from click.testing import CliRunner
from moto import mock_aws
from moto.moto_api._internal import moto_api_backend

from acceptance.sandbox.prices import get_products
from ami.images import Image, tags_of
from audience_explorer_dagster.cli import main
from audience_explorer_dagster.cli.checked import as_report
from audience_explorer_dagster.launchers import aws_checks
from audience_explorer_dagster.launchers import network as ways
from audience_explorer_dagster.launchers.aws_checks import Result
from audience_explorer_dagster.launchers.ec2.check import launching, network, quotas, run_checks
from audience_explorer_dagster.launchers.ec2.launcher import EC2StepLauncher
from audience_explorer_dagster.launchers.ec2.start import LaunchOption, start_instance
from spark_jobs import REQUIRES
from tests.account import BUCKET, Account, empty_account
from tests.answers import Answer, Answers, refuse

pytestmark = pytest.mark.filterwarnings("ignore")

REGION = "us-east-1"
PROFILE = "audience-explorer-instance"
ROLE = f"arn:aws:iam::123456789012:role/{PROFILE}"
DENIED = ("UnauthorizedOperation", "You are not authorized to perform this operation.", 403)


@pytest.fixture(scope="module", autouse=True)
def clients() -> Iterator[Account]:
    """The clients of all tests, for each takes long to make."""
    with mock_aws(), pytest.MonkeyPatch.context() as monkeypatch:
        yield empty_account(monkeypatch)


@pytest.fixture
def account(clients: Account, monkeypatch: pytest.MonkeyPatch) -> Account:
    """An account with the bucket of root and launches, and the environment of somebody who launches."""
    moto_api_backend.reset()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    clients.s3.create_bucket(Bucket=BUCKET)
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", f"s3://{BUCKET}/explorer")
    monkeypatch.setenv("AUDIENCE_EXPLORER_EC2_INSTANCE_PROFILE", PROFILE)
    return clients


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """AWS's answers to what moto does not play: a new account's quotas, and prices."""
    given = Answers(monkeypatch)
    given.give("GetServiceQuota", {"Quota": {"Value": 5.0}})
    given.give("GetProducts", lambda request: get_products(request, REGION))
    return given


def settings(**changed: Any) -> EC2StepLauncher:
    return EC2StepLauncher(**{"launches": f"s3://{BUCKET}/explorer/launches", "instance_profile": PROFILE, **changed})


def states(results: list[Result]) -> list[str]:
    return [result.state for result in results]


def image(account: Account, **changed: str) -> str:
    tags = tags_of("3.11.2", {name: metadata.version(name) for name in REQUIRES})
    return account.image("audience-explorer-2026-01-01", {**tags, **changed})


# --- identity and region ---


def test_who_asks_is_named() -> None:
    (result,) = aws_checks.identity(boto3.client("sts"))
    assert (result.state, result.to_do) == ("ok", "")
    assert "account 123456789012" in result.finding


@pytest.mark.usefixtures("account")
def test_credentials_that_aws_does_not_accept_or_that_are_not_there_fail(answers: Answers) -> None:
    answers.refuse("GetCallerIdentity", "ExpiredToken", "The security token included in the request is expired", 403)
    (expired,) = aws_checks.identity(boto3.client("sts"))
    assert expired.state == "failed"
    assert "ExpiredToken" in expired.finding
    assert "Sign in again" in expired.to_do

    def none(_: object) -> None:
        raise NoCredentialsError

    answers.give("GetCallerIdentity", none)
    (missing,) = aws_checks.identity(boto3.client("sts"))
    assert (missing.state, missing.finding) == ("failed", "Unable to locate credentials")
    assert "aws configure" in missing.to_do


@pytest.mark.usefixtures("account")
def test_the_accounts_root_user_is_a_warning(answers: Answers) -> None:
    answers.give("GetCallerIdentity", {"Arn": "arn:aws:iam::123456789012:root", "Account": "123456789012"})
    (result,) = aws_checks.identity(boto3.client("sts"))
    assert result.state == "warning"
    assert "ami/iam/launcher.json" in result.to_do


def test_a_region_exists_and_is_enabled(account: Account, answers: Answers) -> None:
    assert states(aws_checks.region(account.ec2, "eu-west-1")) == ["ok"]
    (none,) = aws_checks.region(account.ec2, None)
    assert (none.state, none.to_do) == ("failed", "Name one: export AWS_REGION=eu-west-1")
    (mistyped,) = aws_checks.region(account.ec2, "eu-west-9")
    assert mistyped.state == "failed"
    assert re.search(r"such as eu-west-\d", mistyped.to_do)
    answers.give("DescribeRegions", {"Regions": [{"RegionName": "af-south-1", "OptInStatus": "not-opted-in"}]})
    (disabled,) = aws_checks.region(account.ec2, "af-south-1")
    assert disabled.state == "failed"
    assert "aws account enable-region --region-name af-south-1" in disabled.to_do


@pytest.mark.parametrize(
    ("region", "home"), [("eu-west-9", "us-east-1"), ("cn-north-1", "cn-north-1"), (None, "us-east-1")]
)
def test_a_region_that_may_not_exist_is_not_asked_about_itself(region: str | None, home: str) -> None:
    assert aws_checks.home_region(region) == home


# --- buckets ---


def bucket(account: Account, name: str = BUCKET, region: str = REGION) -> list[Result]:
    return aws_checks.buckets(account.s3, [f"s3://{name}/explorer", f"s3://{name}/explorer/launches"], region)


def test_a_bucket_is_there_and_one_that_is_not_is_made_by_the_named_command(account: Account) -> None:
    assert states(bucket(account)) == ["ok", "ok"]
    (missing,) = bucket(account, "nobodys")
    assert (missing.state, missing.to_do) == ("failed", "aws s3 mb s3://nobodys --region us-east-1")


def test_a_bucket_of_another_region_fails(account: Account) -> None:
    (result,) = bucket(account, region="eu-west-1")
    assert (result.state, result.finding) == ("failed", "it is in us-east-1, and launches are in eu-west-1")


def test_a_bucket_that_can_be_listed_below_the_prefixes_only_is_enough(account: Account, answers: Answers) -> None:
    """As ami/iam/launcher.json may have it: then S3 refuses HeadBucket, and still says where the bucket is."""
    answers.refuse("HeadBucket", "403", "Forbidden", 403, **{"x-amz-bucket-region": REGION})
    assert states(bucket(account)) == ["ok", "ok"]
    answers.refuse("ListObjectsV2", "AccessDenied", "Access Denied", 403)
    refused = bucket(account)[0]
    assert refused.state == "failed"
    assert refused.finding == "s3://audience/explorer and s3://audience/explorer/launches can't be listed"
    assert "s3:ListBucket" in refused.to_do


@pytest.mark.parametrize(
    ("by_default", "state"),
    [
        ({"SSEAlgorithm": "AES256"}, "ok"),
        ({"SSEAlgorithm": "aws:kms"}, "ok"),
        ({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "arn:aws:kms:us-east-1:123456789012:alias/aws/s3"}, "ok"),
        ({"SSEAlgorithm": "aws:kms:dsse", "KMSMasterKeyID": "arn:aws:kms:us-east-1:123456789012:key/1"}, "warning"),
        ({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "arn:aws:kms:us-east-1:123456789012:key/1"}, "warning"),
    ],
)
def test_a_key_of_ones_own_needs_rights_that_are_named(
    account: Account, answers: Answers, by_default: dict[str, str], state: str
) -> None:
    rules = [{"ApplyServerSideEncryptionByDefault": by_default}]
    answers.give("GetBucketEncryption", {"ServerSideEncryptionConfiguration": {"Rules": rules}})
    result = bucket(account)[1]
    assert result.state == state
    assert ("kms:GenerateDataKey and kms:Decrypt" in result.to_do) == (state == "warning")


# --- what may not be looked at ---


NOT_NEEDED = {
    "DescribeRegions": "ec2:DescribeRegions",
    "GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "DescribeInstanceTypes": "ec2:DescribeInstanceTypes",
    "DescribeSubnets": "ec2:DescribeSubnets",
    "DescribeSpotPriceHistory": "ec2:DescribeSpotPriceHistory",
    "GetProducts": "pricing:GetProducts",
}


@pytest.mark.usefixtures("account")
def test_what_the_caller_may_not_look_at_is_neither_ok_nor_a_traceback(answers: Answers) -> None:
    for operation in (*NOT_NEEDED, "DescribeImages"):
        answers.refuse(operation, *DENIED)
    found = run_checks()
    for action in NOT_NEEDED.values():
        assert states([result for result in found if action in result.to_do]) == ["unseen"]
    (needed,) = [result for result in found if "ec2:DescribeImages" in result.to_do]
    assert needed.state == "failed"  # launches need it as well


@pytest.mark.parametrize("operation", ["DescribeRouteTables", "DescribeVpcEndpoints"])
def test_a_network_of_which_a_part_can_not_be_seen_is_not_ok(
    account: Account, answers: Answers, operation: str
) -> None:
    answers.refuse(operation, *DENIED)
    (result,) = network.check_network(account.ec2, settings())
    assert (result.state, result.finding) == ("unseen", f"can't be seen: needs ec2:{operation}")


def test_quotas_that_can_not_be_seen_are_not_ok(account: Account, answers: Answers) -> None:
    answers.refuse("GetServiceQuota", "AccessDeniedException", "not authorized", 400)
    assert of_quotas(account)["quota spot"].state == "unseen"
    assert "servicequotas:GetServiceQuota" in of_quotas(account)["quota on-demand"].to_do


# --- quotas ---


def of_quotas(account: Account, **changed: Any) -> dict[str, Result]:
    results = quotas.check_quotas(account.ec2, boto3.client("service-quotas"), settings(**changed))
    return {result.check: result for result in results}


@pytest.mark.usefixtures("answers")
def test_quotas_are_compared_with_the_vcpus_of_the_types(account: Account) -> None:
    found = of_quotas(account, instance_types=["m7i.2xlarge", "m7i.xlarge"])
    assert found["instance types"].finding == "m7i.2xlarge (8 vCPUs), m7i.xlarge (4 vCPUs)"
    assert found["quota spot"].state == found["quota on-demand"].state == "warning"
    assert found["quota spot"].finding == "5 vCPUs at a time: enough for m7i.xlarge only"
    assert "--quota-code L-34B43A08 --desired-value 8 " in found["quota spot"].to_do
    assert "--quota-code L-1216C47A --desired-value 8 " in found["quota on-demand"].to_do
    assert of_quotas(account, instance_types=["m7i.xlarge"])["quota spot"].state == "ok"
    none = of_quotas(account, instance_types=["m7i.2xlarge"], market="spot")
    assert "quota on-demand" not in none
    assert none["quota spot"].state == "failed"


def test_a_quota_that_is_too_small_on_one_market_only_is_passed_over(account: Account, answers: Answers) -> None:
    values = {"L-34B43A08": 0.0, "L-1216C47A": 8.0}
    answers.give("GetServiceQuota", lambda request: {"Quota": {"Value": values[request["QuotaCode"]]}})
    found = of_quotas(account)
    assert found["quota spot"].state == "warning"
    assert found["quota on-demand"].state == "ok"


def test_types_that_do_not_exist_or_have_another_quota_are_named(account: Account, answers: Answers) -> None:
    found = of_quotas(account, instance_types=["m9.large", "g5.xlarge"])
    assert found["instance types"].state == "failed"
    assert "m9.large" in found["instance types"].finding
    assert found["other quotas"].state == "unseen"
    answers.refuse("GetServiceQuota", "NoSuchResourceException", "The specified resource does not exist.")
    assert of_quotas(account)["quota spot"].state == "unseen"


# --- image ---


def test_an_image_is_there_fits_and_is_not_old(account: Account, answers: Answers) -> None:
    (missing,) = launching.check_image(account.ec2, settings())
    assert (missing.state, missing.finding) == ("failed", "There is no image audience-explorer-* in us-east-1")
    made = image(account)
    described = account.ec2.describe_images(ImageIds=[made])["Images"][0]

    def found(days: int, **changed: Any) -> Result:
        created = f"{datetime.now(timezone.utc) - timedelta(days=days):%Y-%m-%dT%H:%M:%S.000Z}"
        answers.give("DescribeImages", {"Images": [{**described, "CreationDate": created, **changed}]})
        return launching.check_image(account.ec2, settings())[0]

    assert found(days=89).state == "ok"
    old = found(days=91)
    assert (old.state, "python -m ami build" in old.to_do) == ("warning", True)
    assert "91 days old" in old.finding
    assert found(days=0, State="pending").state == "failed"
    misfit = found(days=0, Tags=[{"Key": "boot", "Value": "0"}])
    assert (misfit.state, misfit.to_do) == ("failed", "Build a new one: python -m ami build")
    large = found(days=0, BlockDeviceMappings=[{"Ebs": {"VolumeSize": 80}}])
    assert (large.state, large.to_do) == ("failed", "Raise AUDIENCE_EXPLORER_EC2_VOLUME_GB.")


# --- launches, by dry runs ---

IMAGE = Image("ami-1", "audience-explorer-2026-01-01", {}, "/dev/xvda")


def dry(answers: Answers, account: Account, answer: Answer, **changed: Any) -> list[Result]:
    answers.give("RunInstances", answer)
    return launching.check_launches(account.ec2, settings(**changed), IMAGE)


def would_launch(_: object) -> None:
    refuse("RunInstances", "DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)


def test_each_type_subnet_and_market_is_asked_for(account: Account, answers: Answers) -> None:
    found = dry(answers, account, would_launch, instance_types=["m5.large", "m6i.large"], subnets=["s1", "s2"])
    assert [(r.check, r.state) for r in found] == [("launch spot", "ok"), ("launch on-demand", "ok")]
    assert found[0].finding == "EC2 would launch m5.large, m6i.large, each in s1 and s2"
    assert states(dry(answers, account, would_launch, market="spot")) == ["ok"]


def test_where_only_some_would_be_launched_each_is_named_with_its_subnet(account: Account, answers: Answers) -> None:
    def answer(request: dict[str, Any]) -> None:
        if (request["InstanceType"], request["SubnetId"]) == ("m6i.large", "s2"):
            refuse("RunInstances", "Unsupported", "m6i.large is not to be had in s2.")
        would_launch(request)

    types = ["m5.large", "m6i.large"]
    found = dry(answers, account, answer, instance_types=types, subnets=["s1", "s2"], market="spot")
    assert found[0].finding == "EC2 would launch m5.large in s1, m5.large in s2, m6i.large in s1"
    assert found[1].finding.startswith("m6i.large in s2: ")


def test_the_dry_run_is_the_very_request_of_a_launch(account: Account, answers: Answers) -> None:
    of = settings(instance_types=["m5.large"], market="spot", subnets=["s1"], security_groups=["sg-1"], key_pair="mine")
    answers.give("RunInstances", would_launch)
    launching.check_launches(account.ec2, of, IMAGE)
    with pytest.raises(ClientError, match="DryRunOperation"):
        start_instance(account.ec2, of, [LaunchOption("m5.large", "s1", "spot")], "t", {"x": "y"}, IMAGE, "s3://b/l")
    (asked, launched) = [request for operation, request in answers.made if operation == "RunInstances"]
    assert asked.pop("DryRun")
    launched.pop("ClientToken")
    own = ("TagSpecifications", "UserData")  # which name the launch
    assert {n: v for n, v in asked.items() if n not in own} == {n: v for n, v in launched.items() if n not in own}
    assert set(asked) == set(launched)
    assert {"Key": "project", "Value": "audience-explorer"} in asked["TagSpecifications"][0]["Tags"]


@pytest.mark.parametrize(
    ("code", "message", "to_do"),
    [
        (
            "UnauthorizedOperation",
            "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/Bob is not"
            f" authorized to perform: iam:PassRole on resource: {ROLE} because no identity-based policy allows the"
            " iam:PassRole action. Encoded authorization failure message: 4GIOHlTkIaWHQD0Q",
            f"Allow iam:PassRole on {ROLE}, as ami/iam/launcher.json does.",
        ),
        ("UnauthorizedOperation", "You are not authorized to perform this operation.", "ami/iam/launcher.json"),
        ("InvalidParameterValue", "Value (x) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance"
         " Profile name", "INSTANCE_PROFILE"),
        ("InvalidSubnetID.NotFound", "The subnet ID 'subnet-1' does not exist", "AUDIENCE_EXPLORER_EC2_SUBNETS"),
        ("InvalidGroup.NotFound", "The security group 'sg-1' does not exist", "AUDIENCE_EXPLORER_EC2_SECURITY_GROUPS"),
        ("InvalidKeyPair.NotFound", "The key pair 'mine' does not exist", "AUDIENCE_EXPLORER_EC2_KEY_PAIR"),
        ("VPCIdNotSpecified", "No default VPC for this user", "aws ec2 create-default-vpc"),
        ("AuthFailure.ServiceLinkedRoleCreationNotPermitted", "The provided credentials do not have permission to"
         " create the service-linked role for EC2 Spot Instances.", "aws iam create-service-linked-role"),
        ("Unsupported", "Your requested instance type is not supported in your requested zone", "…_SUBNETS"),
        ("PendingVerification", "Your request for accessing resources in this region is being validated", "its mails"),
        ("InvalidParameterCombination", "The specified instance type is not eligible for Free Tier. For a list of Free"
         " Tier instance types, run 'describe-instance-types'", "paid plan"),
        ("SomethingElse", "Words", "Its message"),
    ],
)  # fmt: skip
def test_what_ec2_refuses_fails_with_what_to_do(
    account: Account, answers: Answers, code: str, message: str, to_do: str
) -> None:
    (result,) = dry(answers, account, lambda _: refuse("RunInstances", code, message), market="spot")
    assert result.state == "failed"
    assert code in result.finding
    assert "Encoded" not in result.finding
    assert to_do in result.to_do


def test_a_type_that_a_zone_does_not_have_is_passed_over_if_another_is_there(
    account: Account, answers: Answers
) -> None:
    def only_m6i(request: dict[str, Any]) -> None:
        if request["InstanceType"] == "m6i.large":
            would_launch(request)
        refuse("RunInstances", "Unsupported", "Your requested instance type is not supported in your requested zone")

    found = dry(answers, account, only_m6i, instance_types=["m5.large", "m6i.large"], market="spot")
    assert states(found) == ["warning", "ok"]
    assert found[0].finding.endswith("so launches pass it over")
    assert states(dry(answers, account, only_m6i, instance_types=["m5.large"], market="spot")) == ["failed"]


def test_without_an_image_launches_are_not_called_possible(account: Account) -> None:
    assert launching.find(account.ec2, settings()) is None
    assert states(launching.check_launches(account.ec2, settings(), None)) == ["unseen"]


# --- network ---

SUBNET = {"SubnetId": "subnet-1", "VpcId": "vpc-1", "MapPublicIpOnLaunch": False}
OUTWARD = {"DestinationCidrBlock": "0.0.0.0/0", "State": "active"}
GATEWAY = {"VpcId": "vpc-1", "State": "available", "VpcEndpointId": "vpce-1", "RouteTableIds": ["rtb-1"]}
INTERFACE = {"VpcId": "vpc-1", "State": "available", "VpcEndpointId": "vpce-2", "PrivateDnsEnabled": True}


@pytest.mark.parametrize(
    ("changed", "route", "endpoints", "state"),
    [
        ({}, None, [GATEWAY], "ok"),
        ({}, None, [{**GATEWAY, "RouteTableIds": ["rtb-2"]}], "failed"),
        ({}, None, [{**GATEWAY, "State": "pending"}], "failed"),
        ({}, None, [{**GATEWAY, "VpcId": "vpc-2"}], "failed"),
        ({}, None, [INTERFACE], "ok"),
        ({}, None, [{**INTERFACE, "PrivateDnsEnabled": False}], "failed"),
        ({}, None, [{**INTERFACE, "DnsOptions": {"PrivateDnsOnlyForInboundResolverEndpoint": True}}], "failed"),
        ({}, None, [], "failed"),
        ({}, {"NatGatewayId": "nat-1"}, [], "ok"),
        ({}, {"NatGatewayId": "nat-1", "State": "blackhole"}, [], "failed"),
        ({}, {"NetworkInterfaceId": "eni-1"}, [], "ok"),
        ({}, {"GatewayId": "igw-1"}, [], "failed"),
        ({"MapPublicIpOnLaunch": True}, {"GatewayId": "igw-1"}, [], "ok"),
        ({}, {"TransitGatewayId": "tgw-1"}, [], "unseen"),
        ({"MapPublicIpOnLaunch": True}, {"GatewayId": "vgw-1"}, [], "unseen"),
        ({"MapPublicIpOnLaunch": True}, None, [], "failed"),
    ],
)
def test_a_subnet_has_a_way_to_s3_or_the_command_that_makes_one(
    changed: dict[str, Any], route: dict[str, str] | None, endpoints: list[dict[str, Any]], state: str
) -> None:
    table = {"RouteTableId": "rtb-1", "VpcId": "vpc-1", "Routes": [{**OUTWARD, **route}] if route else []}
    found, _, to_do = ways.way_to_s3({**SUBNET, **changed}, table, endpoints, REGION)
    assert found == state
    make = "--vpc-id vpc-1 --service-name com.amazonaws.us-east-1.s3 --route-table-ids rtb-1"
    assert (make in to_do) == (state != "ok")


@pytest.mark.parametrize(("public_ip", "state"), [(None, "failed"), (True, "ok"), (False, "failed")])
def test_an_address_that_instances_ask_for_is_a_way_through_an_internet_gateway(
    public_ip: bool | None, state: str
) -> None:
    table = {"RouteTableId": "rtb-1", "VpcId": "vpc-1", "Routes": [{**OUTWARD, "GatewayId": "igw-1"}]}
    found, _, to_do = ways.way_to_s3(SUBNET, table, [], REGION, public_ip)
    assert found == state
    assert ("AUDIENCE_EXPLORER_EC2_PUBLIC_IP=true" in to_do) == (state == "failed")
    mapped = {**SUBNET, "MapPublicIpOnLaunch": True}
    assert ways.way_to_s3(mapped, table, [], REGION, False)[0] == "failed"
    assert ways.way_to_s3(SUBNET, {**table, "Routes": []}, [], REGION, True)[0] == "failed"


@pytest.mark.parametrize(
    "route", [{"TransitGatewayId": "tgw-1"}, {"VpcPeeringConnectionId": "pcx-1"}, {"GatewayId": "vgw-1"}]
)
def test_a_route_to_another_network_which_may_have_an_endpoint_is_no_proof_of_a_dead_end(route: dict[str, str]) -> None:
    routes = [{"DestinationCidrBlock": "10.0.0.0/8", "State": "active", **route}]
    table = {"RouteTableId": "rtb-1", "VpcId": "vpc-1", "Routes": routes}
    assert ways.way_to_s3(SUBNET, table, [], REGION)[0] == "unseen"
    endpoint_of_another_service = [{"DestinationPrefixListId": "pl-1", "State": "active", "GatewayId": "vpce-1"}]
    assert ways.way_to_s3(SUBNET, {**table, "Routes": endpoint_of_another_service}, [], REGION)[0] == "failed"


def test_a_launch_knows_its_dead_ends_before_it_is_made(account: Account) -> None:
    (way_out,) = ways.dead_ends(account.ec2, [], None).values()
    assert re.match(r"no way to S3: .*\. aws ec2 create-vpc-endpoint --vpc-id vpc-", way_out)
    open_network(account)
    assert ways.dead_ends(account.ec2, [], None) == {}
    assert "serves public addresses only" in str(ways.dead_ends(account.ec2, [], False)[None])
    closed, opened = [subnet["SubnetId"] for subnet in account.ec2.describe_subnets()["Subnets"]][:2]
    table = account.ec2.create_route_table(VpcId=vpc(account))["RouteTable"]["RouteTableId"]
    account.ec2.associate_route_table(SubnetId=closed, RouteTableId=table)
    assert set(ways.dead_ends(account.ec2, [closed, opened], None)) == {closed}
    assert ways.dead_ends(account.ec2, [], None) == {}, "EC2 may choose another of the default network's"


def test_the_default_network_is_looked_at_where_no_subnet_is_configured(account: Account) -> None:
    (without,) = network.check_network(account.ec2, settings())
    assert without.state == "failed"
    assert without.finding.startswith("default network, 6 subnets: no way to S3")
    open_network(account)
    (result,) = network.check_network(account.ec2, settings())
    assert (result.state, result.to_do) == ("ok", "")
    for subnet in account.ec2.describe_subnets()["Subnets"]:
        account.ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    (none,) = network.check_network(account.ec2, settings())
    assert none.finding == "no subnet is configured, and there is no default network"
    assert "aws ec2 create-default-vpc" in none.to_do


def test_each_configured_subnet_is_looked_at_by_its_own_routes(account: Account) -> None:
    open_network(account)
    closed, opened = [subnet["SubnetId"] for subnet in account.ec2.describe_subnets()["Subnets"]][:2]
    table = account.ec2.create_route_table(VpcId=vpc(account))["RouteTable"]["RouteTableId"]
    account.ec2.associate_route_table(SubnetId=closed, RouteTableId=table)
    found = network.check_network(account.ec2, settings(subnets=[closed, opened, "subnet-00000000"]))
    assert {result.finding.split(":")[0]: result.state for result in found} == {
        "us-east-1 has no such subnet": "failed",
        closed: "failed",
        opened: "ok",
    }
    assert table in next(result for result in found if result.finding.startswith(closed)).to_do
    service = f"com.amazonaws.{REGION}.s3"
    account.ec2.create_vpc_endpoint(VpcId=vpc(account), ServiceName=service, RouteTableIds=[table])
    assert states(network.check_network(account.ec2, settings(subnets=[closed, opened]))) == ["ok", "ok"]


def vpc(account: Account) -> str:
    return account.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]


def open_network(account: Account) -> None:
    """Give the default network what it has on AWS, and not in moto: an internet gateway and a route to it."""
    gateway = account.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    account.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc(account))
    table = account.ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc(account)]}])["RouteTables"][0]
    account.ec2.create_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)


# --- prices ---


def test_prices_are_seen_for_the_markets_that_are_configured(account: Account, answers: Answers) -> None:
    found = launching.check_prices(account.ec2, settings(market="on-demand"), "us-east-1a")
    assert [(result.check, result.state) for result in found] == [("price on-demand", "ok")]
    assert found[0].finding == "m7i.2xlarge: $0.384 an hour"
    answers.give("GetProducts", {"PriceList": []})
    (unknown,) = launching.check_prices(account.ec2, settings(market="on-demand"), "us-east-1a")
    assert unknown.state == "unseen"
    assert len(launching.check_prices(account.ec2, settings(), "us-east-1a")) == 2


# --- the command ---


def check(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["ec2", "check", *arguments])
    return result.exit_code, result.stdout, result.stderr


def by_check(printed: str) -> dict[str, str]:
    return {result["check"]: result["state"] for result in json.loads(printed)}


def test_from_an_empty_account_to_one_that_is_ready(account: Account, answers: Answers) -> None:
    account.s3.delete_bucket(Bucket=BUCKET)
    code, printed, told = check()
    assert code == 1
    assert "→ aws s3 mb s3://audience --region us-east-1" in printed
    assert re.search(r"^failed +image +There is no image", printed, re.M)
    assert told == "\nLaunches would not work yet: 3 of 12 failed. 1 could not be seen.\n"

    account.s3.create_bucket(Bucket=BUCKET)
    open_network(account)
    image(account)
    no_profile = "Value (audience-explorer-instance) for parameter iamInstanceProfile.name is invalid."
    answers.refuse("RunInstances", "InvalidParameterValue", f"{no_profile} Invalid IAM Instance Profile name")
    code, printed, _ = check("--json")
    assert code == 1
    half = by_check(printed)
    assert {name for name, state in half.items() if state == "failed"} == {"launch spot", "launch on-demand"}
    assert half["quota spot"] == "warning"

    answers.give("RunInstances", would_launch)
    answers.give("GetServiceQuota", {"Quota": {"Value": 64.0}})
    code, printed, _ = check("--json")
    assert code == 0
    assert set(by_check(printed).values()) == {"ok"}
    assert check()[2] == "\nLaunches would work.\n"
    changing = ("Create", "Put", "Delete", "Modify", "Terminate")
    asked = [request for operation, request in answers.made if operation == "RunInstances"]
    assert all(request["DryRun"] for request in asked)
    before = len(answers.made)
    run_checks()
    assert not [operation for operation, _ in answers.made[before:] if operation.startswith(changing)]


@pytest.mark.usefixtures("account", "answers")
def test_settings_that_are_missing_fail_and_the_rest_is_not_called_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUDIENCE_EXPLORER_EC2_INSTANCE_PROFILE")
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", "data")
    code, printed, _ = check("--json")
    assert code == 1
    found = by_check(printed)
    assert (found["root"], found["settings"]) == ("failed", "failed")
    assert found["quotas, image, launches, network, prices"] == "unseen"
    assert "AUDIENCE_EXPLORER_EC2_INSTANCE_PROFILE: needed" in " ".join(printed.split())


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("last", ["identity", "region"])
def test_after_wrong_credentials_or_a_wrong_region_nothing_else_is_asked(
    answers: Answers, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    if last == "identity":
        answers.refuse("GetCallerIdentity", "InvalidClientTokenId", "The security token is invalid.", 403)
    else:
        monkeypatch.setenv("AWS_REGION", "eu-west-9")
    found = run_checks()
    assert [(result.check, result.state) for result in found[-2:]] == [(last, "failed"), ("everything else", "unseen")]
    assert {operation for operation, _ in answers.made} <= {"GetCallerIdentity", "DescribeRegions"}


def test_a_report_fits_a_terminal_and_keeps_commands_whole() -> None:
    results = [
        Result("region", "ok", "eu-west-1"),
        Result(
            "network", "failed", "no way " * 20, "aws ec2 create-vpc-endpoint --route-table-ids rtb-0123456789abcdef0"
        ),
    ]
    lines = as_report(results, 60).splitlines()
    assert max(len(re.sub(r"\x1b\[\d+m", "", line)) for line in lines) <= 60
    assert any("rtb-0123456789abcdef0" in line for line in lines)
    assert len(as_report(results, None).splitlines()) == 3
