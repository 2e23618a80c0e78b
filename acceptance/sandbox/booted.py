"""The booted mode: isolated machines on which systemd is process 1, and cloud-init runs the user data, as on EC2.

systemd-nspawn plays the hardware and the kernel's start. The rest is Debian's: units and their hardening, cgroups, the
journal, `shutdown`.

What differs from EC2: cloud-init finds the user data in a seed (NoCloud), not by the metadata service; the kernel is
this machine's, with a limit of memory for the whole machine in place of less memory; /scratch has no disks of its own;
there are no network cards to set up.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from acceptance.sandbox.aws import Api
from acceptance.sandbox.hypervisor import Instance, NotPossible
from acceptance.sandbox.isolated import IsolatedMachine, IsolatedMode
from acceptance.sandbox.machine import MachineFailed
from acceptance.sandbox.roots import Roots

_ADD_SYSTEM = Path(__file__).with_name("add_system.sh")
_BOOT_ROOT = Path(__file__).with_name("boot_root.sh")


class BootedMode(IsolatedMode):
    """Isolated machines that boot; builders of images do not.

    Args:
        api: What the machines reach.
        roots: The roots of images.
        systems: A folder for what is added to them.

    Raises:
        NotPossible: This machine can't have such machines.
    """

    def __init__(self, api: Api, roots: Roots, systems: Path):
        super().__init__(api, roots)
        if shutil.which("systemd-nspawn") is None:
            raise NotPossible("the booted mode lacks systemd-nspawn (Debian: systemd-container)")
        self._systems = systems

    def _make(self, instance: Instance, user_data: bytes, environment: Mapping[str, str]) -> IsolatedMachine:
        if self._roots.is_debian(instance.about.image_id):
            return super()._make(instance, user_data, environment)
        return BootedMachine(
            instance.id,
            instance.folder,
            instance.log,
            user_data,
            instance.orders.limits,
            environment,
            layers=self.layers(instance.about.image_id),
            host_name=instance.about.private_dns_name.split(".")[0],
            is_builder=False,
        )

    def layers(self, image_id: str) -> list[Path]:
        """The folders that make up the root of a machine that boots, from the top; made at its first use."""
        below = self._roots.layers(image_id)
        return [add_system(below, self._systems / image_id), *below]


def add_system(below: Sequence[Path], folder: Path) -> Path:
    """The layer that makes a root one that boots: packages from Debian's mirrors, at its first use.

    Raises:
        MachineFailed: The packages can't be had.
    """
    layer = folder / "layer"
    if not layer.exists():
        draft = folder.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        command = ["unshare", "--mount", "sh", str(_ADD_SYSTEM), ":".join(map(str, below)), str(draft)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise MachineFailed(f"no system could be added: {made.stdout[-1000:]}{made.stderr[-1000:]}")
        draft.rename(folder)
    return layer


class BootedMachine(IsolatedMachine):
    """A root on which systemd is process 1.

    Attributes:
        shown: Folders of this machine, and where that one has them, to be read only.
    """

    shown: Mapping[Path, str] = MappingProxyType({})

    def _command(self) -> list[str]:
        # What user data has on EC2 comes from the image and the metadata; where AWS is, this alone says.
        given = [f"systemd.setenv={name}={value}" for name, value in self._environment.items() if "AWS" in name]
        shown = [f"--bind-ro={here}:{there}" for here, there in self.shown.items()]
        return [
            *("unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"),
            *("sh", str(_BOOT_ROOT), str(self.folder), ":".join(map(str, self._layers)), self._host_name),
            *(*shown, "--boot", *given),
        ]


def read_journal(folder: Path, *options: str) -> str:
    """What the journal of a machine says, by the machine's folder."""
    command = ["journalctl", "--no-pager", "--output=short-monotonic", f"--directory={folder / 'journal'}", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "TZ": "UTC"}).stdout
