"""AWS on this machine, with everything real but the hardware: what the launcher is proven on, and what a contributor
without an account works with.

moto plays S3, EC2's API, SSM parameters and IAM; what it leaves out or answers wrongly is in `ec2` and `aws`. Each
instance that is launched becomes a machine, which runs its real user data, has a metadata service of its own and
reaches the API by a network that can be cut. What goes wrong on AWS can be ordered: see `faults`.

From the command line: `python -m acceptance.sandbox --help`.
"""

import contextlib
import shutil
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from moto.ssm.models import Parameter, ssm_backends

from acceptance.sandbox.aws import HOLD_SECONDS, Api, Call
from acceptance.sandbox.booted import BootedMode
from acceptance.sandbox.ec2 import ACCOUNT, REGION, Backend, played_by, register_image
from acceptance.sandbox.faults import Faults
from acceptance.sandbox.hypervisor import Hypervisor, Instance, Mode, NotPossible
from acceptance.sandbox.isolated import IsolatedMode
from acceptance.sandbox.light import LightMode
from acceptance.sandbox.machine import MachineFailed
from acceptance.sandbox.network import Listener
from acceptance.sandbox.permissions import Permissions
from acceptance.sandbox.roots import Roots
from ami.images import NAME

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["HOLD_SECONDS", "Call", "Faults", "Instance", "MachineFailed", "NotPossible", "Sandbox"]

DEBIAN_PARAMETER = "/aws/service/debian/release/13/latest/amd64"

_DEBIAN_ACCOUNT = "136693071363"  # Debian's own, https://wiki.debian.org/Cloud/AmazonEC2Image
_KEYS = {"AWS_ACCESS_KEY_ID": "sandbox", "AWS_SECRET_ACCESS_KEY": "sandbox"}


class Sandbox:
    """AWS on this machine, from `with` to its end. A process has one at a time.

    Args:
        folder: For the instances' files; their logs stay there.
        isolated: Each machine has a root, processes and a network of its own, which needs root; if false, machines are
            process trees on this machine's root.
        cache: A folder to keep Debian's root and the images that were built in, so that a later sandbox has them, too;
            isolated only.
        permissions: What launching processes and instances may do; all, if left out.
        booted: Isolated machines of this project's images boot with systemd and cloud-init.

    Attributes:
        environment: For launching processes: by it they find this AWS.
        bucket: The name of a bucket that exists.
        subnets: Two subnets, in two zones.
        security_group: The id of one.
        instance_profile: The name of one, with a role.
        base_image: The id of the Debian 13 image, to which Debian's SSM parameter leads.
        faults: What can be made to go wrong.
    """

    def __init__(
        self,
        folder: Path,
        isolated: bool = False,
        cache: Path | None = None,
        permissions: Permissions | None = None,
        booted: bool = False,
    ):
        self.faults = Faults()
        self.bucket = "audience"
        self.instance_profile = "audience-explorer-instance"
        self._folder = folder.resolve()
        self._lock = threading.RLock()
        self._api = Api(self.faults, self._lock, permissions)
        # Roots that are not kept take gigabytes, and go with the sandbox.
        self._roots = self._folder / "roots" if isolated and cache is None else None
        self._mode: Mode = LightMode(self._api)
        if isolated:
            folder_of_roots = cache or self._folder / "roots"
            roots = Roots(folder_of_roots)
            self._mode = (
                BootedMode(self._api, roots, folder_of_roots / "systems") if booted else IsolatedMode(self._api, roots)
            )
        self._hypervisor = Hypervisor(self._folder / "instances", self._mode, self._lock)
        self._stack = contextlib.ExitStack()
        self._clients: dict[str, Any] = {}

    def __enter__(self) -> "Sandbox":
        with contextlib.ExitStack() as stack:
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._roots is not None:
                stack.callback(shutil.rmtree, self._roots, ignore_errors=True)
            backend = stack.enter_context(played_by(self._hypervisor, self.faults))
            operator = Listener(self._api.app_for("operator"))
            stack.callback(operator.close)
            launcher = Listener(self._api.app_for("launcher"))
            stack.callback(launcher.close)
            stack.callback(self._hypervisor.close)
            self._operator_url = operator.url
            self.environment = {
                "AWS_ENDPOINT_URL": launcher.url,
                "AWS_ALLOW_HTTP": "true",
                "AWS_REGION": REGION,
                "AWS_DEFAULT_REGION": REGION,
                "AWS_EC2_METADATA_DISABLED": "true",  # this machine is none of the instances
                **_KEYS,
            }
            self._furnish(backend)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self._stack.close()

    @property
    def instances(self) -> list[Instance]:
        """All instances that were launched, in order."""
        return self._hypervisor.instances

    @property
    def calls(self) -> list[Call]:
        """The API calls of launching processes, in order, also those that were refused."""
        return self._api.calls

    @property
    def image(self) -> str:
        """The newest of the project's images.

        Raises:
            LookupError: There is none: in the isolated mode one must be built first.
        """
        found = self.client("ec2").describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": [f"{NAME}*"]}])
        ready = [image for image in found["Images"] if image["State"] == "available"]
        if not ready:
            raise LookupError("the sandbox has no image of this project yet. Build one: python -m ami build")
        newest = max(ready, key=lambda image: (image["CreationDate"], image["Name"]))
        return str(newest["ImageId"])

    def client(self, service: str) -> Any:
        """A boto3 client of the operator's: no fault concerns it, and its calls are not counted."""
        if service not in self._clients:
            self._clients[service] = boto3.client(  # type: ignore[call-overload]
                service,
                region_name=REGION,
                endpoint_url=self._operator_url,
                aws_access_key_id=_KEYS["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=_KEYS["AWS_SECRET_ACCESS_KEY"],
                config=Config(retries={"total_max_attempts": 1}),
            )
        return self._clients[service]

    def layers(self, image_id: str) -> list[Path]:
        """The folders that make up the root of a machine that boots, from the top."""
        assert isinstance(self._mode, BootedMode)
        return self._mode.layers(image_id)

    def on_put(self, text: str, do: Callable[[Instance], None]) -> None:
        """Do something once, when an instance has stored an object whose key contains a text, or one below
        `…/messages/` that contains it. The instance gets its answer when that is done, or after `HOLD_SECONDS`."""
        self._api.on_put(text, lambda instance_id: do(self._hypervisor.find(instance_id)))

    def _furnish(self, backend: Backend) -> None:
        """Make what an account has before anything is launched."""
        self.client("s3").create_bucket(Bucket=self.bucket)
        ec2, iam = self.client("ec2"), self.client("iam")
        subnets = sorted(ec2.describe_subnets()["Subnets"], key=lambda subnet: subnet["AvailabilityZone"])
        self.subnets: list[str] = [subnet["SubnetId"] for subnet in subnets[:2]]
        self._open_network(subnets[0]["VpcId"])
        group = ec2.create_security_group(
            GroupName="audience-explorer", Description="no way in", VpcId=subnets[0]["VpcId"]
        )
        self.security_group: str = group["GroupId"]
        iam.create_role(RoleName=self.instance_profile, AssumeRolePolicyDocument="{}")
        iam.create_instance_profile(InstanceProfileName=self.instance_profile)
        iam.add_role_to_instance_profile(InstanceProfileName=self.instance_profile, RoleName=self.instance_profile)
        self.base_image = self._register_debian(backend)
        self._mode.register_images(backend)

    def _open_network(self, vpc: str) -> None:
        """Give the default network what it has on AWS, and not in moto: an internet gateway, and a route to it."""
        ec2 = self.client("ec2")
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        (table,) = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
        table_id = table["RouteTableId"]
        ec2.create_route(RouteTableId=table_id, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)

    @staticmethod
    def _register_debian(backend: Backend) -> str:
        """Debian 13's official image, and the public parameter that leads to it, which moto has not."""
        name = "debian-13-amd64-20260101-0000"
        image = register_image(backend, name, description="Debian 13", owner=_DEBIAN_ACCOUNT, owner_alias="amazon")
        parameters = ssm_backends[ACCOUNT][REGION]._parameters
        parameters[DEBIAN_PARAMETER].append(
            Parameter(  # type: ignore[abstract]
                account_id=ACCOUNT,
                name=DEBIAN_PARAMETER,
                value=image.id,
                parameter_type="String",
                description=None,
                allowed_pattern=None,
                keyid=None,
                last_modified_date=datetime.now(timezone.utc),
                version=1,
                data_type="text",
            )
        )
        return str(image.id)
