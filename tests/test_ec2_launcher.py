"""The EC2 launcher's parts: what it asks EC2 for, what follows from what is known of a launch, and its settings. What
becomes of launches is shown by the stories in acceptance/ec2.
"""

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import boto3
import dagster as dg
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError
from moto import mock_aws

from ami import instances
from ami.images import Image, misfits, tags_of
from ami.instances import Instance
from audience_explorer_dagster.launchers import Report
from audience_explorer_dagster.launchers.ec2 import code, launch, outcome, prices
from audience_explorer_dagster.launchers.ec2.errors import (
    BootFailed,
    EC2LaunchFailed,
    ImageMisfit,
    JobFailed,
    MessagesLost,
    NoCapacity,
    NoImage,
    NoNetwork,
    NoWayToS3,
    OutOfMemory,
    Overdue,
    Refused,
    SpotInterrupted,
    TerminatedFromOutside,
    Unreachable,
)
from audience_explorer_dagster.launchers.ec2.images import check_fit, find_image
from audience_explorer_dagster.launchers.ec2.launch import Launch
from audience_explorer_dagster.launchers.ec2.launcher import EC2StepLauncher
from audience_explorer_dagster.launchers.ec2.start import LaunchOption, launch_options, start_instance, user_data
from audience_explorer_dagster.launchers.launch_store import LaunchStore, LaunchTags
from audience_explorer_dagster.partitions import Partition, short_name
from spark_jobs import REQUIRES
from spark_jobs.errors import InputError
from spark_jobs.launch.aws import PROJECT
from tests.jobs import kmeans_job

TAGS = LaunchTags(launch="20260101T000000-00000001", pipeline="p1", run="r1", label="coffee-2024-01")
IMAGE = Image("ami-1", "audience-explorer-2026-01-01", {}, "/dev/xvda")
OPTIONS = [LaunchOption(name, None, "spot") for name in ("t", "u", "v")]
FITTING = {
    **dict.fromkeys(REQUIRES, "9999"),
    **{"loky": "3.7.0", "pyspark": "4.2.0", "pandas": "2.3.3"},
}


class Requests:
    """An EC2 client that keeps the requests, and refuses some."""

    meta = SimpleNamespace(region_name="eu-west-1")

    def __init__(self, refuse: dict[str, str] | None = None):
        self.made: list[dict[str, Any]] = []
        self._refuse = refuse or {}

    def run_instances(self, **request: Any) -> dict[str, Any]:
        self.made.append(request)
        code = self._refuse.get(request["InstanceType"])
        if code:
            answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 500}}
            raise ClientError(cast(Any, answer), "RunInstances")
        described = {"InstanceId": "i-1", "InstanceType": request["InstanceType"], "State": {"Name": "pending"}}
        return {"Instances": [{**described, "LaunchTime": None}]}


def start(ec2: Requests, *asked: LaunchOption, **changed: Any) -> LaunchOption:
    settings = EC2StepLauncher(**{"launches": "s3://b", "instance_profile": "profile", **changed})
    return start_instance(cast(Any, ec2), settings, asked, "token", {"launch": "l"}, IMAGE, "s3://b/l")[1]


def test_options_go_through_types_and_subnets_of_a_market_before_the_next() -> None:
    found = launch_options(["a", "b"], ["s1", "s2"], "spot-then-on-demand")
    spot = [("a", "s1"), ("a", "s2"), ("b", "s1"), ("b", "s2")]
    assert [(o.instance_type, o.subnet) for o in found] == spot * 2
    assert [o.market for o in found] == ["spot"] * 4 + ["on-demand"] * 4
    assert launch_options(["a"], [], "on-demand") == [LaunchOption("a", None, "on-demand")]


def test_an_instance_is_asked_for_as_promised() -> None:
    ec2 = Requests()
    start(ec2, LaunchOption("a", "s1", "spot"), security_groups=["sg-1", "sg-2"], extra_tags={"team": "data"})
    (request,) = ec2.made
    assert (request["InstanceType"], request["ImageId"], request["SubnetId"]) == ("a", IMAGE.id, "s1")
    assert (request["MinCount"], request["MaxCount"]) == (1, 1)
    assert request["SecurityGroupIds"] == ["sg-1", "sg-2"]
    assert request["IamInstanceProfile"] == {"Name": "profile"}
    assert request["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"]
    assert request["InstanceMarketOptions"]["SpotOptions"] == {
        "SpotInstanceType": "one-time",
        "InstanceInterruptionBehavior": "terminate",
    }
    assert all(of["Tags"] == [{"Key": "launch", "Value": "l"}] for of in request["TagSpecifications"])
    assert request["MetadataOptions"]["HttpTokens"] == "required"
    assert request["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert request["BlockDeviceMappings"][0]["Ebs"]["Encrypted"]
    assert request["UserData"].splitlines() == [
        "#!/bin/sh",
        "export AWS_REGION=eu-west-1 AWS_DEFAULT_REGION=eu-west-1",
        "export AWS_METADATA_SERVICE_TIMEOUT=5 AWS_METADATA_SERVICE_NUM_ATTEMPTS=5",
        "exec audience-explorer-boot s3://b/l",
    ]
    assert request["InstanceMarketOptions"]["MarketType"] == "spot"
    assert {of["ResourceType"] for of in request["TagSpecifications"]} == {
        "instance",
        "volume",
        "spot-instances-request",
    }
    assert "KeyName" not in request


def test_what_is_not_set_is_not_asked_for() -> None:
    ec2 = Requests()
    start(ec2, LaunchOption("a", None, "on-demand"), instance_profile="arn:aws:iam::1:instance-profile/p")
    (request,) = ec2.made
    assert not {"SecurityGroupIds", "SubnetId", "KeyName", "InstanceMarketOptions"} & set(request)
    assert request["IamInstanceProfile"] == {"Arn": "arn:aws:iam::1:instance-profile/p"}
    assert {of["ResourceType"] for of in request["TagSpecifications"]} == {"instance", "volume"}


def test_a_key_pair_is_asked_for_by_its_name() -> None:
    ec2 = Requests()
    start(ec2, LaunchOption("a", None, "spot"), key_pair="debugging")
    assert ec2.made[0]["KeyName"] == "debugging"


def test_a_folder_with_strange_characters_reaches_the_shell_quoted() -> None:
    assert user_data("eu-west-1", "s3://b/$(x) 'y'").splitlines()[3].endswith(""" 's3://b/$(x) '"'"'y'"'"''""")


def test_a_type_without_capacity_is_asked_for_once_and_each_request_has_a_token_of_its_own() -> None:
    ec2 = Requests(refuse={"a": "InsufficientInstanceCapacity", "b": "VcpuLimitExceeded"})
    assert start(ec2, *(LaunchOption(t, None, "on-demand") for t in "abc")).instance_type == "c"
    assert [request["ClientToken"] for request in ec2.made] == ["token-0", "token-1", "token-2"]
    with pytest.raises(NoCapacity, match=r"a \(spot\): InsufficientInstanceCapacity; b \(spot\): VcpuLimitExceeded"):
        start(ec2, *(LaunchOption(t, None, "spot") for t in "ab"))


@pytest.mark.parametrize(
    ("answer", "quota"), [("MaxSpotInstanceCountExceeded", "L-34B43A08"), ("VcpuLimitExceeded", "L-1216C47A")]
)
def test_an_account_with_too_small_a_quota_learns_which_one_and_what_to_do(answer: str, quota: str) -> None:
    options = [LaunchOption(name, None, "spot") for name in "ab"]
    with pytest.raises(NoCapacity, match=rf"\({quota}\)” in AWS's Service Quotas, or name smaller instance_types"):
        start(Requests(refuse={"a": answer, "b": "UnfulfillableCapacity"}), *options)
    with pytest.raises(NoCapacity) as raised:
        start(Requests(refuse=dict.fromkeys("ab", "UnfulfillableCapacity")), *options)
    assert "Quotas" not in raised.value.what


def test_a_new_account_gets_an_instance_by_default() -> None:
    """Its quota is 5 vCPUs, so each larger type is refused."""
    cores = {"m7i.2xlarge": 8, "m6i.2xlarge": 8, "m5.2xlarge": 8, "m7i.xlarge": 4, "m6i.xlarge": 4}
    types = EC2StepLauncher(launches="s3://b", instance_profile="profile").instance_types
    too_large = {name: "MaxSpotInstanceCountExceeded" for name in types if cores[name] > 5}
    options = launch_options(types, [], "spot-then-on-demand")
    assert start(Requests(refuse=too_large), *options) == LaunchOption("m7i.xlarge", None, "spot")


def test_a_request_that_is_refused_for_good_is_not_repeated() -> None:
    ec2 = Requests(refuse={"a": "InvalidParameterValue"})
    ec2.run_instances = _with_status(ec2.run_instances, 400)  # type: ignore[method-assign]
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        start(ec2, LaunchOption("a", None, "spot"), LaunchOption("b", None, "spot"))
    assert len(ec2.made) == 1


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="x"),
        ConnectTimeoutError(endpoint_url="x"),
        ReadTimeoutError(endpoint_url="x"),
    ],
)
def test_a_request_that_no_connection_could_be_had_for_is_repeated_with_the_same_token(error: Exception) -> None:
    ec2 = Requests()
    ask = ec2.run_instances

    def first_fails(**request: Any) -> dict[str, Any]:
        answer = ask(**request)
        if len(ec2.made) == 1:
            raise error
        return answer

    ec2.run_instances = first_fails  # type: ignore[method-assign]
    start(ec2, LaunchOption("a", None, "spot"))
    assert [request["ClientToken"] for request in ec2.made] == ["token-0", "token-0"]


def _with_status(ask: Any, status: int) -> Any:
    def answer(**request: Any) -> Any:
        try:
            return ask(**request)
        except ClientError as error:
            error.response["ResponseMetadata"]["HTTPStatusCode"] = status
            raise

    return answer


# --- images and code


def test_an_image_fits_if_it_has_what_the_jobs_need() -> None:
    assert misfits(tags_of("3.11.2", FITTING)) == []


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"dependency:loky": "0.6.0"}, "loky 0.6.0"),
        ({"dependency:numpy": None}, "it has no numpy"),
        ({"python": "3.9.1"}, "Python 3.9.1"),
        ({"boot": "0"}, "boot program is of version 0"),
    ],
)
def test_an_image_that_does_not_fit_is_refused_by_name(changed: dict[str, str | None], why: str) -> None:
    tags = {name: v for name, v in {**tags_of("3.11.2", FITTING), **changed}.items() if v is not None}
    with pytest.raises(ImageMisfit, match=f"audience-explorer-2026-01-01 .ami-1.*{why}.*python -m ami build"):
        check_fit(Image(IMAGE.id, IMAGE.name, tags, IMAGE.root_device), volume_gb=50)


def test_an_image_that_the_volume_has_no_room_for_is_refused() -> None:
    with pytest.raises(ImageMisfit, match="needs a root volume of 80 GB: volume_gb is 50"):
        check_fit(Image("ami-1", "audience-explorer-1", tags_of("3.11.2", FITTING), "/dev/xvda", gigabytes=80), 50)


def test_the_newest_image_of_the_account_is_taken() -> None:
    with mock_aws():
        ec2 = boto3.client("ec2", region_name="us-east-1")
        with pytest.raises(NoImage, match="python -m ami build"):
            find_image(ec2, "audience-explorer-*")
        for day in ("01", "02"):
            ec2.register_image(Name=f"audience-explorer-2026-01-{day}", RootDeviceName="/dev/sda1")
        newest = find_image(ec2, "audience-explorer-*")
        assert newest.name == "audience-explorer-2026-01-02"
        assert find_image(ec2, newest.id) == newest
        with pytest.raises(NoImage, match="ami-00000000"):
            find_image(ec2, "ami-00000000")


def test_the_code_of_a_launch_is_the_same_file_each_time_and_holds_the_jobs() -> None:
    digest, archive = code.pack()
    code.pack.cache_clear()
    assert code.pack() == (digest, archive)
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(archive))) as tar:
        assert {"spark_jobs/__main__.py", "spark_jobs/kmeans.py"} <= set(tar.getnames())


# --- launches


@pytest.fixture
def launches() -> Iterator[LaunchStore]:
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket="bucket")
        yield LaunchStore(s3, "s3://bucket/some/where")


def test_the_folders_of_launches_say_whose_they_are(launches: LaunchStore) -> None:
    later = LaunchTags("20260102T000000-00000000", "p1", "r2", "tea-2024-01")
    for tags in (later, TAGS):
        launches.folder(tags).describe({"max_runtime": 1})
    launches.keep_code("abc", b"code")
    assert launches.list() == [TAGS, later]


def test_labels_are_short() -> None:
    months = [Partition("2024-01"), Partition("2024-02")]
    assert short_name(months[:1]) == "2024-01"
    assert short_name(months) == "2024-01-to-2024-02"
    assert short_name([Partition("2024-01", "coffee")]) == "coffee-2024-01"
    assert short_name([Partition("2024-01", "coffee"), Partition("2024-01", "tea")]) == "2-categories-2024-01"


# --- what becomes of a launch, by what its instance wrote and what EC2 says of it


class Watched:
    """A launch whose instance is played by the test, on S3 of moto's and without EC2."""

    def __init__(self, launches: LaunchStore, monkeypatch: pytest.MonkeyPatch):
        self.state = "running"
        self.reason = ""
        self.taken = OPTIONS[0]  # of the options, the one by which its instance was started
        self.terminated: list[str] = []
        self.errors: list[str] = []  # of the run's log
        self.at_second_poll: Callable[[], object] = lambda: None  # done when EC2 is asked a second time
        self._polls = 0
        self.folder = launches.folder(TAGS)
        self._numbers = {"messages": 0, "log": 0}
        self._count = 0
        self.settings = EC2StepLauncher(
            launches="s3://bucket/some/where", instance_profile="p", poll_seconds=0.01, max_runtime=3600
        )
        monkeypatch.setattr(EC2StepLauncher, "ec2", None)
        monkeypatch.setattr(prices, "price_of", lambda *_: prices.Price(3.6))
        monkeypatch.setattr(EC2StepLauncher, "ec2_once", None)
        monkeypatch.setattr(launch, "_STATE_SECONDS", 0.0)
        monkeypatch.setattr(outcome, "_MISSING_SECONDS", 0.1)
        monkeypatch.setattr(launch, "start_instance", lambda *_: (self.instance(), self.taken))
        monkeypatch.setattr(instances, "describe", lambda *_: self.poll())
        monkeypatch.setattr(instances, "find", lambda *_: [])
        monkeypatch.setattr(instances, "terminate", lambda _, found: set(self.terminated.extend(found) or ()))

    def instance(self) -> Instance:
        return Instance("i-1", "t", "", "spot", self.state, cast(Any, None), {}, self.reason)

    def poll(self) -> Instance:
        self._polls += 1
        if self._polls == 2:
            self.at_second_poll()
        return self.instance()

    def write(self, *messages: dict[str, Any]) -> None:
        self._numbers["messages"] += 1
        self._count += len(messages)
        body = "".join(json.dumps(message) + "\n" for message in messages).encode()
        self.folder.put(f"messages/{self._numbers['messages']:06}.jsonl", body)

    def print(self, text: str) -> None:
        self._numbers["log"] += 1
        self.folder.put(f"log/{self._numbers['log']:06}.txt", text.encode())

    def end(self, **status: Any) -> None:
        facts = {"messages": self._count, "objects": self._numbers, "exit_code": 0}
        flags = {"out_of_memory": False, "overdue": False}
        self.folder.put("status.json", json.dumps({**facts, **flags, **status}).encode())

    def launch(self) -> Launch:
        """The launch, not run yet."""
        log = SimpleNamespace(**dict.fromkeys(("info", "warning", "log"), lambda *_: None), error=self.errors.append)
        run = SimpleNamespace(run_id="r1", job_name="j")
        context = SimpleNamespace(log=log, run=run, retry_number=0)
        return Launch(self.settings, self.folder, TAGS, cast(dg.OpExecutionContext, context))

    def run(self, launch: Launch | None = None) -> list[Report]:
        """Run the launch of the jobs a and b; what they report."""
        jobs = [kmeans_job("a"), kmeans_job("b")]
        return list((launch or self.launch()).run(IMAGE, "s3://b/code", OPTIONS, jobs))


def report(job: str, event: str = "done", **facts: Any) -> dict[str, Any]:
    return {"method": "report_custom_message", "params": {"payload": {"job": job, "event": event, **facts}}}


@pytest.fixture
def watched(launches: LaunchStore, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(launches, monkeypatch)


def test_reports_are_yielded_in_order_and_the_instance_is_ended(watched: Watched) -> None:
    watched.write({"boot": "started", "instance": "i-1"}, report("a", "output"), report("a"))
    watched.write(report("b"))
    watched.end()
    reports = watched.run()
    assert [(of.job, of.event) for of in reports] == [("a", "output"), ("a", "done"), ("b", "done")]
    facts = reports[0].launch
    assert (facts["instance"], facts["id"], facts["market"]) == ("i-1", TAGS.launch, "spot")
    assert facts["total_seconds"] == facts["boot_seconds"] + facts["run_seconds"]
    assert facts["estimated_dollars"] == pytest.approx(facts["total_seconds"] / 1000, abs=1e-6)
    assert watched.terminated == ["i-1"]


def test_a_launch_of_which_a_message_is_missing_never_succeeds(watched: Watched) -> None:
    watched.write(report("a"), report("b"))
    watched.end(messages=3)
    with pytest.raises(MessagesLost, match="3 messages, 2 arrived"):
        watched.run()


def test_a_launch_of_which_an_object_is_missing_never_succeeds(watched: Watched) -> None:
    watched.write(report("a"), report("b"))
    watched.end(objects={"messages": 2, "log": 0})
    with pytest.raises(MessagesLost, match=r"wrote {'messages': 2"):
        watched.run()
    assert watched.terminated == ["i-1"]


@pytest.mark.parametrize(
    ("status", "kind", "what"),
    [
        ({"exit_code": -9, "out_of_memory": True}, OutOfMemory, "1 jobs not done"),
        ({"exit_code": -9}, JobFailed, "(?s)ended by SIGKILL.*its last words:\nAlas"),
        ({"exit_code": 1}, JobFailed, "exited with code 1"),
        ({"exit_code": -9, "overdue": True}, Overdue, "max_runtime"),
        ({"error": "ValueError: no"}, BootFailed, "ValueError: no"),
    ],
)
def test_ways_to_end_are_told_apart(
    watched: Watched, status: dict[str, Any], kind: type[EC2LaunchFailed], what: str
) -> None:
    watched.write(report("a"))
    watched.print("Alas\n")
    watched.end(**status)
    with pytest.raises(kind, match=what) as raised:
        watched.run()
    assert raised.type is kind
    assert (raised.value.instance, raised.value.launch) == ("i-1", TAGS.launch)
    assert raised.value.log == f"{watched.folder.location}/log/"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("Server.SpotInstanceTermination", SpotInterrupted),
        ("Server.InsufficientInstanceCapacity", NoCapacity),
        ("Client.UserInitiatedShutdown", TerminatedFromOutside),
        ("Client.InstanceInitiatedShutdown", BootFailed),
        ("Client.InternalError", Refused),
        ("Client.VolumeLimitExceeded", Refused),
        ("", BootFailed),
    ],
)
def test_an_instance_that_is_gone_without_a_status_is_told_by_what_ec2_says(
    watched: Watched, reason: str, kind: type[EC2LaunchFailed]
) -> None:
    watched.write(report("a"))
    watched.state, watched.reason = "terminated", reason
    with pytest.raises(kind) as raised:
        watched.run()
    assert raised.type is kind


def test_an_instance_that_is_lost_after_all_its_jobs_ended_is_no_failure(watched: Watched) -> None:
    watched.write(report("a"), report("b"))
    watched.state, watched.reason = "terminated", "Server.SpotInstanceTermination"
    assert [of.job for of in watched.run()] == ["a", "b"]


@pytest.mark.parametrize(
    ("interruption", "told"),
    [(ReadTimeoutError(endpoint_url="x"), Unreachable), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_an_instance_that_was_started_though_no_answer_came_is_ended_once_ec2_knows_it(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, interruption: BaseException, told: type[BaseException]
) -> None:
    found: list[list[Instance]] = [[], [], [watched.instance()]]

    def no_answer(*_: Any, **__: Any) -> None:
        raise interruption

    monkeypatch.setattr(launch, "start_instance", no_answer)
    monkeypatch.setattr(instances, "find", lambda *_: found.pop(0))
    with pytest.raises(told):
        watched.run()
    assert watched.terminated == ["i-1"]


def test_an_instance_that_cannot_be_started_is_told_in_ec2s_words(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = {"InstanceId": "i-1", "InstanceType": "t", "State": {"Name": "terminated"}, "LaunchTime": None}
    reason = {"Code": "Client.InternalError", "Message": "Client.InternalError: the key is not accessible"}
    monkeypatch.setattr(instances, "describe", lambda *_: instances.instance_of({**described, "StateReason": reason}))
    with pytest.raises(Refused, match=r"the key is not accessible\), with 2 jobs not done"):
        watched.run()


def test_an_instance_that_ec2_does_not_know_yet_and_so_forbids_to_end_is_ended_a_little_later(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A right that hangs on tags does not reach an instance whose tags are not known yet."""
    end, forbidden = instances.terminate, [True, True]

    def forbid(ec2: Any, found: Any) -> set[str]:
        if forbidden and forbidden.pop():
            answer = {"Error": {"Code": "UnauthorizedOperation"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
            raise ClientError(cast(Any, answer), "TerminateInstances")
        return end(ec2, found)

    monkeypatch.setattr(instances, "terminate", forbid)
    watched.write(report("a"), report("b"))
    watched.end()
    watched.run()
    assert watched.terminated == ["i-1"]
    assert watched.errors == []


def test_an_instance_that_may_never_be_ended_is_named_with_the_way_out(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(*_: Any) -> None:
        answer = {"Error": {"Code": "UnauthorizedOperation"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise ClientError(cast(Any, answer), "TerminateInstances")

    monkeypatch.setattr(instances, "terminate", forbid)
    monkeypatch.setattr(launch, "_UNKNOWN_SECONDS", 0.05)
    watched.write(report("a"), report("b"))
    watched.end()
    watched.run()
    (error,) = watched.errors
    assert f"audience-explorer ec2 rm launch={TAGS.launch}" in error


def test_a_launch_that_was_refused_leaves_nothing_to_look_for(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        answer = {"Error": {"Code": "UnauthorizedOperation"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise ClientError(cast(Any, answer), "RunInstances")

    monkeypatch.setattr(launch, "start_instance", refuse)
    monkeypatch.setattr(instances, "find", None)
    with pytest.raises(Refused, match=r"UnauthorizedOperation.*\[launch .*, log s3://"):
        watched.run()


def test_a_launch_without_a_network_leaves_nothing_to_look_for_either(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        answer = {"Error": {"Code": "VPCIdNotSpecified"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
        raise ClientError(cast(Any, answer), "RunInstances")

    monkeypatch.setattr(launch, "start_instance", refuse)
    monkeypatch.setattr(instances, "find", None)
    with pytest.raises(NoNetwork, match=r"There is no default network: .*create-default-vpc.*\[launch .*, log s3://"):
        watched.run()


def test_a_silent_instance_of_a_subnet_without_a_way_to_s3_is_told_so(watched: Watched) -> None:
    watched.state, watched.reason = "terminated", "Client.InstanceInitiatedShutdown"
    launched = watched.launch()
    launched._dead_ends = {None: "no way to S3. Make an endpoint"}
    with pytest.raises(NoWayToS3, match=r"left no status, with 2 jobs not done: no way to S3\. Make an endpoint"):
        watched.run(launched)


def test_a_broken_message_is_a_lost_one(watched: Watched) -> None:
    watched.folder.put("messages/000001.jsonl", b'{"boot": "started", "inst')
    with pytest.raises(MessagesLost, match="message 1 is broken"):
        watched.run()


def test_a_failure_is_told_with_the_log_that_comes_a_little_later(watched: Watched) -> None:
    watched.write(report("a", "failed", error="bad input"), report("b"))
    watched.at_second_poll = lambda: (watched.print("Traceback: why\n"), watched.end(exit_code=1))
    watched.run()
    assert watched.errors == ["a failed; the end of the log:\nTraceback: why"], "and nothing of b, which was done"


def test_jobs_that_are_done_are_no_errors(watched: Watched) -> None:
    watched.write(report("a", "output"), report("a"), report("b"))
    watched.end()
    watched.run()
    assert watched.errors == []


def test_a_launch_that_the_kernel_ended_a_process_of_logs_it_even_if_all_jobs_ended(watched: Watched) -> None:
    watched.write(report("a"), report("b"))
    watched.end(out_of_memory=True)
    watched.run()
    assert watched.errors == ["the kernel ended a process, because the machine had no memory left"]


def test_a_price_that_is_not_known_is_a_fact_and_no_crash(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "price_of", lambda *_: prices.Price(None, "AWS gives no price"))
    watched.write(report("a", "output"), report("a"), report("b"))
    watched.end()
    launched = watched.launch()
    facts = watched.run(launched)[0].launch
    assert facts["dollars_unknown"] == "AWS gives no price"
    assert "estimated_dollars" not in facts
    assert launched.uncounted_dollars() is None


def test_what_no_output_has_on_record_is_what_was_spent_since_the_last(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(launch, "time", SimpleNamespace(monotonic=lambda: now, sleep=lambda _: pass_time(1)))
    launched = watched.launch()
    assert launched.uncounted_dollars() == 0, "no instance was started yet"

    def make_an_output() -> None:
        pass_time(100)
        watched.write(report("a", "output"))
        watched.end()

    watched.at_second_poll = make_an_output
    with pytest.raises(JobFailed):
        watched.run(launched)
    assert launched.uncounted_dollars() == 0
    pass_time(50)
    assert launched.uncounted_dollars() == pytest.approx(50 * 3.6 / 3600)


# --- waiting for the end of an instance


def started(watched: Watched) -> Launch:
    """A launch whose instance was started and lost."""
    launched = watched.launch()
    watched.state, watched.reason = "terminated", "Server.SpotInstanceTermination"
    with pytest.raises(SpotInterrupted):
        watched.run(launched)
    return launched


def test_an_instance_is_waited_for_until_it_cannot_write_any_more(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = started(watched)
    states = ["running", "shutting-down", "terminated", "never asked for"]

    def describe(*_: Any) -> Instance:
        watched.state = states.pop(0)
        return watched.instance()

    monkeypatch.setattr(instances, "describe", describe)
    launched.wait_until_gone()
    assert states == ["never asked for"]


def test_an_instance_that_ec2_does_not_know_any_more_is_not_waited_for(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = started(watched)
    monkeypatch.setattr(instances, "describe", lambda *_: None)
    launched.wait_until_gone()


def test_waiting_goes_on_while_aws_does_not_answer_and_ends_where_it_refuses(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = started(watched)
    refused = ClientError(cast(Any, {"Error": {"Code": "UnauthorizedOperation"}}), "DescribeInstances")
    answers: list[Exception] = [ReadTimeoutError(endpoint_url="x"), refused]

    def describe(*_: Any) -> None:
        raise answers.pop(0)

    monkeypatch.setattr(instances, "describe", describe)
    with pytest.raises(Refused):
        launched.wait_until_gone()
    assert answers == []


def test_the_options_after_the_one_that_was_taken_come_first(watched: Watched) -> None:
    watched.taken = OPTIONS[1]
    launched = started(watched)
    assert launched.options_after(OPTIONS) == [OPTIONS[2], OPTIONS[0], OPTIONS[1]]
    assert watched.launch().options_after(OPTIONS) == OPTIONS, "none was taken"


def test_a_notice_makes_an_early_end_an_interruption(watched: Watched) -> None:
    watched.write(report("a"), {"boot": "spot_notice", "notice": {"time": "soon"}})
    watched.end(exit_code=3)
    with pytest.raises(SpotInterrupted):
        watched.run()


def test_a_launch_whose_jobs_all_had_their_turn_has_ended_well_even_if_some_failed(watched: Watched) -> None:
    watched.write(report("a", "failed", error="bad input"), report("b"))
    watched.end(exit_code=1)
    failed, _ = watched.run()
    assert failed.error.startswith("JobFailed: bad input [instance i-1, launch ")


# --- settings


def test_settings_come_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "INSTANCE_PROFILE": "profile",
        "INSTANCE_TYPES": "a.large, b.large",
        "MARKET": "spot",
        "VOLUME_GB": "20",
        "EXTRA_TAGS": "team=data,cost-center=1",
    }.items():
        monkeypatch.setenv(f"AUDIENCE_EXPLORER_EC2_{name}", value)
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", "s3://bucket/root")
    found = EC2StepLauncher.from_environment()
    assert found.instance_types == ["a.large", "b.large"]
    assert (found.market, found.volume_gb, found.launches) == ("spot", 20, "s3://bucket/root/launches")
    assert found.extra_tags == {"team": "data", "cost-center": "1"}


def test_settings_that_make_no_sense_are_named_by_their_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIENCE_EXPLORER_EC2_MARKET", "cheap")
    with pytest.raises(InputError, match=r"AUDIENCE_EXPLORER_EC2_INSTANCE_PROFILE: needed; .*MARKET: .*'spot'"):
        EC2StepLauncher.from_environment()


def test_launches_need_a_place_on_s3() -> None:
    with pytest.raises(InputError, match="s3://bucket/prefix is needed"):
        LaunchStore(boto3.client("s3", region_name="us-east-1"), "/a/folder")


def test_everything_is_tagged_as_this_projects() -> None:
    assert PROJECT.items() <= tags_of("3.11", {}).items()


# --- prices


def test_a_spot_instance_costs_what_the_price_history_says_now() -> None:
    told = {"SpotPriceHistory": [{"Timestamp": 1, "SpotPrice": "9"}, {"Timestamp": 2, "SpotPrice": "0.36"}]}
    ec2 = SimpleNamespace(describe_spot_price_history=lambda **_: told)
    assert prices.price_of(cast(Any, ec2), "t", "us-east-1a", "spot").of(100) == pytest.approx(0.01)


def test_a_price_that_nobody_tells_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: Any) -> None:
        raise ClientError(cast(Any, {"Error": {"Code": "AccessDenied", "Message": "no"}}), "GetProducts")

    monkeypatch.setattr(boto3, "client", lambda *_, **__: SimpleNamespace(get_products=refused))
    ec2 = SimpleNamespace(
        meta=SimpleNamespace(region_name="us-east-1"), describe_spot_price_history=lambda **_: {"SpotPriceHistory": []}
    )
    for market, why in {"on-demand": "AccessDenied", "spot": "no price of t"}.items():
        price = prices.price_of(cast(Any, ec2), "t", "us-east-1a", cast(Any, market))
        assert price.of(1) is None
        assert why in price.unknown
