"""The sandbox does what AWS does, in its light mode; of the isolated mode, see `acceptance/isolated_machine.py`."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from acceptance.sandbox import Instance, NotPossible, Sandbox, hypervisor
from acceptance.sandbox import ec2 as ec2_of_sandbox
from acceptance.sandbox import faults as faults_of_sandbox
from acceptance.sandbox.aws import _key_of as key_of
from acceptance.sandbox.faults import Faults
from audience_explorer_dagster.launchers.ec2 import start
from audience_explorer_dagster.launchers.ec2.images import check_fit, find_image
from audience_explorer_dagster.launchers.ec2.launcher import EC2StepLauncher
from audience_explorer_dagster.launchers.ec2.prices import price_of
from audience_explorer_dagster.launchers.ec2.start import LaunchOption
from tests.conftest import started
from tests.requests_checked import requests_unchecked

SLEEP = "#!/bin/sh\nsleep 600\n"
# A token, and then a path of the metadata service; the status alone if it is none of 200.
ASK = """#!/bin/sh
ask() { curl -s -w '%{http_code}' "$@"; }
at="$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest"
"""
KEYS = {"aws_access_key_id": "sandbox", "aws_secret_access_key": "sandbox"}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def one_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A sandbox for all tests of this file, for its start takes a second."""
    with Sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(one_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """The sandbox with no faults, and this process as one that launches."""
    for name, value in one_sandbox.environment.items():
        monkeypatch.setenv(name, value)
    yield one_sandbox
    one_sandbox.faults.clear()
    for instance in one_sandbox.instances:
        instance.terminate()


@cache
def client(service: str) -> Any:
    """A client as a launcher has it, with no second attempt at a request."""
    return boto3.client(service, config=Config(retries={"total_max_attempts": 1}))


@pytest.fixture
def ec2(sandbox: Sandbox) -> Any:  # noqa: ARG001  # its environment is needed
    """EC2, as a launcher has it."""
    return client("ec2")


@pytest.fixture
def launch(sandbox: Sandbox, ec2: Any) -> Callable[..., Instance]:
    """Launch an instance."""

    def run_instances(user_data: str = SLEEP, spot: bool = False, **more: Any) -> Instance:
        options = {"InstanceMarketOptions": {"MarketType": "spot"}} if spot else {}
        asked = {
            "ImageId": sandbox.image,
            "InstanceType": "m5.large",
            "MinCount": 1,
            "MaxCount": 1,
            "SubnetId": sandbox.subnets[0],
            "IamInstanceProfile": {"Name": sandbox.instance_profile},
            "InstanceInitiatedShutdownBehavior": "terminate",
            "UserData": user_data,
            **options,
            **more,
        }
        answer = ec2.run_instances(**{name: value for name, value in asked.items() if value is not None})
        return next(i for i in sandbox.instances if i.id == answer["Instances"][0]["InstanceId"])

    return run_instances


Launch = Callable[..., Instance]


def error_of(call: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[str, int]:
    """The code and status of the error that a call gives."""
    with pytest.raises(ClientError) as caught:
        call(*arguments, **named)
    return caught.value.response["Error"]["Code"], caught.value.response["ResponseMetadata"]["HTTPStatusCode"]


def described(ec2: Any, instance: Instance) -> dict[str, Any]:
    """What EC2 says of an instance."""
    found: dict[str, Any] = ec2.describe_instances(InstanceIds=[instance.id])["Reservations"][0]["Instances"][0]
    return found


def wait_for(happens: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 120
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def prints(instance: Instance, text: str) -> None:
    """Wait until an instance has printed a text. EC2 may hear later than that its machine runs, which is waited for."""
    wait_for(lambda: instance.state != "pending" and instance.log.exists() and text in instance.log.read_text())


class TestLife:
    """What becomes of an instance."""

    def test_user_data_runs_and_shutdown_terminates(self, launch: Launch, ec2: Any, tmp_path: Path) -> None:
        go_on = tmp_path / "go-on"
        instance = launch(f"#!/bin/sh\necho hello\nuntil [ -e {go_on} ]; do sleep 0.1; done\nshutdown -h now\n")
        instance.wait_until("running")
        assert "StateReason" not in described(ec2, instance)
        go_on.touch()
        instance.wait_until("terminated")
        assert instance.log.read_text() == "hello\n"
        said = described(ec2, instance)
        assert said["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
        assert ec2.describe_volumes()["Volumes"] == []

    def test_shutdown_stops_where_that_is_the_behaviour(self, launch: Launch, ec2: Any) -> None:
        instance = launch("#!/bin/sh\nshutdown -h now\n", InstanceInitiatedShutdownBehavior="stop")
        instance.wait_until("stopped")
        assert described(ec2, instance)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
        ec2.terminate_instances(InstanceIds=[instance.id])
        instance.wait_until("terminated")

    def test_the_end_of_user_data_is_not_the_end(self, launch: Launch) -> None:
        instance = launch("#!/bin/sh\necho done\n")
        prints(instance, "done")
        time.sleep(0.3)
        assert instance.state == "running"

    def test_termination_leaves_no_process(self, launch: Launch, ec2: Any) -> None:
        instance = launch("#!/bin/sh\n(setsid sleep 4321 &)\ntrap '' TERM\nsleep 4321 &\necho up\nwait\n")
        prints(instance, "up")
        assert instance.id in map(machine_of, psutil.process_iter())
        answer = ec2.terminate_instances(InstanceIds=[instance.id])["TerminatingInstances"][0]
        assert (answer["PreviousState"]["Name"], answer["CurrentState"]["Name"]) == ("running", "shutting-down")
        instance.wait_until("terminated")
        assert instance.id not in map(machine_of, psutil.process_iter())
        reason = described(ec2, instance)
        assert reason["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
        assert reason["StateTransitionReason"].startswith("User initiated (")
        answer = ec2.terminate_instances(InstanceIds=[instance.id])["TerminatingInstances"][0]
        assert (answer["PreviousState"]["Name"], answer["CurrentState"]["Name"]) == ("terminated", "terminated")

    def test_user_data_that_is_no_script_fails_the_launch(self, launch: Launch, ec2: Any) -> None:
        instance = launch("echo hello")
        instance.wait_until("terminated")
        assert described(ec2, instance)["StateReason"]["Code"] == "Server.InternalError"
        assert "must begin with #!" in instance.log.read_text()

    def test_the_console_can_be_read(self, launch: Launch, ec2: Any) -> None:
        instance = launch("#!/bin/sh\necho 'grüezi'\n")
        prints(instance, "grüezi")
        assert ec2.get_console_output(InstanceId=instance.id)["Output"] == "grüezi\n"


def machine_of(process: psutil.Process) -> str | None:
    """The machine that a process belongs to."""
    with suppress(psutil.Error):
        return process.environ().get("AUDIENCE_EXPLORER_SANDBOX_MACHINE")
    return None


class TestMachine:
    """What an instance finds on its machine."""

    def test_the_metadata_service_wants_a_token(self, launch: Launch) -> None:
        instance = launch(
            ASK
            + 'ask "$at/meta-data/instance-id"; echo\nask -X PUT "$at/api/token"; echo\n'
            + 'token=$(curl -s -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "$at/api/token")\n'
            + "for path in meta-data/instance-id meta-data/instance-type meta-data/instance-life-cycle"
            + " meta-data/placement/availability-zone meta-data/spot/instance-action meta-data/tags/instance/label"
            + " meta-data/iam/security-credentials/ meta-data/nothing; do\n"
            + '  ask -H "X-aws-ec2-metadata-token: $token" "$at/$path"; echo\ndone\necho end\n',
            MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "label", "Value": "march"}]}],
        )
        prints(instance, "end")
        assert instance.log.read_text().split() == [
            "401",
            "400",
            f"{instance.id}200",
            "m5.large200",
            "on-demand200",
            "us-east-1a200",
            "404",
            "march200",
            "audience-explorer-instance200",
            "404",
            "end",
        ]

    def test_boto3_finds_region_credentials_and_s3_unaided(self, launch: Launch, sandbox: Sandbox) -> None:
        instance = launch(
            "#!/bin/sh\nexec $AUDIENCE_EXPLORER_HOME/venv/bin/python -c '\n"
            "import boto3, json\nfrom botocore.utils import InstanceMetadataRegionFetcher as Region\n"
            'boto3.client("s3", region_name=Region().retrieve_region()).put_object('
            'Bucket="audience", Key="from/instance", Body=b"here")\n\'\n'
        )
        s3 = sandbox.client("s3")
        wait_for(lambda: s3.list_objects_v2(Bucket=sandbox.bucket, Prefix="from/")["KeyCount"])
        assert instance.state == "running"
        assert not [call for call in sandbox.calls if call.action == "PutObject"]  # a launcher's calls are counted

    def test_a_stored_message_lets_something_happen_once(self, launch: Launch, sandbox: Sandbox) -> None:
        happened: list[Instance] = []
        sandbox.on_put("half way", happened.append)
        put = 'boto3.client("s3", region_name="us-east-1").put_object(Bucket="audience", Key=f"l/messages/{n}", Body=b)'
        launch_and_put = f"for n, b in enumerate([b'begun', b'half way', b'half way', b'done']): {put}".replace(
            "'", '"'
        )
        instance = launch(
            f"#!/bin/sh\n$AUDIENCE_EXPLORER_HOME/venv/bin/python -c 'import boto3\n{launch_and_put}'\necho end\n"
        )
        prints(instance, "end")
        wait_for(lambda: happened)
        assert happened == [instance]


class TestApi:
    """What moto leaves out, or answers in another way."""

    def test_a_client_token_launches_once(self, launch: Launch) -> None:
        first = launch(ClientToken="one")
        assert launch(ClientToken="one") is first
        assert error_of(launch, ClientToken="one", InstanceType="m5.xlarge") == ("IdempotentParameterMismatch", 400)
        assert launch(ClientToken="two") is not first

    def test_the_image_fits_and_is_the_newest(self, sandbox: Sandbox, ec2: Any) -> None:
        image = find_image(ec2, "audience-explorer-*")
        check_fit(image, volume_gb=50)
        assert image.id == sandbox.image

    def test_debian_is_found_by_its_parameter(self, sandbox: Sandbox, ec2: Any) -> None:
        found = client("ssm").get_parameter(Name="/aws/service/debian/release/13/latest/amd64")["Parameter"]["Value"]
        assert found == sandbox.base_image
        assert ec2.describe_images(ImageIds=[found])["Images"][0]["RootDeviceName"] == "/dev/xvda"

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"InstanceType": "m5.enormous"}, "InvalidParameterValue"),
            ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
            ({"KeyName": "lost"}, "InvalidKeyPair.NotFound"),
            ({"UserData": "#!/bin/sh\n" + "x" * 16384}, "InvalidParameterValue"),
            ({"DryRun": True}, "DryRunOperation"),
        ],
    )
    def test_a_request_that_aws_refuses_is_refused(
        self, launch: Launch, sandbox: Sandbox, change: dict[str, Any], code: str
    ) -> None:
        before = len(sandbox.instances)
        with requests_unchecked():
            assert error_of(launch, **change)[0] == code
        assert len(sandbox.instances) == before

    def test_an_image_is_made_once_by_a_name_and_tagged(self, launch: Launch, ec2: Any) -> None:
        instance = launch("#!/bin/sh\nshutdown -h now\n", InstanceInitiatedShutdownBehavior="stop")
        instance.wait_until("stopped")
        tags = [{"ResourceType": kind, "Tags": [{"Key": "of", "Value": kind}]} for kind in ("image", "snapshot")]
        named = {"InstanceId": instance.id, "Name": "audience-explorer-x"}
        made = ec2.create_image(**named, TagSpecifications=tags)["ImageId"]
        assert error_of(ec2.create_image, **named)[0] == "InvalidAMIName.Duplicate"
        ec2.get_waiter("image_available").wait(ImageIds=[made], WaiterConfig={"Delay": 0.05, "MaxAttempts": 100})
        image = ec2.describe_images(ImageIds=[made])["Images"][0]
        assert image["Tags"] == [{"Key": "of", "Value": "image"}]
        snapshot = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
        assert ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["Tags"] == [
            {"Key": "of", "Value": "snapshot"}
        ]
        ec2.deregister_image(ImageId=made)
        assert ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]

    def test_no_image_is_made_of_a_running_instance(self, launch: Launch, ec2: Any) -> None:
        instance = launch()
        instance.wait_until("running")
        assert error_of(ec2.create_image, InstanceId=instance.id, Name="audience-explorer-y")[0] == "IncorrectState"

    def test_what_was_asked_for_is_kept(self, launch: Launch, ec2: Any) -> None:
        instance = launch(
            spot=True,
            MetadataOptions={"HttpTokens": "required"},
            BlockDeviceMappings=[
                {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 20, "Encrypted": True, "DeleteOnTermination": True}}
            ],
            TagSpecifications=[
                {"ResourceType": kind, "Tags": [{"Key": "launch", "Value": "l1"}]} for kind in ("instance", "volume")
            ],
        )
        said = described(ec2, instance)
        assert (said["InstanceLifecycle"], said["MetadataOptions"]["HttpTokens"]) == ("spot", "required")
        (volume,) = ec2.describe_volumes(Filters=[{"Name": "tag:launch", "Values": ["l1"]}])["Volumes"]
        assert (volume["Encrypted"], volume["Size"]) == (True, 20)
        assert (instance.market, instance.tags) == ("spot", {"launch": "l1"})

    def test_prices_are_told_for_both_markets(self, ec2: Any) -> None:
        on_demand = price_of(ec2, "m5.large", "us-east-1a", "on-demand").dollars_an_hour
        spot = price_of(ec2, "m5.large", "us-east-1a", "spot").dollars_an_hour
        assert on_demand == pytest.approx(0.096)
        assert spot is not None
        assert 0.2 * 0.096 < spot < 0.6 * 0.096


class TestFaults:
    """What can be made to go wrong."""

    def test_no_capacity_on_one_market(self, launch: Launch, sandbox: Sandbox) -> None:
        sandbox.faults.no_capacity("m5.large", "spot")
        assert error_of(launch, spot=True) == ("InsufficientInstanceCapacity", 500)
        launch(spot=False)
        launch(spot=True, InstanceType="m5.xlarge")
        sandbox.faults.clear()
        launch(spot=True)

    def test_capacity_is_lost_after_the_launch(
        self, launch: Launch, sandbox: Sandbox, ec2: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = threading.Event()
        waits = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: seen.wait(120))
        monkeypatch.setattr(hypervisor, "time", waits)
        sandbox.faults.lose_capacity()
        instance = launch()
        assert instance.state == "pending"
        seen.set()
        instance.wait_until("terminated")
        assert described(ec2, instance)["StateReason"]["Code"] == "Server.InsufficientInstanceCapacity"
        launch().wait_until("running")

    def test_an_interruption_is_announced_and_comes(self, launch: Launch, sandbox: Sandbox, ec2: Any) -> None:
        instance = launch(
            ASK
            + 'token=$(curl -s -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "$at/api/token")\n'
            + 'while :; do curl -s -H "X-aws-ec2-metadata-token: $token" "$at/meta-data/spot/instance-action"\n'
            + "  sleep 0.1; done\n",
            spot=True,
        )
        instance.wait_until("running")
        sandbox.faults.interrupt(instance, 600)
        prints(instance, '{"action": "terminate", "time": "20')
        assert instance.state == "running"
        sandbox.faults.interrupt(instance, 0.1)
        instance.wait_until("terminated")
        assert described(ec2, instance)["StateReason"]["Code"] == "Server.SpotInstanceTermination"

    def test_only_a_spot_instance_is_interrupted(self, launch: Launch, sandbox: Sandbox) -> None:
        with pytest.raises(NotPossible, match="on demand"):
            sandbox.faults.interrupt(launch())

    def test_the_boot_program_is_killed_and_nothing_else(self, launch: Launch, sandbox: Sandbox) -> None:
        instance = launch(
            '#!/bin/sh\ncd "$TMPDIR"\necho "import time; print(1, flush=True); time.sleep(600)" >boot.py\n'
            '$AUDIENCE_EXPLORER_HOME/venv/bin/python boot.py\necho "exit $?"\n'
        )
        prints(instance, "1\n")
        sandbox.faults.kill_boot(instance)
        prints(instance, "exit 137")
        assert instance.state == "running"
        with pytest.raises(NotPossible, match=r"runs no boot\.py"):
            sandbox.faults.kill_boot(instance)

    def test_a_boot_never_finishes(self, launch: Launch, sandbox: Sandbox) -> None:
        sandbox.faults.boot_never_finishes()
        instance = launch("#!/bin/sh\nshutdown -h now\n")
        prints(instance, "never finishes")
        assert instance.user_data == b"#!/bin/sh\nshutdown -h now\n"
        assert instance.state == "running"

    @needs_root
    def test_a_disk_fills(self, launch: Launch, sandbox: Sandbox) -> None:
        sandbox.faults.disk_size(4 << 20)
        instance = launch(
            '#!/bin/sh\ncd "$AUDIENCE_EXPLORER_SCRATCH"\nwhile head -c 65536 /dev/zero >>file; do sleep 0.05; done\n'
        )
        instance.wait_until("running")
        sandbox.faults.fill_disk(instance)
        prints(instance, "No space left on device")

    @needs_root
    def test_memory_is_used_up(self, launch: Launch, sandbox: Sandbox) -> None:
        sandbox.faults.memory_limit(64 << 20)
        instance = launch(
            "#!/bin/sh\n$AUDIENCE_EXPLORER_HOME/venv/bin/python -c 'x = bytearray(200 << 20)'\necho \"exit $?\"\n"
        )
        prints(instance, "exit 137")

    def test_a_disk_without_limit_is_not_filled(self, launch: Launch, sandbox: Sandbox) -> None:
        instance = launch()
        instance.wait_until("running")
        with pytest.raises(NotPossible, match=r"order disk_size"):
            sandbox.faults.fill_disk(instance)

    def test_a_cut_network_comes_back(self, launch: Launch, sandbox: Sandbox) -> None:
        instance = launch(
            '#!/bin/sh\nwhile :; do curl -s -o /dev/null "$AWS_ENDPOINT_URL/audience" && echo up || echo down\n'
            "sleep 0.1; done\n"
        )
        prints(instance, "up\nup")
        sandbox.faults.cut_network(instance, 600)
        prints(instance, "up\ndown\ndown")
        sandbox.faults.cut_network(instance, 0.1)
        prints(instance, "down\nup")
        assert sandbox.client("s3").head_bucket(Bucket=sandbox.bucket)

    def test_calls_are_throttled_so_often(self, sandbox: Sandbox, ec2: Any) -> None:
        sandbox.faults.throttle(2, action="DescribeInstances")
        ec2.describe_images(Owners=["self"])
        assert error_of(ec2.describe_instances) == ("RequestLimitExceeded", 503)
        assert sandbox.client("ec2").describe_instances()
        assert error_of(ec2.describe_instances) == ("RequestLimitExceeded", 503)
        assert ec2.describe_instances()

    def test_calls_are_throttled_for_some_time(
        self, sandbox: Sandbox, ec2: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = SimpleNamespace(now=1000.0)
        monkeypatch.setattr(faults_of_sandbox, "time", SimpleNamespace(monotonic=lambda: clock.now))
        sandbox.faults.throttle(seconds=0.5)
        assert error_of(ec2.describe_instances) == ("RequestLimitExceeded", 503)
        clock.now += 0.4
        assert error_of(ec2.describe_instances) == ("RequestLimitExceeded", 503)
        clock.now += 0.1
        assert ec2.describe_instances()

    def test_servers_fail(self, sandbox: Sandbox, ec2: Any) -> None:
        sandbox.faults.server_errors(3, caller="launcher")
        s3 = client("s3")
        assert error_of(s3.put_object, Bucket=sandbox.bucket, Key="x", Body=b"x" * 100_000) == ("SlowDown", 503)
        assert error_of(ec2.describe_instances) == ("InternalError", 500)
        assert error_of(client("ssm").get_parameter, Name="x")[1] == 500
        assert s3.put_object(Bucket=sandbox.bucket, Key="x", Body=b"x")
        assert ec2.describe_instances()

    def test_an_answer_is_lost_after_the_launch_happened(self, launch: Launch, sandbox: Sandbox) -> None:
        before = len(sandbox.instances)
        sandbox.faults.lose_answer("RunInstances")
        with pytest.raises(ConnectionClosedError):
            launch(ClientToken="lost")
        assert len(sandbox.instances) == before + 1
        assert launch(ClientToken="lost") is sandbox.instances[before]
        assert len(sandbox.instances) == before + 1

    def test_a_new_instance_is_not_visible_yet(self, launch: Launch, sandbox: Sandbox, ec2: Any) -> None:
        sandbox.faults.invisible(600)
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "launch", "Value": "hidden"}]}]
        found = [{"Name": "tag:launch", "Values": ["hidden"]}]
        instance = launch(TagSpecifications=tags)
        assert error_of(ec2.describe_instances, InstanceIds=[instance.id]) == ("InvalidInstanceID.NotFound", 400)
        assert error_of(ec2.terminate_instances, InstanceIds=[instance.id]) == ("InvalidInstanceID.NotFound", 400)
        assert ec2.describe_instances(Filters=found)["Reservations"] == []
        assert sandbox.client("ec2").describe_instances(Filters=found)["Reservations"]
        sandbox.faults.invisible(instance.age)
        assert ec2.describe_instances(Filters=found)["Reservations"]

    def test_a_quota_counts_the_vcpus_that_run_on_its_market(self, launch: Launch, sandbox: Sandbox) -> None:
        for instance in sandbox.instances:
            instance.wait_until("terminated")
        sandbox.faults.quota("spot", 5)
        sandbox.faults.quota("on-demand", 5)
        assert error_of(launch, spot=True, InstanceType="m5.2xlarge") == ("MaxSpotInstanceCountExceeded", 400)
        first = launch(spot=True, InstanceType="m5.xlarge")
        assert error_of(launch, spot=True) == ("MaxSpotInstanceCountExceeded", 400)
        launch(InstanceType="m5.xlarge")
        assert error_of(launch) == ("VcpuLimitExceeded", 400)
        first.terminate()
        first.wait_until("terminated")
        launch(spot=True)

    def test_service_quotas_says_the_quota_that_launches_are_held_to(self, sandbox: Sandbox) -> None:
        quotas = client("service-quotas")

        def value(code: str) -> float:
            return float(quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"])

        assert (value("L-34B43A08"), value("L-1216C47A")) == (256.0, 256.0)
        sandbox.faults.quota("spot", 5)
        assert (value("L-34B43A08"), value("L-1216C47A")) == (5.0, 256.0)
        assert error_of(value, "L-00000000") == ("NoSuchResourceException", 400)

    def test_a_role_is_not_known_in_the_moment_after_its_making(self, launch: Launch, sandbox: Sandbox) -> None:
        get = 'curl -s -w "%{http_code}\\n" -o /dev/null "$AWS_ENDPOINT_URL/audience/none"'
        instance = launch(f"#!/bin/sh\nwhile :; do {get}; sleep 0.1; done\n")
        prints(instance, "404")
        sandbox.faults.new_role(600)
        assert error_of(launch) == ("InvalidParameterValue", 400)
        prints(instance, "403")
        sandbox.faults.clear()
        launch()
        unknown = {"Name": "another"}
        assert error_of(launch, IamInstanceProfile=unknown) == ("InvalidParameterValue", 400)

    def test_a_launch_waits_for_the_role_that_was_made_just_now(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The launcher's request, of its own making, is repeated until the role is known."""
        sandbox.faults.new_role(600)
        waits: list[float] = []

        def know_it(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 2:
                sandbox.faults.clear()

        monkeypatch.setattr(start._run_instances.retry, "sleep", know_it)  # type: ignore[attr-defined]
        settings = EC2StepLauncher(
            launches=f"s3://{sandbox.bucket}", instance_profile=sandbox.instance_profile, public_ip=True
        )
        image = find_image(client("ec2"), sandbox.image)
        options = [LaunchOption("m5.large", subnet, "spot") for subnet in sandbox.subnets]
        found, _ = start.start_instance(client("ec2"), settings, options, "token", {"launch": "l"}, image, "s3://b/l")
        assert len(waits) == 2
        instance = next(of for of in sandbox.instances if of.id == found.id)
        assert instance.about.nics[0].public_ip

    def test_an_instance_without_a_public_address_reaches_s3_by_an_endpoint_only(
        self, launch: Launch, sandbox: Sandbox
    ) -> None:
        ask = 'curl -s -o /dev/null "$AWS_ENDPOINT_URL/audience/none" && echo up || echo down'
        private = {"DeviceIndex": 0, "SubnetId": sandbox.subnets[0], "AssociatePublicIpAddress": False}
        instance = launch(f"#!/bin/sh\n{ask}\n", NetworkInterfaces=[private], SubnetId=None)
        prints(instance, "down")
        ec2 = sandbox.client("ec2")
        ec2.create_vpc_endpoint(VpcId=instance.about.vpc_id, ServiceName="com.amazonaws.us-east-1.s3")
        prints(launch(f"#!/bin/sh\n{ask}\n", NetworkInterfaces=[private], SubnetId=None), "up")
        instance.about.ec2_backend.vpc_end_points.clear()

    def test_a_new_instance_has_no_tags_by_which_it_could_be_ended(self, launch: Launch, sandbox: Sandbox) -> None:
        sandbox.faults.invisible(600)
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "project", "Value": "p"}]}]
        instance = launch(TagSpecifications=tags)
        assert sandbox._api._tags_of(instance.id) == {}
        sandbox.faults.clear()
        assert sandbox._api._tags_of(instance.id) == {"project": "p"}

    def test_to_look_for_images_of_everybody_is_slow(self, ec2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        waits: list[float] = []
        monkeypatch.setattr(ec2_of_sandbox, "time", SimpleNamespace(sleep=waits.append))
        image = ec2.describe_images(Owners=["self"])["Images"][0]["ImageId"]
        ec2.describe_images(ImageIds=[image])
        assert waits == []
        ec2.describe_images(Filters=[{"Name": "name", "Values": ["*"]}])
        assert waits == [2.0]

    def test_a_bucket_with_a_key_of_ones_own_names_what_its_reader_lacks(self, sandbox: Sandbox) -> None:
        s3 = sandbox.client("s3")
        s3.create_bucket(Bucket="encrypted")
        key = "arn:aws:kms:us-east-1:123456789012:key/1"
        by_default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
        rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": by_default}]}
        s3.put_bucket_encryption(Bucket="encrypted", ServerSideEncryptionConfiguration=rules)
        assert key_of("encrypted") == key
        assert key_of(sandbox.bucket) == ""

    def test_termination_from_outside(self, launch: Launch, sandbox: Sandbox, ec2: Any) -> None:
        instance = launch()
        sandbox.faults.terminate(instance)
        instance.wait_until("terminated")
        assert described(ec2, instance)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"

    def test_a_fault_needs_a_count_or_a_time(self) -> None:
        with pytest.raises(TypeError, match="count or seconds"):
            Faults().throttle()


def test_the_calls_of_launchers_are_counted(launch: Launch, sandbox: Sandbox) -> None:
    before = len(sandbox.calls)
    launch(InstanceType="m5.xlarge")
    sandbox.client("ec2").describe_instances()
    (call,) = sandbox.calls[before:]
    assert (call.action, call.params["InstanceType"]) == ("RunInstances", "m5.xlarge")


def test_the_command_ends_its_instances_when_it_is_told_to_end() -> None:
    command = [sys.executable, "-m", "acceptance.sandbox", "--light"]
    with started(command, stdout=subprocess.PIPE, text=True) as process:
        exported = dict(line.removeprefix("export ").strip().split("=") for line in iter(process.stdout.readline, "\n"))
        ec2 = boto3.client("ec2", region_name="us-east-1", endpoint_url=exported["AWS_ENDPOINT_URL"], **KEYS)
        image = ec2.describe_images(Owners=["self"])["Images"][0]["ImageId"]
        launched = ec2.run_instances(
            ImageId=image, InstanceType="m5.large", MinCount=1, MaxCount=1, UserData="#!/bin/sh\nexec sleep 4322\n"
        )
        machine = launched["Instances"][0]["InstanceId"]
        wait_for(lambda: machine in map(machine_of, psutil.process_iter()))
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert machine not in map(machine_of, psutil.process_iter())
    assert exported["AUDIENCE_EXPLORER_LAUNCHER"] == "ec2"
