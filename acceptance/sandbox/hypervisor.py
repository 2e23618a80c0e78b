"""Gives each instance of EC2's a machine, and tells EC2 what becomes of it."""

import base64
import threading
import time
import traceback
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2.models import EC2Backend
from moto.ec2.models.amis import Ami
from moto.ec2.models.instances import Instance as InstanceRecord
from moto.ec2.models.instances import InstanceState, StateReason
from moto.iam.models import iam_backends

from acceptance.sandbox.machine import Limits, Machine

Market = Literal["spot", "on-demand"]

STATES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}

NEVER_BOOTS = b"#!/bin/sh\necho 'this boot never finishes'\nexec sleep infinity\n"
_PENDING_SECONDS = 0.5  # how long an instance is pending that will have no capacity


class NotPossible(Exception):
    """A fault can't be played on this instance or this machine."""


@dataclass(frozen=True)
class Orders:
    """What was ordered for the next instance."""

    limits: Limits = field(default_factory=Limits)
    loses_capacity: bool = False
    never_boots: bool = False


class Mode(ABC):
    """A way to have machines."""

    @abstractmethod
    def register_images(self, backend: EC2Backend) -> None:
        """Make this project's images known to EC2, as far as there are any."""

    @abstractmethod
    def machine(self, instance: "Instance", user_data: bytes) -> AbstractContextManager[Machine]:
        """The machine of an instance; at the end of the context nothing of it runs. Used from the instance's thread."""

    @abstractmethod
    def keep_image(self, instance: "Instance", image: Ami) -> None:
        """Let an instance's disk be an image's."""

    @abstractmethod
    def delete_disk(self, instance: "Instance") -> None:
        """Delete what an instance wrote."""

    @abstractmethod
    def image_changed(self, image: Ami) -> None:
        """Note that an image has other tags."""

    @abstractmethod
    def forget_image(self, image_id: str) -> None:
        """Note that an image is not used any more."""

    @abstractmethod
    def close(self) -> None:
        """Tidy up when the last machine has ended."""


@dataclass(frozen=True)
class _Ending:
    """Why an instance ends, in AWS's words.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html
    """

    code: str
    message: str
    by: str = ""  # who initiated it, where AWS says so


_BY_USER = _Ending("Client.UserInitiatedShutdown", "User initiated shutdown", "User initiated")
_FROM_INSIDE = _Ending("Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
_INTERRUPTED = _Ending("Server.SpotInstanceTermination", "Spot instance termination", "Service initiated")
_NO_CAPACITY = _Ending("Server.InsufficientInstanceCapacity", "Insufficient capacity to satisfy instance request")
_NOT_STARTED = _Ending("Server.InternalError", "Internal error on launch")


class Instance:
    """An instance that was launched, and its machine.

    Attributes:
        id: Its id.
        type: Its type.
        market: `spot` or `on-demand`.
        user_data: Its user data, decoded.
        log: The file to which its machine prints.
        notice: When it will be interrupted, once that is announced.
        about: moto's record of it.
    """

    def __init__(self, record: InstanceRecord, folder: Path, orders: Orders, mode: Mode, lock: threading.RLock):
        self.about = record
        self.id: str = record.id
        self.type: str = record.instance_type
        self.market: Market = "spot" if record.lifecycle == "spot" else "on-demand"
        self.user_data = decoded(record.user_data)
        self.folder = folder
        self.log = folder / "console.log"
        self.orders = orders
        self.notice: datetime | None = None
        self._mode, self._lock = mode, lock
        self._launched = time.monotonic()
        self._machine: Machine | None = None
        self._ending: _Ending | None = None
        self._ends_as = "terminated"
        self._thread = threading.Thread(target=self._live, name=self.id, daemon=True)
        folder.mkdir(parents=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<{self.id} {self.type} {self.market} {self.state}>"

    @property
    def state(self) -> str:
        """`pending`, `running`, `shutting-down`, `terminated`, `stopping` or `stopped`."""
        return str(self.about.state)

    @property
    def tags(self) -> dict[str, str]:
        """Its tags."""
        with self._lock:
            return {tag["key"]: tag["value"] for tag in self.about.get_tags()}

    @property
    def role(self) -> str | None:
        """The role of its instance profile."""
        arn = (self.about.iam_instance_profile or {}).get("Arn")
        profiles = iam_backends[self.about.owner_id]["aws"].instance_profiles.values()
        return next((profile.roles[0].name for profile in profiles if profile.arn == arn and profile.roles), None)

    @property
    def reaches_s3(self) -> bool:
        """Whether it has a way to S3: an endpoint, or a public address, for an internet gateway serves no other."""
        backend = self.about.ec2_backend
        endpoints = backend.vpc_end_points.values()
        has_endpoint = any(of.vpc_id == self.about.vpc_id and of.service_name.endswith(".s3") for of in endpoints)
        return has_endpoint or bool(self.about.nics[0].public_ip)

    @property
    def age(self) -> float:
        """Seconds since its launch."""
        return time.monotonic() - self._launched

    @property
    def running_machine(self) -> Machine:
        """Its machine.

        Raises:
            NotPossible: It does not run.
        """
        machine = self._machine
        if machine is None or self.state != "running":
            raise NotPossible(f"{self.id} is {self.state}, not running")
        return machine

    def wait_until(self, state: str, seconds: float = 180) -> None:
        """Wait until it is in a state. The limit ends what hangs; busy machines take long for what takes a moment.

        Raises:
            TimeoutError: It is not for so long; the message holds what its machine printed.
        """
        deadline = time.monotonic() + seconds
        while self.state != state:
            if time.monotonic() > deadline:
                printed = self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""
                raise TimeoutError(f"{self.id} is {self.state}, not {state}, after {seconds} s. It printed:\n{printed}")
            time.sleep(0.02)

    def terminate(self) -> None:
        """Terminate it, as TerminateInstances does."""
        self._end(_BY_USER, "terminated")

    def stop(self) -> None:
        """Stop it, as StopInstances does."""
        self._end(_BY_USER, "stopped")

    def interrupt(self, at: datetime) -> None:
        """Announce its interruption, and terminate it then."""
        self.notice = at
        seconds = (at - datetime.now(timezone.utc)).total_seconds()
        timer = threading.Timer(seconds, self._end, (_INTERRUPTED, "terminated"))
        timer.daemon = True
        timer.start()

    def join(self) -> None:
        """Wait until nothing is left of it but its record."""
        self._thread.join()

    def _live(self) -> None:
        try:
            with self._lock:
                pass  # until the request that launches it is done
            if self.orders.loses_capacity:
                time.sleep(_PENDING_SECONDS)
                self._end(_NO_CAPACITY, "terminated")
            else:
                self._run()
        except Exception:
            with self.log.open("a") as console:
                traceback.print_exc(file=console)
            self._end(_NOT_STARTED, "terminated")
        self._tell_end()

    def _run(self) -> None:
        with self._mode.machine(self, NEVER_BOOTS if self.orders.never_boots else self.user_data) as machine:
            machine.start()
            with self._lock:
                self._machine = machine
                if self._ending is None:
                    set_state(self.about, "running")
                else:
                    machine.power_off()
            machine.wait()
            inside = {"terminate": "terminated", "stop": "stopped"}
            self._end(_FROM_INSIDE, inside[self.about.instance_initiated_shutdown_behavior])

    def _end(self, ending: _Ending, state: str) -> None:
        """Let it end, if it does not already."""
        with self._lock:
            is_off = self.state == "stopped"
            if self._ending is not None and not (is_off and state == "terminated"):
                return
            self._ending, self._ends_as = ending, state
            if is_off:
                self._tell_end()
                return
            set_state(self.about, {"terminated": "shutting-down", "stopped": "stopping"}[state])
            if self._machine is not None:
                self._machine.power_off()

    def _tell_end(self) -> None:
        """Tell EC2 that it is off, and why."""
        with self._lock:
            assert self._ending is not None
            if self._ends_as == "stopped":
                self.about.stop()
            else:
                self.about.terminate()  # which deletes its volumes, too
            set_state(self.about, self._ends_as)
            ending = self._ending
            # moto says of each that a user did it.
            self.about.state_reason = StateReason(f"{ending.code}: {ending.message}", ending.code)
            self.about._reason = f"{ending.by} ({utcnow():%Y-%m-%d %H:%M:%S} GMT)" if ending.by else ""
            if self._ends_as == "terminated":
                self._mode.delete_disk(self)


def decoded(user_data: Base64EncodedString | None) -> bytes:
    """User data as it was before its transport."""
    return base64.b64decode(str(user_data)) if user_data else b""


def set_state(record: InstanceRecord, name: str) -> None:
    """Change an instance's state; a response that was given the former one keeps it."""
    record._state = InstanceState(name, STATES[name])


class Hypervisor:
    """All instances that were launched, in order."""

    def __init__(self, folder: Path, mode: Mode, lock: threading.RLock):
        self._folder, self._mode, self._lock = folder, mode, lock
        self._instances: dict[str, Instance] = {}

    @property
    def instances(self) -> list[Instance]:
        """The instances, in the order of their launch."""
        with self._lock:
            return list(self._instances.values())

    def find(self, instance_id: str) -> Instance:
        """The instance of an id."""
        return self._instances[instance_id]

    def launch(self, record: InstanceRecord, orders: Orders) -> None:
        """Give a new instance its machine."""
        folder = self._folder / record.id
        self._instances[record.id] = Instance(record, folder, orders, self._mode, self._lock)

    def make_image(self, instance_id: str, image: Ami) -> None:
        """Make an image of a stopped instance's disk, which is available when that is done."""

        def make() -> None:
            try:
                self.find(instance_id).join()
                self._mode.keep_image(self.find(instance_id), image)
            except Exception:
                traceback.print_exc()
                image.state = "failed"
            else:
                image.state = "available"

        threading.Thread(target=make, name=image.id, daemon=True).start()

    def image_changed(self, image: Ami) -> None:
        """Note that an image has other tags."""
        self._mode.image_changed(image)

    def forget_image(self, image_id: str) -> None:
        """Note that an image was deregistered."""
        self._mode.forget_image(image_id)

    def close(self) -> None:
        """End all instances, and wait until nothing of them is left."""
        for instance in self.instances:
            instance.terminate()
        for instance in self.instances:
            instance.join()
        self._mode.close()
