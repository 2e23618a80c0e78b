"""`audience-explorer ec2 check` on the way from an empty account to one that is ready, by the policies of this project.

What it prints in each state is kept for people to look at, in `ci-output/ec2-check`.
"""

import re
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from moto.ec2.models import ec2_backends

from acceptance.conftest import OUTPUT, PROJECT
from acceptance.ec2.conftest import NAMES, EC2Explorer
from acceptance.sandbox import Sandbox
from acceptance.sandbox.ec2 import ACCOUNT, REGION
from acceptance.sandbox.hypervisor import Market
from acceptance.sandbox.permissions import Permissions, Role


@pytest.fixture
def permissions() -> Permissions:
    """What the policies allow to somebody who launches and may check all of it."""
    iam = PROJECT / "ami" / "iam"
    return Permissions({"launcher": Role([iam / "launcher.json", iam / "check.json"], NAMES)}, NAMES)


class Account:
    """A person's account, which begins empty: a new one's quotas, and no bucket, role, image or network."""

    def __init__(self, sandbox: Sandbox):
        self._sandbox = sandbox
        self._s3, self._ec2, self._iam = (sandbox.client(service) for service in ("s3", "ec2", "iam"))
        self._images: dict[str, Any] = cast(Any, ec2_backends[ACCOUNT][REGION]).amis
        self._image = self._images.pop(sandbox.image)
        self._s3.delete_bucket(Bucket=sandbox.bucket)
        self._remove_profile()
        self._remove_network()
        self.have_quotas(5)

    def have_quotas(self, vcpus: int) -> None:
        markets: tuple[Market, ...] = ("spot", "on-demand")
        for market in markets:
            self._sandbox.faults.quota(market, vcpus)

    def make_bucket(self) -> None:
        self._s3.create_bucket(Bucket=self._sandbox.bucket)

    def have_image(self, days_old: int) -> None:
        self._image.creation_date = datetime.now() - timedelta(days=days_old)
        self._images[self._image.id] = self._image

    def make_network(self) -> None:
        """As `aws ec2 create-default-vpc` does; but moto's has no internet gateway, and so no way to S3."""
        self._ec2.create_default_vpc()

    def make_endpoint(self, command: str) -> None:
        """Do what a command says that makes an endpoint."""
        asked = dict(re.findall(r"(--\S+) (\S+)", command))
        self._ec2.create_vpc_endpoint(
            VpcId=asked["--vpc-id"],
            ServiceName=asked["--service-name"],
            RouteTableIds=[asked["--route-table-ids"]],
        )

    def make_profile(self) -> None:
        name = self._sandbox.instance_profile
        self._iam.create_instance_profile(InstanceProfileName=name)
        self._iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)

    def _remove_profile(self) -> None:
        name = self._sandbox.instance_profile
        self._iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name)
        self._iam.delete_instance_profile(InstanceProfileName=name)

    def _remove_network(self) -> None:
        for subnet in self._ec2.describe_subnets()["Subnets"]:
            self._ec2.delete_subnet(SubnetId=subnet["SubnetId"])
        for gateway in self._ec2.describe_internet_gateways()["InternetGateways"]:
            name, vpc = gateway["InternetGatewayId"], gateway["Attachments"][0]["VpcId"]
            self._ec2.detach_internet_gateway(InternetGatewayId=name, VpcId=vpc)
            self._ec2.delete_internet_gateway(InternetGatewayId=name)
        self._ec2.delete_security_group(GroupId=self._sandbox.security_group)
        for of in self._ec2.describe_vpcs()["Vpcs"]:
            self._ec2.delete_vpc(VpcId=of["VpcId"])


class Checked:
    """What the command has printed.

    Attributes:
        found: The state of each line that is not ok, by what was checked.
        fine: What was checked and is ok.
        summary: What it says of all of it.
    """

    def __init__(self, explorer: EC2Explorer, name: str):
        done = explorer.command("audience-explorer", "ec2", "check", ok=False)
        self.exit_code, self.summary, self._printed = done.returncode, done.stderr.strip(), done.stdout
        kept = OUTPUT / "ec2-check"
        kept.mkdir(parents=True, exist_ok=True)
        (kept / f"{name}.txt").write_text(f"{done.stdout}\n{self.summary}\n")
        lines = re.findall(r"^(ok|warning|unseen|failed) +(\S.*?)  +\S", done.stdout, re.M)
        self.found = {check: state for state, check in lines if state != "ok"}
        self.fine = {check for state, check in lines if state == "ok"}

    def to_do(self, check: str) -> str:
        """What the command says to do about a line."""
        found = re.search(rf"^\w+ +{re.escape(check)}  .*\n +→ (.*)", self._printed, re.M)
        assert found, f"{check}: no word of what to do:\n{self._printed}"
        return found[1]


def test_an_empty_account_one_that_is_half_set_up_and_one_that_is_ready(
    sandbox: Sandbox, explorer: EC2Explorer
) -> None:
    for name in ("INSTANCE_TYPES", "SUBNETS", "SECURITY_GROUPS"):
        del explorer.environment[f"AUDIENCE_EXPLORER_EC2_{name}"]  # the defaults, as on the first day
    account = Account(sandbox)
    assert_empty(Checked(explorer, "empty"))

    account.make_bucket()
    account.have_image(days_old=100)
    account.make_network()
    explorer.configure(instance_types="m7i.2xlarge")
    half = Checked(explorer, "half-set-up")
    assert_half_set_up(half)

    account.make_endpoint(half.to_do("network"))
    account.make_profile()
    account.have_image(days_old=0)
    account.have_quotas(64)
    ready = Checked(explorer, "ready")
    assert (ready.exit_code, ready.found, ready.summary) == (0, {}, "Launches would work.")
    assert ready.fine == half.fine | half.found.keys()
    assert sandbox.instances == []


def assert_empty(checked: Checked) -> None:
    assert checked.exit_code == 1
    assert checked.found == {
        "bucket audience": "failed",
        "quota spot": "warning",  # of the default types the smallest fit into it
        "quota on-demand": "warning",
        "image": "failed",
        "network": "failed",
        "launches": "unseen",
    }
    assert checked.fine == {"settings", "identity", "region", "instance types", "price spot", "price on-demand"}
    assert checked.summary == "Launches would not work yet: 3 of 12 failed. 1 could not be seen."
    assert checked.to_do("bucket audience") == "aws s3 mb s3://audience --region us-east-1"
    assert "--quota-code L-34B43A08 --desired-value 8 " in checked.to_do("quota spot")
    assert "--quota-code L-1216C47A --desired-value 8 " in checked.to_do("quota on-demand")
    assert "python -m ami build" in checked.to_do("image")
    assert "aws ec2 create-default-vpc" in checked.to_do("network")
    assert checked.to_do("launches") == "First mend the image."


def assert_half_set_up(checked: Checked) -> None:
    """Of what it needs, the account has all but a larger quota, a way to S3 and a role; its image is old."""
    assert checked.exit_code == 1
    assert checked.found == {
        "quota spot": "failed",
        "quota on-demand": "failed",
        "image": "warning",
        "network": "failed",
        "launch spot": "failed",
        "launch on-demand": "failed",
    }
    assert {"bucket audience", "bucket audience, encryption"} <= checked.fine
    assert checked.summary == "Launches would not work yet: 5 of 14 failed."
    assert "aws service-quotas request-service-quota-increase" in checked.to_do("quota spot")
    assert "python -m ami build" in checked.to_do("image")
    assert checked.to_do("network").startswith("aws ec2 create-vpc-endpoint ")
    assert "ami/iam/instance.json" in checked.to_do("launch on-demand")
