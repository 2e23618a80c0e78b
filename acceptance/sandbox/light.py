"""The light mode: machines are process trees on this machine's own root, which needs no root rights."""

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from platform import python_version
from shlex import quote

import psutil
from moto.core.utils import utcnow
from moto.ec2.models import EC2Backend
from moto.ec2.models.amis import Ami

from acceptance.sandbox.aws import Api
from acceptance.sandbox.ec2 import register_image
from acceptance.sandbox.hypervisor import Instance, Mode
from acceptance.sandbox.machine import ENVIRONMENT, FIRST_PROCESS, Limits, Machine, MachineFailed
from acceptance.sandbox.metadata_service import MetadataService
from acceptance.sandbox.network import Listener
from ami.images import NAME, tags_of
from spark_jobs import REQUIRES

_AMI = Path(__file__).parents[2] / "ami"
_MARKER = "AUDIENCE_EXPLORER_SANDBOX_MACHINE"


class LightMode(Mode):
    """Every image is this machine's own root, so that making one keeps nothing."""

    def __init__(self, api: Api):
        self._api = api

    def register_images(self, backend: EC2Backend) -> None:
        """One image, of today, which holds what this Python has."""
        dependencies = {name: _version(name) for name in REQUIRES}
        register_image(backend, f"{NAME}{utcnow():%Y-%m-%d}", tags=tags_of(python_version(), dependencies))

    @contextlib.contextmanager
    def machine(self, instance: Instance, user_data: bytes) -> Iterator[Machine]:
        if not instance.about.ec2_backend.amis[instance.about.image_id].name.startswith(NAME):
            raise MachineFailed("on this machine's own root a builder would provision this machine: not with --light")
        with contextlib.ExitStack() as stack:
            api = Listener(self._api.app_for("instance", instance.id))
            stack.callback(api.close)
            metadata_service = Listener(MetadataService(instance))
            stack.callback(metadata_service.close)
            environment = {
                "AWS_ENDPOINT_URL": api.url,
                "AWS_ALLOW_HTTP": "true",
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata_service.url,
            }
            machine = LightMachine(
                instance.id, instance.folder, instance.log, user_data, instance.orders.limits, environment
            )
            stack.callback(machine.close)
            yield machine

    def keep_image(self, instance: Instance, image: Ami) -> None: ...

    def image_changed(self, image: Ami) -> None: ...

    def forget_image(self, image_id: str) -> None: ...

    def delete_disk(self, instance: Instance) -> None:
        for part in ("scratch", "tmp"):
            shutil.rmtree(instance.folder / part, ignore_errors=True)

    def close(self) -> None: ...


class LightMachine(Machine):
    """A process tree on this machine's own root: what is on its path and where it may write is its own.

    It runs as the user who runs the sandbox, and sees this machine's files, processes and network. Were the sandbox
    itself killed with signal 9, of a light machine only the first process would end.
    """

    def __init__(
        self, name: str, folder: Path, console: Path, user_data: bytes, limits: Limits, environment: Mapping[str, str]
    ):
        programs, home, self._scratch, tmp = (folder / part for part in ("bin", "home", "scratch", "tmp"))
        for part in (programs, home, self._scratch, tmp):
            part.mkdir(parents=True)
        (programs / "shutdown").write_text(f'#!/bin/sh\nkill -TERM "$(cat {quote(str(folder))}/first-process)"\n')
        (programs / "shutdown").chmod(0o755)
        (programs / "audience-explorer-boot").symlink_to(_AMI / "audience-explorer-boot")
        (home / "venv").symlink_to(sys.prefix)
        (home / "boot.py").symlink_to(_AMI / "boot.py")
        own = {
            "PATH": f"{programs}:{ENVIRONMENT['PATH']}",
            "AUDIENCE_EXPLORER_HOME": str(home),
            "AUDIENCE_EXPLORER_SCRATCH": str(self._scratch),
            "AUDIENCE_EXPLORER_USER": "root",  # if root it is, for this machine has no user for jobs
            "TMPDIR": str(tmp),
            _MARKER: name,
        }
        super().__init__(name, folder, console, user_data, limits, {**environment, **own})

    def processes(self) -> Iterator[psutil.Process]:
        # Not `process_iter`, which may give a process that ended before for one that has its number now.
        for pid in psutil.pids():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if process.environ().get(_MARKER) == self.name and process.status() != psutil.STATUS_ZOMBIE:
                    yield process

    def _command(self) -> list[str]:
        first = ["sh", str(FIRST_PROCESS), str(self._script), str(self.folder / "first-process")]
        if self.limits.disk is None:
            return first
        mount = f'mount -t tmpfs -o size={self.limits.disk} tmpfs "$0" && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mount, str(self._scratch), *first]

    def _disk_inside(self) -> str:
        return str(self._scratch)


def _version(distribution: str) -> str:
    """The version that a distribution has here."""
    return metadata.version(distribution)
