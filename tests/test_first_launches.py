"""The first launches in an account: what AWS answers then, and what becomes of it."""

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from ami import boot
from ami.images import Image
from audience_explorer_dagster.launchers.ec2 import launcher, start
from audience_explorer_dagster.launchers.ec2.errors import NoNetwork, NoWayToS3, Refused, kind_of
from audience_explorer_dagster.launchers.ec2.explanations import explained
from audience_explorer_dagster.launchers.ec2.launcher import EC2StepLauncher
from audience_explorer_dagster.launchers.ec2.start import NO_CAPACITY, LaunchOption, launch_options
from audience_explorer_dagster.records import metadata
from spark_jobs import kms
from spark_jobs.engines import spark
from spark_jobs.launch.folder import RetryingFolder, S3Folder
from spark_jobs.missing_objects import is_missing
from spark_jobs.storage.s3 import _error
from tests.jobs import kmeans_job
from tests.test_ec2_launcher import Requests
from tests.test_ec2_launcher import start as started_by

SPOT = LaunchOption("a", "s1", "spot")
IMAGE = Image("ami-1", "audience-explorer-2026-01-01", {}, "/dev/xvda")
KMS_DENIED = (
    "User: arn:aws:sts::1:assumed-role/r/i-1 is not authorized to perform: kms:Decrypt on resource:"
    " arn:aws:kms:eu-west-1:1:key/k because no identity-based policy allows the kms:Decrypt action"
)


def refusal(code: str, message: str = "", status: int = 400) -> ClientError:
    facts = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(cast(Any, facts), "RunInstances")


# --- the network


@pytest.mark.parametrize("public_ip", [True, False])
def test_a_public_address_is_asked_for_by_the_network_interface_which_then_has_subnet_and_groups(
    public_ip: bool,
) -> None:
    """EC2 takes neither of the instance beside an interface (InvalidParameterCombination)."""
    ec2 = Requests()
    started_by(ec2, SPOT, security_groups=["sg-1"], public_ip=public_ip)
    (request,) = ec2.made
    assert request["NetworkInterfaces"] == [
        {
            "DeviceIndex": 0,
            "AssociatePublicIpAddress": public_ip,
            "DeleteOnTermination": True,
            "SubnetId": "s1",
            "Groups": ["sg-1"],
        }
    ]
    assert not {"SubnetId", "SecurityGroupIds"} & set(request)


def test_by_default_the_subnet_decides_on_public_addresses() -> None:
    ec2 = Requests()
    started_by(ec2, SPOT)
    assert "NetworkInterfaces" not in ec2.made[0]


def test_a_public_address_can_be_set_by_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", "s3://bucket/root")
    monkeypatch.setenv("AUDIENCE_EXPLORER_EC2_INSTANCE_PROFILE", "p")
    assert EC2StepLauncher.from_environment().public_ip is None
    for text, value in {"true": True, "false": False}.items():
        monkeypatch.setenv("AUDIENCE_EXPLORER_EC2_PUBLIC_IP", text)
        assert EC2StepLauncher.from_environment().public_ip is value


@pytest.mark.parametrize("code", ["VPCIdNotSpecified", "MissingInput", "VPCResourceNotSpecified"])
def test_an_account_without_a_default_network_learns_what_to_set(code: str) -> None:
    error = refusal(code, "No default VPC for this user.")
    assert kind_of(error) is NoNetwork
    assert "aws ec2 create-default-vpc (free), or name subnets: AUDIENCE_EXPLORER_EC2_SUBNETS" in explained(error)


def test_an_account_of_the_free_plan_learns_why_it_has_no_such_instance() -> None:
    said = "The specified instance type is not eligible for Free Tier."
    assert "paid plan" in explained(refusal("InvalidParameterCombination", said))
    assert "paid plan" not in explained(refusal("InvalidParameterCombination", "Something else."))


class Silent:
    """A launch whose instance says nothing, and is in a subnet without a way to S3 if that is closed."""

    asked: list[list[str | None]]  # the subnets of each launch's options

    def __init__(self, *arguments: Any):
        self._closed = arguments[-1]

    def run(self, *arguments: Any) -> Iterator[Any]:
        subnets = [option.subnet for option in arguments[2]]
        self.asked.append(subnets)
        if subnets[0] in self._closed:
            raise NoWayToS3(f"no sign of life: {self._closed[subnets[0]]}", instance="i-1")
        yield from ()

    def wait_until_gone(self) -> None: ...

    def uncounted_dollars(self) -> float:
        return 0.0

    def options_after(self, options: list[LaunchOption]) -> list[LaunchOption]:
        return options


class Log:
    """A run's log, which keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def debug(self, _: str) -> None: ...


def launch(monkeypatch: pytest.MonkeyPatch, closed: dict[str | None, str], subnets: list[str]) -> Log:
    Silent.asked = []
    log = Log()
    settings = EC2StepLauncher(launches="s3://b", instance_profile="p", subnets=subnets, market="spot")
    for name, stand_in in {
        "Launch": Silent,
        "dead_ends": lambda *_: closed,
        "find_image": lambda *_: IMAGE,
        "check_fit": lambda *_: None,
        "new_launch_tags": lambda _: None,
        "instances": SimpleNamespace(find=lambda *_: []),
    }.items():
        monkeypatch.setattr(launcher, name, stand_in)
    monkeypatch.setattr(EC2StepLauncher, "ec2", None)
    store = SimpleNamespace(keep_code=lambda *_: "", folder=lambda _: None)
    monkeypatch.setattr(EC2StepLauncher, "launch_store", store)
    context = SimpleNamespace(log=log, run=SimpleNamespace(run_id="r", tags={}))
    list(settings.launch(cast(Any, context), [kmeans_job("job")]))
    return log


def test_a_subnet_without_a_way_to_s3_is_warned_of_and_not_tried_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    log = launch(monkeypatch, {"s1": "no way to S3: make an endpoint"}, ["s1", "s2"])
    assert log.warnings[0] == "s1: no way to S3: make an endpoint"
    assert [set(asked) for asked in Silent.asked] == [{"s1", "s2"}, {"s2"}]


def test_without_another_subnet_the_first_silence_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not four times ten minutes."""
    with pytest.raises(NoWayToS3, match="no sign of life: make an endpoint"):
        launch(monkeypatch, {None: "make an endpoint"}, [])
    assert len(Silent.asked) == 1


def test_who_may_not_look_at_networks_launches_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise refusal("UnauthorizedOperation", status=403)

    monkeypatch.setattr(launcher, "dead_ends", refuse)
    settings = EC2StepLauncher(launches="s3://b", instance_profile="p")
    monkeypatch.setattr(EC2StepLauncher, "ec2", None)
    assert settings._dead_ends(cast(Any, SimpleNamespace(log=Log()))) == {}


# --- a role that was made just now

NEW_PROFILES = [
    "Value (p) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name",
    'IAM Instance Profile "arn:aws:iam::1:instance-profile/p" has no associated IAM Roles',
]


class NewProfile(Requests):
    """An EC2 client that learns of a profile only after some requests."""

    def __init__(self, unknown_times: int, message: str):
        super().__init__()
        self._left, self._message = unknown_times, message

    def run_instances(self, **request: Any) -> dict[str, Any]:
        answer = super().run_instances(**request)
        if self._left:
            self._left -= 1
            raise refusal("InvalidParameterValue", self._message)
        return answer


@pytest.mark.parametrize("message", NEW_PROFILES)
def test_a_profile_that_ec2_does_not_know_yet_is_asked_for_again(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    monkeypatch.setattr(start._run_instances.retry, "sleep", lambda _: None)  # type: ignore[attr-defined]
    ec2 = NewProfile(3, message)
    assert started_by(ec2, SPOT) == SPOT
    assert [request["ClientToken"] for request in ec2.made] == ["token-0"] * 4


def test_a_profile_that_stays_unknown_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "PROFILE_SECONDS", 0.0)
    ec2 = NewProfile(2, NEW_PROFILES[0])
    with pytest.raises(ClientError) as raised:
        started_by(ec2, SPOT)
    assert len(ec2.made) == 1
    assert kind_of(raised.value) is Refused
    assert "AUDIENCE_EXPLORER_EC2_INSTANCE_PROFILE" in explained(raised.value)


def test_a_machine_whose_role_has_no_credentials_yet_looks_for_them_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of boto3's that was made without any never does."""
    waits: list[float] = []
    found = [None, None, "credentials"]

    class Session:
        def __init__(self) -> None:
            self._credentials = found.pop(0)

        def get_credentials(self) -> str | None:
            return self._credentials

        def client(self, *_: Any, **__: Any) -> str:
            return f"a client with {self._credentials}"

    monkeypatch.setattr(boot.boto3, "Session", Session)
    monkeypatch.setattr(boot, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=waits.append))
    assert boot.retry(boot.client) == "a client with credentials"
    assert len(waits) == 2
    found.append(None)
    with pytest.raises(NoCredentialsError):
        boot.client()


def test_the_agent_bears_refusals_for_two_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def refuse(**_: Any) -> None:
        raise refusal("AccessDenied", "Access Denied", 403)

    monkeypatch.setattr("spark_jobs.launch.folder.time", SimpleNamespace(monotonic=lambda: now))
    folder = RetryingFolder(S3Folder(cast(Any, SimpleNamespace(put_object=refuse)), "s3://b/l"), sleep)
    with pytest.raises(ClientError):
        folder.put("status.json", b"{}")
    assert 120 < now < 130


# --- no capacity


def test_all_of_ec2s_words_for_no_capacity_lead_to_the_next_option() -> None:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html, of those that RunInstances gives."""
    short_of = ["Address", "Instance", "ReservedInstance", "Host", "Volume", ""]
    others = ["InsufficientCapacityOnHost", "InsufficientFreeAddressesInSubnet", "ReservationCapacityExceeded"]
    limits = ["InstanceLimitExceeded", "MaxSpotInstanceCountExceeded", "SpotMaxPriceTooLow", "VcpuLimitExceeded"]
    codes = [*(f"Insufficient{what}Capacity" for what in short_of), *others, *limits]
    codes += ["UnfulfillableCapacity", "Unsupported"]
    assert set(codes) == NO_CAPACITY
    types = [f"t{number}" for number in range(len(codes))]
    ec2 = Requests(refuse=dict(zip(types, codes, strict=True)))
    assert started_by(ec2, *launch_options([*types, "last"], [], "spot")).instance_type == "last"


# --- other partitions, and Spark on EMR


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-west-1", "console.aws.amazon.com"),
        ("cn-north-1", "console.amazonaws.cn"),
        ("us-gov-west-1", "console.amazonaws-us-gov.com"),
    ],
)
def test_a_report_is_linked_in_the_console_of_its_partition(
    monkeypatch: pytest.MonkeyPatch, region: str, host: str
) -> None:
    monkeypatch.setenv("AWS_REGION", region)
    assert metadata._page_of("s3://b/k").value == f"https://{host}/s3/object/b?prefix=k"


def test_spark_asks_no_catalog_of_tables_which_on_emr_is_glues(monkeypatch: pytest.MonkeyPatch) -> None:
    class Builder:
        def __init__(self) -> None:
            self.conf: dict[str, str] = {}

        def config(self, name: str, value: str) -> "Builder":
            self.conf[name] = value
            return self

        def getOrCreate(self) -> SimpleNamespace:
            return SimpleNamespace(
                conf=self.conf, sparkContext=SimpleNamespace(setLogLevel=lambda _: None), stop=lambda: None
            )

    builder = Builder()
    monkeypatch.setitem(
        sys.modules, "pyspark.sql", cast(Any, SimpleNamespace(SparkSession=SimpleNamespace(builder=builder)))
    )
    monkeypatch.setitem(sys.modules, "pyspark", cast(Any, SimpleNamespace(sql=sys.modules["pyspark.sql"])))
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")  # as spark-submit sets it
    monkeypatch.setattr(spark.atexit, "register", lambda _: None)
    spark._start("yarn", cast(Any, None))
    assert builder.conf["spark.sql.catalogImplementation"] == "in-memory"


# --- a bucket with a KMS key of one's own


def test_a_key_that_may_not_be_used_is_named_with_the_rights_that_it_takes() -> None:
    denied = refusal("AccessDenied", KMS_DENIED, 403)
    assert kms.WAY_OUT in explained(denied)
    assert kms.WAY_OUT in str(_error("s3://b/k", 403, "AccessDenied", KMS_DENIED))
    for of in ("kms:Decrypt", "kms:GenerateDataKey", "ami/iam/kms.json"):
        assert of in kms.WAY_OUT
    plain = refusal("AccessDenied", "Access Denied", 403)
    assert "KMS" not in explained(plain) + str(_error("s3://b/k", 403, "AccessDenied", "Access Denied"))


def test_an_object_that_is_there_and_can_not_be_decrypted_is_not_taken_for_missing() -> None:
    """S3 asks for the key of what is there only: nothing is listed, and nothing was seen to be missing a moment ago."""
    denied = refusal("AccessDenied", KMS_DENIED, 403)
    assert not is_missing(cast(Any, None), "b", "k", denied)

    def refuse(**_: Any) -> None:
        raise denied

    folder = S3Folder(cast(Any, SimpleNamespace(get_object=refuse)), "s3://b/l")
    folder._denied_means_missing_until = float("inf")
    with pytest.raises(ClientError):
        folder.get("status.json")
