"""EC2 as AWS has it, where moto leaves something out or answers in another way.

Each method of the two classes says what AWS does. Calls come in one at a time: `aws.Api` holds a lock over them.
"""

import base64
import contextlib
from collections.abc import Iterator
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any, cast

from moto.core.base_backend import BackendDict
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.responses import ActionResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError, InvalidAMIIdError, InvalidInstanceIdError, UnvailableAMIIdError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.amis import Ami
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance as InstanceRecord
from moto.ec2.models.instances import InstanceState, Reservation
from moto.ec2.responses import EC2Response
from moto.ec2.urls import url_bases
from moto.ec2.utils import random_ami_id, random_spot_request_id

from acceptance.sandbox.faults import Faults
from acceptance.sandbox.hypervisor import Hypervisor, Market, decoded, set_state
from acceptance.sandbox.prices import spot_price_history

ACCOUNT = DEFAULT_ACCOUNT_ID
REGION = "us-east-1"
CALLER_HEADER = "X-Sandbox-Caller"

_MAX_USER_DATA = 16384
_CONSOLE_BYTES = 64 * 1024


class Response(EC2Response):
    """How requests are answered."""

    hypervisor: Hypervisor  # set by `played_by`, as is what follows
    faults: Faults
    # RunInstances requests that went well, by client token, and what they gave.
    tokens: dict[str, tuple[dict[str, str], Reservation]]

    def run_instances(self) -> Any:
        asked = {name: values[0] for name, values in self.data.items() if name != "ClientToken"}
        token = self._get_param("ClientToken", "")
        # AWS answers a repeated request with what the first one gave, as it is now, and launches nothing; a token that
        # is used for another request is refused.
        if token in self.tokens:
            first_asked, reservation = self.tokens[token]
            if asked != first_asked:
                raise EC2ClientError(
                    "IdempotentParameterMismatch",
                    "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
                )
            return ActionResult(reservation)
        market: Market = "spot" if self._get_param("InstanceMarketOptions.MarketType") == "spot" else "on-demand"
        has_capacity = self.faults.has_capacity(self._get_param("InstanceType"), market)
        if not self._get_param("DryRun", False) and not has_capacity:
            return self._no_capacity(market)
        answer = super().run_instances()
        self.tokens[token] = (asked, cast(Reservation, answer.result))
        return answer

    def describe_instances(self) -> ActionResult:
        hidden = self._hidden()
        self._refuse_hidden(hidden)
        answer = super().describe_instances()
        for reservation in answer.result["Reservations"]:  # type: ignore[index]  # copies, made for this answer
            reservation.instances = [record for record in reservation.instances if record.id not in hidden]
        reservations = [r for r in answer.result["Reservations"] if r.instances]  # type: ignore[index]
        return ActionResult({**answer.result, "Reservations": reservations})  # type: ignore[dict-item]

    def describe_instance_status(self) -> ActionResult:
        hidden = self._hidden()
        self._refuse_hidden(hidden)
        answer = super().describe_instance_status()
        statuses = [record for record in answer.result["InstanceStatuses"] if record.id not in hidden]  # type: ignore[index]
        return ActionResult({"InstanceStatuses": statuses})

    def terminate_instances(self) -> ActionResult:
        self._refuse_hidden(self._hidden())
        answer = super().terminate_instances()
        # Of an instance that had ended before, AWS says `terminated`; moto that it shuts down.
        for ended in answer.result["TerminatingInstances"]:  # type: ignore[index]
            ended["CurrentState"] = self.ec2_backend.get_instance(ended["InstanceId"])._state
        return answer

    def get_console_output(self) -> ActionResult:
        # AWS gives the last 64 KB; moto a text of its own.
        instance = self.hypervisor.find(self.ec2_backend.get_instance(self._get_param("InstanceId")).id)
        output = instance.log.read_bytes()[-_CONSOLE_BYTES:] if instance.log.exists() else b""
        return ActionResult(
            {"InstanceId": instance.id, "Timestamp": utcnow(), "Output": base64.b64encode(output).decode()}
        )

    def describe_spot_price_history(self) -> ActionResult:
        # AWS has a price for each type and zone, which moves, and can be asked for one product, zone and time.
        products = self._get_param("ProductDescriptions", [])
        history = spot_price_history(
            self.region,
            self._get_param("InstanceTypes", []),
            self._get_param("AvailabilityZone"),
            _in_utc(self._get_param("StartTime")),
            _in_utc(self._get_param("EndTime")),
        )
        sold = not products or any(product.startswith("Linux/UNIX") for product in products)
        return ActionResult({"SpotPriceHistory": history if sold else []})

    def _no_capacity(self, market: Market) -> Any:
        """AWS's answer when it has no machine, which is an error of the server's: SDKs repeat such a request."""
        message = (
            "There is no Spot capacity available that matches your request."
            if market == "spot"
            else f"We currently do not have sufficient {self._get_param('InstanceType')} capacity in the Availability"
            " Zone you requested. Our system will be working on provisioning additional capacity."
        )
        _, headers, body = self.serialized(ActionResult(EC2ClientError("InsufficientInstanceCapacity", message)))
        return 500, {**headers, "status": 500}, body

    def _hidden(self) -> set[str]:
        """The instances that are not visible yet to whom asks."""
        if self.headers.get(CALLER_HEADER) == "operator":
            return set()
        return {instance.id for instance in self.hypervisor.instances if self.faults.hides(instance.age)}

    def _refuse_hidden(self, hidden: set[str]) -> None:
        if asked := [name for name in self._get_param("InstanceIds", []) if name in hidden]:
            raise InvalidInstanceIdError(asked)


class Backend(EC2Backend):
    """Instances whose state is that of a machine, and images that can be refused."""

    hypervisor: Hypervisor  # set by `played_by`, as is what follows
    faults: Faults

    # The service's table of urls, which moto looks for beside a backend's own module.
    _url_module = SimpleNamespace(url_bases=url_bases, url_paths={"{0}/": Response.dispatch})

    def _load_amis(self) -> None:
        """No images but those of the sandbox: moto's own would take seconds."""

    def run_instances(
        self,
        image_id: str,
        count: int,
        user_data: Base64EncodedString | None,
        security_group_names: list[str],
        **kwargs: Any,
    ) -> Reservation:
        instance_type, key_name = kwargs["instance_type"], kwargs.get("key_name")
        # AWS refuses types, images and key pairs that it does not know.
        if instance_type not in INSTANCE_TYPES:
            raise EC2ClientError("InvalidParameterValue", f"Invalid value '{instance_type}' for InstanceType.")
        image = self.amis.get(image_id)
        if image is None:
            raise InvalidAMIIdError(image_id)
        if image.state != "available":
            raise UnvailableAMIIdError(image_id)
        if key_name:
            self.describe_key_pairs(key_names=[key_name])
        # AWS takes at most 16 KB of user data.
        if len(decoded(user_data)) > _MAX_USER_DATA:
            raise EC2ClientError("InvalidParameterValue", "User data is limited to 16384 bytes")
        reservation = super().run_instances(image_id, count, user_data, security_group_names, **kwargs)
        for record in reservation.instances:
            # AWS starts machines after it answered: until then an instance is pending, and has no reason for its state.
            set_state(record, "pending")
            record.state_reason = None  # type: ignore[assignment]
            if record.lifecycle == "spot":
                # Behind a spot instance there is a request of its own.
                record.spot_instance_request_id = random_spot_request_id()  # type: ignore[attr-defined]
            self.hypervisor.launch(record, self.faults.take_orders())
        return reservation

    def terminate_instances(self, instance_ids: list[str]) -> list[tuple[InstanceRecord, InstanceState]]:
        # AWS ends machines after it answered; what has ended stays as it was.
        records = self.get_multi_instances_by_id(instance_ids)
        before = [(record, record._state) for record in records]
        for record in records:
            self.hypervisor.find(record.id).terminate()
        return before

    def stop_instances(self, instance_ids: list[str]) -> list[tuple[InstanceRecord, InstanceState]]:
        records = self.get_multi_instances_by_id(instance_ids)
        before = [(record, record._state) for record in records]
        for record in records:
            self.hypervisor.find(record.id).stop()
        return before

    def start_instances(self, instance_ids: list[str]) -> list[tuple[InstanceRecord, InstanceState]]:
        raise EC2ClientError("UnsupportedOperation", f"The sandbox starts no stopped instance again: {instance_ids}")

    def reboot_instances(self, instance_ids: list[str]) -> list[InstanceRecord]:
        raise EC2ClientError("UnsupportedOperation", f"The sandbox reboots no instance: {instance_ids}")

    def create_image(
        self, instance_id: str, name: str, description: str, tag_specifications: list[dict[str, Any]]
    ) -> Ami:
        # AWS refuses a name that an image of the same owner has.
        for other in self.amis.values():
            if other.name == name and other.owner_id == self.account_id:
                raise EC2ClientError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {other.id}")
        # AWS reboots a running instance for it; here it must have been stopped.
        if self.get_instance(instance_id).state != "stopped":
            raise EC2ClientError("IncorrectState", f"The sandbox makes images of stopped instances: {instance_id}")
        of_type = {spec["ResourceType"]: spec["Tags"] for spec in tag_specifications}
        snapshot_tags = of_type.pop("snapshot", [])
        rest = [{"ResourceType": kind, "Tags": tags} for kind, tags in of_type.items()]
        image = super().create_image(instance_id, name, description, rest)
        # AWS tags the snapshots as well; moto knows no such tags.
        image.ebs_snapshot.add_tags({tag["Key"]: tag["Value"] for tag in snapshot_tags})
        # The new image keeps the name of the root device, and is pending until its snapshot is made.
        image.root_device_name = self.get_instance(instance_id).root_device_name
        image.state = "pending"
        self.hypervisor.make_image(instance_id, image)
        return image

    def deregister_image(self, ami_id: str) -> None:
        # As on AWS, the snapshots of the image stay, and cost, until they are deleted.
        super().deregister_image(ami_id)
        self.hypervisor.forget_image(ami_id)

    def create_tags(self, resource_ids: list[str], tags: dict[str, str]) -> bool:
        done = super().create_tags(resource_ids, tags)
        for image in filter(None, map(self.amis.get, resource_ids)):
            self.hypervisor.image_changed(image)
        return bool(done)


@contextlib.contextmanager
def played_by(hypervisor: Hypervisor, faults: Faults) -> Iterator[Backend]:
    """Let moto's EC2 be this one, with a hypervisor's machines and with faults, for as long as the context lasts.

    All of moto's services begin empty, and are emptied at the end.
    """
    BackendDict.reset()
    ec2_backends.clear()  # the reset of another service, which looks at EC2, may have brought one back
    Backend.hypervisor = Response.hypervisor = hypervisor
    Backend.faults = Response.faults = faults
    Response.tokens = {}
    ec2_backends.backend = Backend
    try:
        yield cast(Backend, ec2_backends[ACCOUNT][REGION])
    finally:
        ec2_backends.backend = EC2Backend
        BackendDict.reset()


def register_image(
    backend: EC2Backend,
    name: str,
    image_id: str | None = None,
    description: str = "",
    tags: dict[str, str] | None = None,
    owner: str = ACCOUNT,
    owner_alias: str | None = None,
    created: datetime | None = None,
) -> Ami:
    """Make an image known that no instance was made into."""
    image = Ami(
        backend,
        image_id or random_ami_id(),
        name=name,
        description=description,
        owner_id=owner,
        owner_alias=owner_alias,
        public=owner != ACCOUNT,
        virtualization_type="hvm",
        architecture="x86_64",
        root_device_type="ebs",
        root_device_name="/dev/xvda",
        creation_date=created,
        tags=tags,
    )
    # As builds tag them.
    image.ebs_snapshot.add_tags(tags or {})
    backend.amis[image.id] = image
    return image


def _in_utc(moment: datetime | None) -> datetime | None:
    """moto's times have no zone."""
    return moment and moment.replace(tzinfo=timezone.utc)
