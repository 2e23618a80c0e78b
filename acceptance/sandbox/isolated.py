"""The isolated mode: each machine has a root, processes, a host name and a network of its own. It needs root rights.

An instance's root is that of its image, and over it a layer for what the instance writes. Its network has nothing but
the metadata service, at the address where it is on AWS, and the API. Builders, that is, instances of Debian's own
image, need packages: they have this machine's network instead, with its certificate authorities, pip configuration and
proxies, and so must be told by a variable where their metadata service is.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
from moto.ec2.models import EC2Backend
from moto.ec2.models.amis import Ami

from acceptance.sandbox.aws import Api
from acceptance.sandbox.ec2 import register_image
from acceptance.sandbox.hypervisor import Instance, Mode, NotPossible
from acceptance.sandbox.machine import FIRST_PROCESS, Limits, Machine
from acceptance.sandbox.metadata_service import MetadataService
from acceptance.sandbox.network import METADATA_ADDRESS, Listener, leave_host_network
from acceptance.sandbox.roots import Roots, created_at

_ENTER_ROOT = Path(__file__).with_name("enter_root.sh")
_TOOLS = ("debootstrap", "unshare", "setpriv", "ip")
_OF_BUILDERS = re.compile(r"PIP_\w+|\w+_CA_BUNDLE|SSL_CERT_FILE|(http|https|all|no)_proxy", re.IGNORECASE)


class IsolatedMode(Mode):
    """Machines with a root of their own.

    Args:
        api: What the machines reach.
        roots: The roots of images.

    Raises:
        NotPossible: This machine can't have such machines.
    """

    def __init__(self, api: Api, roots: Roots):
        if os.geteuid() != 0:
            raise NotPossible("the isolated mode needs root; the light one does not")
        if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
            raise NotPossible(f"the isolated mode lacks {', '.join(missing)} (Debian: debootstrap iproute2 util-linux)")
        self._api, self._roots = api, roots

    def register_images(self, backend: EC2Backend) -> None:
        """The images that were kept."""
        for image in self._roots.images():
            register_image(backend, image.name, image.id, image.description, tags=image.tags, created=created_at(image))

    @contextlib.contextmanager
    def machine(self, instance: Instance, user_data: bytes) -> Iterator[Machine]:
        api, metadata_service = self._api.app_for("instance", instance.id), MetadataService(instance)
        is_builder = self._roots.is_debian(instance.about.image_id)
        with contextlib.ExitStack() as stack:
            if is_builder:
                listeners = [Listener(api), Listener(metadata_service)]
                environment = {
                    **{name: value for name, value in os.environ.items() if _OF_BUILDERS.fullmatch(name)},
                    "AWS_EC2_METADATA_SERVICE_ENDPOINT": listeners[1].url,
                }
            else:
                leave_host_network()
                listeners = [Listener(api), Listener(metadata_service, METADATA_ADDRESS, 80)]
                environment = {}
            for listener in listeners:
                stack.callback(listener.close)
            environment |= {"AWS_ENDPOINT_URL": listeners[0].url, "AWS_ALLOW_HTTP": "true"}
            machine = self._make(instance, user_data, environment)
            stack.callback(machine.close)
            yield machine

    def _make(self, instance: Instance, user_data: bytes, environment: Mapping[str, str]) -> "IsolatedMachine":
        return IsolatedMachine(
            instance.id,
            instance.folder,
            instance.log,
            user_data,
            instance.orders.limits,
            environment,
            layers=self._roots.layers(instance.about.image_id),
            host_name=instance.about.private_dns_name.split(".")[0],
            is_builder=self._roots.is_debian(instance.about.image_id),
        )

    def keep_image(self, instance: Instance, image: Ami) -> None:
        self._roots.keep(image, instance.folder / "disk" / "upper")

    def image_changed(self, image: Ami) -> None:
        self._roots.save(image)

    def forget_image(self, image_id: str) -> None:
        self._roots.forget(image_id)

    def delete_disk(self, instance: Instance) -> None:
        shutil.rmtree(instance.folder / "disk", ignore_errors=True)

    def close(self) -> None:
        self._roots.close()


class IsolatedMachine(Machine):
    """Processes in namespaces of their own: with the first of them, all end, and so do the mounts they see.

    Args:
        layers: The folders that make up the root, from the top.
        host_name: Its name.
        is_builder: Whether it has this machine's network.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        console: Path,
        user_data: bytes,
        limits: Limits,
        environment: Mapping[str, str],
        layers: Sequence[Path],
        host_name: str,
        is_builder: bool,
    ):
        super().__init__(name, folder, console, user_data, limits, environment)
        self._layers, self._host_name, self._is_builder = layers, host_name, is_builder
        self._namespace: int | None = None

    def start(self) -> None:
        super().start()
        assert self._process is not None
        with contextlib.suppress(OSError):  # it may have ended already
            self._namespace = os.stat(f"/proc/{self._process.pid}/ns/pid_for_children").st_ino

    def processes(self) -> Iterator[psutil.Process]:
        for pid in psutil.pids():
            with contextlib.suppress(OSError, psutil.Error):
                if os.stat(f"/proc/{pid}/ns/pid").st_ino == self._namespace:
                    yield psutil.Process(pid)

    def _command(self) -> list[str]:
        return [
            *("unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child"),
            *("sh", str(_ENTER_ROOT), str(self.folder), ":".join(map(str, self._layers)), self._host_name),
            *(str(self.limits.disk or ""), "builder" if self._is_builder else "", str(FIRST_PROCESS)),
        ]

    def _disk_inside(self) -> str:
        return "/var/tmp"
