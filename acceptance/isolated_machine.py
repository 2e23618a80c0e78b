"""Each machine of the isolated sandbox has its own root, processes, network, memory and disk; images are made of it.

It takes a minute, for debootstrap makes Debian's root from nothing, and needs root.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acceptance.conftest import isolated_sandbox
from acceptance.sandbox import Instance, Sandbox

pytestmark = pytest.mark.isolated

# The installed SDK is older than AWS_ENDPOINT_URL, which today's look up by themselves.
USE_AWS = """\
python3 - <<'END'
import os, boto3
from botocore.utils import InstanceMetadataRegionFetcher
region = InstanceMetadataRegionFetcher().retrieve_region()
s3 = boto3.client("s3", region_name=region, endpoint_url=os.environ["AWS_ENDPOINT_URL"])
print("credentials:", boto3.Session().get_credentials().method)
s3.put_object(Bucket="audience", Key="from/instance", Body=b"here")
print("region:", region)
END
"""


class Machines:
    """Runs user data on instances."""

    def __init__(self, sandbox: Sandbox):
        self.sandbox = sandbox
        self.ec2: Any = sandbox.client("ec2")

    def start(self, script: str, image: str, at_shutdown: str = "terminate") -> Instance:
        """Launch an instance."""
        self.ec2.run_instances(
            ImageId=image,
            InstanceType="m5.large",
            MinCount=1,
            MaxCount=1,
            UserData=f"#!/bin/sh\n{script}",
            IamInstanceProfile={"Name": self.sandbox.instance_profile},
            InstanceInitiatedShutdownBehavior=at_shutdown,
        )
        return self.sandbox.instances[-1]

    def output(self, script: str, image: str) -> str:
        """What a script prints on an instance that is shut down after it."""
        instance = self.start(f"{script}\nshutdown -h now\n", image)
        instance.wait_until("terminated")
        return instance.log.read_text()

    def make_image(self, script: str, base: str, name: str) -> str:
        """An image of what a script makes of another one."""
        builder = self.start(f"{script}\nshutdown -h now\n", base, at_shutdown="stop")
        builder.wait_until("stopped", 1800)
        print(builder.log.read_text())
        tags = [{"ResourceType": "image", "Tags": [{"Key": "made", "Value": "here"}]}]
        image = self.ec2.create_image(InstanceId=builder.id, Name=name, TagSpecifications=tags)["ImageId"]
        self.ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig={"Delay": 0.2})
        self.ec2.terminate_instances(InstanceIds=[builder.id])
        return str(image)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where images are kept."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Machines]:
    """An isolated sandbox's."""
    with isolated_sandbox(tmp_path_factory.mktemp("sandbox"), cache) as sandbox:
        yield Machines(sandbox)
        instances = sandbox.instances
    assert_nothing_left(instances)


@pytest.fixture(scope="module")
def image(machines: Machines) -> str:
    """An image with Python and boto3, made by a builder from Debian's."""
    with pytest.raises(LookupError, match="python -m ami build"):
        assert machines.sandbox.image
    install = "apt-get update -qq && apt-get install -qq -y --no-install-recommends python3-boto3 >/dev/null"
    return machines.make_image(f"{install}\n{USE_AWS}", machines.sandbox.base_image, "audience-explorer-2026-01-01")


def prints(instance: Instance, text: str) -> None:
    """Wait until an instance has printed a text."""
    deadline = time.monotonic() + 120
    while text not in (instance.log.read_text() if instance.log.exists() else ""):
        assert time.monotonic() < deadline, f"{instance} did not print {text!r}, but {instance.log.read_text()!r}"
        time.sleep(0.05)


def assert_nothing_left(instances: list[Instance]) -> None:
    """No mount and no cgroup of these instances' machines is left; other stories, at the same time, may have some."""
    mounts = Path("/proc/mounts").read_text()
    assert not [instance for instance in instances if f"/instances/{instance.id}" in mounts]
    groups = {group.name for group in Path("/sys/fs/cgroup").glob("**/audience-explorer-i-*")}
    assert groups.isdisjoint(f"audience-explorer-{instance.id}" for instance in instances)


def test_an_image_is_made_of_a_builder(machines: Machines, image: str) -> None:
    assert machines.sandbox.image == image
    builder = machines.sandbox.instances[0]
    builder.wait_until("terminated")
    assert "credentials: iam-role" in builder.log.read_text()
    assert not (builder.folder / "disk").exists()


def test_an_instance_finds_metadata_and_s3_unaided(machines: Machines, image: str) -> None:
    said = machines.output(f"env | sort\n{USE_AWS}", image)
    assert [line.split("=")[0] for line in said.splitlines() if "=" in line] == [
        "AWS_ALLOW_HTTP",
        "AWS_ENDPOINT_URL",
        "LANG",
        "PATH",
        "PWD",
    ]
    assert "credentials: iam-role\nregion: us-east-1" in said
    s3 = machines.sandbox.client("s3")
    assert s3.get_object(Bucket=machines.sandbox.bucket, Key="from/instance")["Body"].read() == b"here"


def test_an_instance_reaches_nothing_else(machines: Machines, image: str) -> None:
    port = machines.sandbox.environment["AWS_ENDPOINT_URL"].rsplit(":", 1)[1]
    said = machines.output(
        "tail -n +3 /proc/net/dev | cut -d: -f1\ngetent ahostsv4 $(hostname)\nset -- /proc/[0-9]*\necho $#\n"
        f"python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}), 2)'\n"
        "python3 -c 'import socket; socket.create_connection((\"192.0.2.1\", 80), 2)'\n",
        image,
    )
    print(said)
    assert said.startswith("    lo\n127.0.1.1")
    assert "ConnectionRefusedError" in said
    assert "Network is unreachable" in said
    assert "\n2\n" in said  # processes: the first one, and the script


def test_what_an_instance_writes_is_its_own(machines: Machines, image: str) -> None:
    assert "new" in machines.output("echo new >/etc/mark\ncat /etc/mark", image)
    assert "No such file" in machines.output("cat /etc/mark", image)
    assert not Path("/etc/mark").exists()


def test_an_image_is_made_of_an_instance_of_an_image(machines: Machines, image: str) -> None:
    second = machines.make_image(
        "echo second >/etc/mark\nrm /etc/debian_version", image, "audience-explorer-2026-01-02"
    )
    said = machines.output("cat /etc/mark\ncat /etc/debian_version\npython3 --version", second)
    assert "second\n" in said
    assert "debian_version: No such file" in said
    assert "Python 3.13" in said


def test_termination_ends_all_processes(machines: Machines, image: str) -> None:
    instance = machines.start("(setsid sleep 4321 &)\nsleep 4321 &\necho up\nwait\n", image)
    prints(instance, "up")
    machines.ec2.terminate_instances(InstanceIds=[instance.id])
    instance.wait_until("terminated")
    left = subprocess.run(["pgrep", "-fx", "sleep 4321"], capture_output=True, text=True, check=False)
    assert left.stdout == ""


def test_memory_is_used_up(machines: Machines, image: str) -> None:
    machines.sandbox.faults.memory_limit(64 << 20)
    count = "grep '^oom_kill ' /proc/vmstat"
    said = machines.output(f"{count}\npython3 -c 'x = bytearray(200 << 20)'\necho exit $?\n{count}", image)
    first, ended, second = [line for line in said.splitlines() if line.startswith(("oom_kill", "exit"))]
    assert ended == "exit 137"
    assert int(first.split()[1]) < int(second.split()[1])


def test_a_disk_fills(machines: Machines, image: str) -> None:
    machines.sandbox.faults.disk_size(32 << 20)
    instance = machines.start("while head -c 65536 /dev/zero >>/var/lib/file; do sleep 0.05; done\n", image)
    instance.wait_until("running")
    machines.sandbox.faults.fill_disk(instance)
    prints(instance, "No space left on device")


def test_a_cut_network_leaves_the_metadata_service(machines: Machines, image: str) -> None:
    ask = "import socket, urllib.request as u\nwhile True:\n  try: u.urlopen(URL, timeout=2); print('up', flush=True)\n"
    ask = ask.replace("URL", "__import__('os').environ['AWS_ENDPOINT_URL'] + '/audience'")
    script = f"python3 -c \"{ask}  except OSError as e: print('down', flush=True)\n  __import__('time').sleep(0.1)\"\n"
    instance = machines.start(script, image)
    prints(instance, "up\nup")
    machines.sandbox.faults.cut_network(instance, 600)
    prints(instance, "up\ndown\ndown")
    machines.sandbox.faults.cut_network(instance, 0.1)
    prints(instance, "down\nup")


def test_another_sandbox_has_the_kept_images(cache: Path, image: str) -> None:
    list_images = (
        "import boto3\n"
        "for image in boto3.client('ec2').describe_images(Owners=['self'])['Images']:\n"
        "    print(image['ImageId'], image['Name'], image['Tags'][0]['Value'])\n"
        "raise SystemExit(7)\n"
    )
    sandbox = [sys.executable, "-m", "acceptance.sandbox", "--image-cache", str(cache)]
    done = subprocess.run(
        [*sandbox, "--", sys.executable, "-c", list_images], capture_output=True, text=True, check=False
    )
    assert done.returncode == 7, done.stderr
    assert f"{image} audience-explorer-2026-01-01 here" in done.stdout.splitlines()
