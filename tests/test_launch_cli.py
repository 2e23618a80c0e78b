"""`audience-explorer launch`: what it says of launches, and what it does to them, on S3 and EC2 as moto plays them."""

import importlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import boto3
import dagster as dg
import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result
from moto import mock_aws

from ami import instances
from audience_explorer_dagster.cli import main
from audience_explorer_dagster.cli import project as cli_project
from audience_explorer_dagster.launchers import PIPELINE_TAG, LaunchFailed, Report
from audience_explorer_dagster.launchers.states import launcher_of, why_not_done
from audience_explorer_dagster.store import new_folder_name
from spark_jobs.launch import lease
from spark_jobs.launch.folder import S3Folder
from spark_jobs.launch.status import Status
from tests import project as made_up
from tests.account import BUCKET, LOCATION, Account, empty_account
from tests.project import LAUNCHES, Project

pytestmark = pytest.mark.filterwarnings("ignore")

COMMANDS = importlib.import_module("audience_explorer_dagster.cli.launch")  # the package has the group by this name
DONE = {"exit_code": 0, "overdue": False, "out_of_memory": False}
FAILED = {**DONE, "exit_code": 1}


@pytest.fixture(scope="module", autouse=True)
def aws() -> Iterator[None]:
    with mock_aws():
        yield


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    monkeypatch.setenv("AUDIENCE_EXPLORER_EC2_LAUNCHES", LOCATION)
    return empty_account(monkeypatch)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["launch", *arguments])


def said(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_project, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))


# --- which launches are meant ---


@pytest.mark.parametrize(
    "wanted",
    [
        "20240102T000001-00000001",
        "20240102T000001",
        "run-1111",
        "launch=20240102T000001-00000001",
        "run=run-11111111",
        "label=2024-01",
    ],
)
def test_a_launch_is_meant_by_an_id_its_beginning_or_a_tag(account: Account, wanted: str) -> None:
    meant = account.launch(status=DONE)
    account.launch("2024-02", run="run-22222222", status=DONE)
    assert [found["launch"] for found in said("ls", wanted)] == [meant.launch]


def test_a_pipeline_means_all_its_launches_the_newest_first(account: Account) -> None:
    first, second = account.launch(status=DONE), account.launch("13-categories-2024-01", run="run-2", status=DONE)
    account.launch(pipeline="20240103T000000-bbbbbbbb", status=DONE)
    assert [found["launch"] for found in said("ls", first.pipeline)] == [second.launch, first.launch]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("nothing", "There is no launch 'nothing'. List them: audience-explorer launch ls"),
        ("20240102T0000", "'20240102T0000' is the beginning of 3 ids, such as 20240102T000000-aaaaaaaa, 20240102T00"),
        ("202", "'202' is too short: 4 characters of an id are needed"),
        ("color=red", "'color' is not a tag of launches: they have launch, pipeline, run, label"),
    ],
)
def test_what_means_no_launch_or_several_things_is_refused(account: Account, wanted: str, says: str) -> None:
    account.launch()
    account.launch()
    result = run("status", wanted)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())


# --- how they stand ---


def test_status_tells_running_done_failed_and_missing_a_label(account: Account) -> None:
    running = account.launch("a-2024-01", instance=True)
    account.launch("b-2024-01", status=DONE)
    account.launch("c-2024-01", status={**DONE, "exit_code": -9, "out_of_memory": True})
    account.launch("d-2024-01")
    result = run("status", running.pipeline)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["a-2024-01", "running"],
        ["b-2024-01", "done"],
        ["c-2024-01", "failed"],
        ["d-2024-01", "missing"],
    ]
    assert "out of memory" in lines[3]
    assert lines[-1] == "1 running, 1 done, 1 failed, 1 missing"
    as_json = said("status", running.pipeline)
    assert (as_json["running"], as_json["done"], as_json["failed"], as_json["missing"]) == (1, 1, 1, 1)
    assert as_json["launches"][0]["instance_type"] == "m5.large"


def test_a_lost_instance_is_missing_and_its_end_is_told(account: Account) -> None:
    tags = account.launch(instance=True)
    (instance,) = instances.find(account.ec2)
    instances.terminate(account.ec2, [instance.id])
    (found,) = said("status", tags.launch)["launches"]
    assert found["state"] == "missing"
    assert f"{instance.id} is terminated (" in found["why"]


def test_a_launch_that_just_began_runs_though_ec2_tells_of_no_instance_yet(account: Account) -> None:
    tags = account.launch(launch=new_folder_name())
    assert said("status", tags.launch)["launches"][0]["state"] == "running"


def test_a_launch_whose_work_was_taken_up_is_left_out_unless_all_are_wanted(account: Account) -> None:
    first = account.launch("2-categories-2024-01", status=FAILED, jobs=("kmeans a|2024-01", "kmeans b|2024-01"))
    in_its_run = account.launch("2-categories-2024-01", status=FAILED, jobs=("kmeans b|2024-01",))
    other_block = account.launch("2-categories-2024-01", run="run-2", status=DONE, jobs=("kmeans d|2024-01",))
    retried = account.launch("2-categories-2024-01", run="run-3", status=DONE, jobs=("kmeans b|2024-01",))
    other_label = account.launch("2024-02", status=DONE, jobs=("kmeans b|2024-01",))

    def shown(*options: str) -> list[str]:
        return [found["launch"] for found in said("status", first.pipeline, *options)["launches"]]

    assert shown() == [tags.launch for tags in (other_block, retried, other_label)]
    assert shown("--all") == [tags.launch for tags in (first, in_its_run, other_block, retried, other_label)]


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (DONE, ""),
        ({"error": "NoSuchKey: description.json"}, "the jobs could not be started: NoSuchKey: description.json"),
        (FAILED, "jobs failed (exit code 1)"),
        ({**DONE, "exit_code": 3}, "stopped before all jobs had their turn, because AWS takes the instance back"),
        ({**DONE, "exit_code": -9, "overdue": True}, "overdue"),
        ({**DONE, "exit_code": -9, "out_of_memory": True}, "out of memory"),
        ({**DONE, "exit_code": -15}, "ended by SIGTERM"),
        ({**DONE, "exit_code": 7}, "exit code 7"),
        ({}, "exit code None"),
    ],
)
def test_each_way_to_end_has_its_words(status: dict[str, Any], why: str) -> None:
    found = why_not_done(Status(**status))
    assert found.startswith(why)
    assert bool(found) == bool(why)


def test_ls_shows_the_newest_and_says_how_many_it_leaves_out(account: Account) -> None:
    tags = [account.launch(run=f"run-{number}", status=DONE) for number in range(3)]
    result = run("ls", "--limit", "2")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["launch", tags[2].launch, tags[1].launch]
    assert "1 older ones are left out" in result.stderr


# --- waiting ---


def test_wait_ends_well_only_if_all_did(account: Account) -> None:
    first = account.launch("a-2024-01", status=DONE)
    assert run("wait", first.pipeline).exit_code == 0
    lost = account.launch("b-2024-01")
    result = run("wait", first.pipeline)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "b-2024-01 missing" in result.stderr
    assert f"audience-explorer launch log {lost.launch}" in result.stderr


def test_wait_waits_for_the_launch_that_replaces_a_lost_one(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = account.launch(instance=True)
    (instance,) = instances.find(account.ec2)
    later = iter(
        [
            lambda: instances.terminate(account.ec2, [instance.id]),
            lambda: account.launch(instance=True),  # after a look at which none ran
            lambda: account.end(account.store.list()[-1], DONE),
            lambda: instances.terminate(account.ec2, [one.id for one in instances.find(account.ec2)]),
            lambda: None,
        ]
    )
    monkeypatch.setattr(time, "sleep", lambda _: next(later)())
    result = run("wait", lost.pipeline)
    assert result.exit_code == 0, result.stderr
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [
        "1 running",
        "1 missing",
        "1 running",
        "1 done",
    ]


def test_wait_gives_up_in_time_with_the_exit_code_of_timeout(account: Account) -> None:
    tags = account.launch(instance=True)
    result = run("wait", tags.launch, "--timeout", "0.2", "--poll", "0.1")
    assert result.exit_code == 124
    assert "it took more than 0.2 s" in result.stderr


# --- logs ---


def test_log_prints_a_launchs_log_as_it_was_written(account: Account) -> None:
    tags = account.launch(status=DONE, log=(b"one\ntw", b"o \xc3", b"\xa9\n"))
    assert run("log", tags.launch).stdout == "one\ntwo é\n"


def test_log_tells_launches_of_the_same_label_apart(account: Account) -> None:
    first = account.launch(status=DONE, log=(b"old\n",))
    second = account.launch(status=DONE, log=(b"new\n",))
    assert set(run("log", second.pipeline).stdout.splitlines()) == {
        f"{first.label} {first.launch}: old",
        f"{second.label} {second.launch}: new",
    }


def test_log_says_so_if_there_is_none_and_how_the_launch_stands(account: Account) -> None:
    tags = account.launch()
    result = run("log", tags.launch)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "has logged nothing; it is missing" in result.stderr


def test_log_follows_until_the_launch_has_ended(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = account.launch(instance=True, log=(b"one\n",))

    def end() -> None:
        account.log(tags, b"three\n")
        account.end(tags, DONE)

    later = iter([lambda: account.log(tags, b"two\n"), end])
    monkeypatch.setattr(time, "sleep", lambda _: next(later)())
    assert run("log", tags.launch, "--follow").stdout == "one\ntwo\nthree\n"


@pytest.fixture
def no_ec2(monkeypatch: pytest.MonkeyPatch) -> None:
    """EC2 grants nothing, as to the role in emr/iam/launcher.json. A lease that exists is new: moto gives no times."""

    def age(folder: S3Folder, name: str) -> float | None:
        return None if folder.get(name) is None else 0.0

    monkeypatch.setattr(S3Folder, "age", age)

    def refuse(*_: Any, **__: Any) -> None:
        answer: Any = {"Error": {"Code": "UnauthorizedOperation"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise ClientError(answer, "DescribeInstances")

    monkeypatch.setattr(instances, "find", refuse)


@pytest.mark.usefixtures("no_ec2")
def test_the_log_of_a_launch_on_emr_serverless_is_followed_by_its_lease_without_asking_ec2(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = account.launch(launcher="emr-serverless", log=(b"one\n",))
    account.store.folder(tags).renew_lease()

    def end() -> None:
        account.log(tags, b"three\n")
        account.end(tags, DONE)

    later = iter([lambda: account.log(tags, b"two\n"), end])
    monkeypatch.setattr(time, "sleep", lambda _: next(later)())
    result = run("log", tags.launch, "--follow")
    assert result.exit_code == 0, result.output
    assert result.stdout == "one\ntwo\nthree\n"


@pytest.mark.usefixtures("no_ec2")
def test_a_launch_on_emr_serverless_stands_by_its_status_or_else_its_lease(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label, status in {"a": DONE, "b": FAILED, "c": None}.items():
        account.launch(label, launcher="emr-serverless", status=status)
    waited_for = account.launch("d", launcher="emr-serverless")
    account.store.folder(waited_for).renew_lease()
    states = {found["label"]: found["state"] for found in said("status", waited_for.pipeline)["launches"]}
    assert states == {"a": "done", "b": "failed", "c": "missing", "d": "running"}
    monkeypatch.setattr(lease, "LEASE_SECONDS", -1)
    assert said("status", waited_for.launch)["launches"][0]["why"] == "its job run left no status"


@pytest.mark.usefixtures("no_ec2")
def test_rm_of_a_launch_on_emr_serverless_deletes_its_lease_so_that_its_driver_ends(account: Account) -> None:
    tags = account.launch(launcher="emr-serverless")
    folder = account.store.folder(tags)
    folder.renew_lease()
    result = run("rm", tags.launch, "--yes")
    assert result.exit_code == 0, result.output
    assert folder.lease_age() is None


def test_a_launch_of_an_earlier_version_is_of_the_launcher_that_its_description_fits() -> None:
    assert launcher_of({"launched": {"application": "00f1 (emr-7.12.0, x86_64)"}}) == "emr-serverless"
    assert launcher_of({"launched": {"image": "audience-explorer-2024-01-01 (ami-1)"}}) == "ec2"
    assert launcher_of({}) == "ec2"


def test_log_of_several_launches_prints_whole_lines_after_their_labels(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = account.launch("a-2024-01", instance=True, log=(b"o",))
    account.launch("b-2024-01", status=DONE, log=(b"x\ny",))

    def end() -> None:
        account.log(first, b"ne\nrest")
        account.end(first, DONE)

    later = iter([end])
    monkeypatch.setattr(time, "sleep", lambda _: next(later)())
    lines = run("log", first.pipeline, "-f").stdout.splitlines()
    assert lines == ["b-2024-01: x", "a-2024-01: one", "a-2024-01: rest", "b-2024-01: y"]


def test_params_prints_commands_that_a_shell_takes(account: Account) -> None:
    tags = account.launch(jobs=("kmeans a|2024-01",))
    printed = run("params", tags.launch).stdout
    assert "python -m spark_jobs.kmeans 'in put' out" in printed
    assert "m5.large (spot), m5.large (on-demand)" in printed
    (described,) = said("params", tags.launch)
    assert (described["max_runtime"], described["code"]) == (60, "s3://audience/code/1.tar.gz")
    ((*command, _),) = described["commands"]
    assert command[:3] == ["kmeans", "in put", "out"]
    assert described["label"] == tags.label


# --- again, and away ---


class LosesItsMachine(made_up.InProcessLauncher):
    """Loses its machine before the last report."""

    def launch(self, context: Any, jobs: Any) -> Iterator[Report]:
        is_lost = jobs[-1].module == "make_report"
        yield from super().launch(context, jobs[:-1] if is_lost else jobs)
        if is_lost:
            raise LaunchFailed("its instance was lost")


@pytest.fixture
def loaded(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project that `retry` loads: not that of $DAGSTER_HOME and the root, but one with a launcher that is here."""
    as_loaded = cli_project.Project(project.definitions, project.instance, project.store)
    monkeypatch.setattr(COMMANDS, "open_project", lambda _: nullcontext(as_loaded))
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", str(project.root))
    monkeypatch.setenv("AUDIENCE_EXPLORER_LAUNCHER", "local")
    return project


def test_retry_launches_only_what_is_missing_in_a_run_of_the_same_pipeline(account: Account, loaded: Project) -> None:
    loaded.definitions = made_up.definitions(str(loaded.root), LosesItsMachine())
    outcomes = loaded.pipeline(["2024-01"], ["games", "tea"], kmeans={"k": 2})
    assert [name for name, outcome in outcomes.items() if outcome.status == "failed"] == ["audience_report tea|2024-01"]
    LAUNCHES.clear()
    first = loaded.instance.get_runs(limit=1)[0]
    lost = account.launch(run=first.run_id, pipeline=first.tags[PIPELINE_TAG])

    result = run("retry", lost.launch, "--yes", "--json")
    assert result.exit_code == 0, result.output
    assert LAUNCHES == [["make_report tea|2024-01"]]
    told = json.loads(result.stdout)
    assert (told["launched"], told["reused"], told["failed"]) == (1, 8, 0)
    again = loaded.instance.get_runs(limit=1)[0]
    assert again.run_id != first.run_id
    assert again.run_config["ops"] == first.run_config["ops"]
    assert again.asset_selection == first.asset_selection
    assert again.tags[PIPELINE_TAG] == lost.pipeline
    assert again.tags["dagster/parent_run_id"] == lost.run
    assert os.environ["AUDIENCE_EXPLORER_LAUNCHER"] == "ec2"


@pytest.mark.parametrize("configured", ["local", "ec2", "emr-serverless"])
@pytest.mark.usefixtures("no_ec2")
def test_retry_is_by_the_launcher_that_the_launch_was_made_by(
    account: Account, loaded: Project, monkeypatch: pytest.MonkeyPatch, configured: str
) -> None:
    monkeypatch.setenv("AUDIENCE_EXPLORER_LAUNCHER", configured)
    monkeypatch.setenv("AUDIENCE_EXPLORER_EMR_LAUNCHES", "s3://elsewhere/launches")
    monkeypatch.setenv("AUDIENCE_EXPLORER_EMR_REGION", "eu-north-1")
    lost = account.launch(launcher="emr-serverless", run=failed_run(loaded))
    assert run("retry", lost.launch, "--yes", "--region", "us-east-1").exit_code == 1
    assert os.environ["AUDIENCE_EXPLORER_LAUNCHER"] == "emr-serverless"
    assert os.environ["AUDIENCE_EXPLORER_EMR_LAUNCHES"] == LOCATION
    assert os.environ["AUDIENCE_EXPLORER_EMR_REGION"] == "us-east-1"


def test_retry_refuses_launches_of_several_launchers_at_a_time(account: Account, loaded: Project) -> None:
    run_id = failed_run(loaded)
    account.launch("a", run=run_id)
    lost = account.launch("b", run=run_id, launcher="emr-serverless")
    result = run("retry", lost.pipeline, "--yes")
    assert result.exit_code == 2
    assert "made by ec2 and emr-serverless: launch those of each again by themselves" in " ".join(result.stderr.split())


def failed_run(project: Project, **tags: str) -> str:
    """A run that failed, for its month has no raw data."""
    job = project.definitions.resolve_job_def("whole_month")
    return job.execute_in_process(
        instance=project.instance, tags={"dagster/partition": "2024-05", **tags}, raise_on_error=False
    ).run_id


def test_retry_of_what_fails_again_has_exit_code_1_and_says_why(account: Account, loaded: Project) -> None:
    run_id = failed_run(loaded, team="audience", **{"dagster/backfill": "abc", "dagster/retry_number": "2"})
    result = run("retry", account.launch(run=run_id).launch, "--yes")
    assert result.exit_code == 1
    assert "There is no raw data in" in result.stdout
    again = loaded.instance.get_runs(limit=1)[0]
    kept = {name: value for name, value in again.tags.items() if not name.startswith(".")}
    assert kept == {
        "team": "audience",
        "dagster/partition": "2024-05",
        "dagster/parent_run_id": run_id,
        "dagster/root_run_id": run_id,
        "dagster/failure_reason": "STEP_FAILURE",  # Dagster's, as the new one failed, too
        "dagster/code_location": "audience_explorer",
        "dagster/max_retries": "0",  # a command's run is repeated by commands
        PIPELINE_TAG: "20240102T000000-aaaaaaaa",
    }


def test_retry_asks_and_leaves_all_as_it_is_without_a_terminal(account: Account, loaded: Project) -> None:
    lost = account.launch(run=failed_run(loaded))
    result = run("retry", lost.launch)
    assert result.exit_code == 2
    assert "If you are sure: --yes" in result.stderr
    assert [run.run_id for run in loaded.instance.get_runs()] == [lost.run]


def test_retry_needs_nothing_if_all_ended_well(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", "s3://nowhere")
    result = run("retry", account.launch(status=DONE).launch, "--yes")
    assert result.exit_code == 0
    assert "nothing failed" in result.stderr


def test_retry_refuses_a_run_of_other_records_and_says_where_it_looked(account: Account, loaded: Project) -> None:
    unknown = account.launch(run="0123-4567")
    result = run("retry", unknown.launch, "--yes")
    assert result.exit_code == 1
    assert f"0123-4567 of launch {unknown.launch} is not known in {loaded.instance.root_directory}" in result.stderr


def test_retry_refuses_a_run_for_which_somebody_waits(
    account: Account, loaded: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = loaded.definitions.resolve_job_def("whole_month")
    going = loaded.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    monkeypatch.setattr(S3Folder, "lease_age", lambda _: 5.0)
    result = run("retry", account.launch(run=going.run_id).launch, "--yes")
    assert result.exit_code == 1
    assert "is not over (STARTED): somebody waited for it 5 s ago" in result.stderr


def test_rm_ends_instances_and_deletes_folders_of_these_launches_only(account: Account) -> None:
    going, ended = account.launch(instance=True), account.launch("2024-02", status=DONE, log=(b"x\n",))
    other = account.launch("2024-03", instance=True)
    result = run("rm", going.launch, ended.launch, "--yes")
    assert result.exit_code == 0, result.output
    assert account.store.list() == [other]
    assert [instance.tags["launch"] for instance in instances.find(account.ec2)] == [other.launch]


def test_rm_asks_and_does_nothing_if_the_answer_is_no(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = account.launch(instance=True)
    without_terminal = run("rm", tags.launch)
    assert without_terminal.exit_code == 2
    at_a_terminal(monkeypatch)
    declined = CliRunner().invoke(main, ["launch", "rm", tags.launch], input="n\n")
    assert declined.exit_code == 1
    assert tags.launch in declined.stderr
    assert account.store.list() == [tags]
    assert len(instances.find(account.ec2)) == 1
    agreed = CliRunner().invoke(main, ["launch", "rm", tags.launch], input="y\n")
    assert agreed.exit_code == 0
    assert account.store.list() == []


# --- where they are ---


def test_launches_lie_below_a_root_on_s3_unless_said_otherwise(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = account.launch(status=DONE)
    monkeypatch.delenv("AUDIENCE_EXPLORER_EC2_LAUNCHES")
    result = run("ls")
    assert result.exit_code == 2
    assert (
        "--launches s3://bucket/prefix, or set AUDIENCE_EXPLORER_EC2_LAUNCHES or AUDIENCE_EXPLORER_EMR_LAUNCHES"
        in " ".join(result.stderr.split())
    )
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", f"s3://{BUCKET}/explorer/")
    assert [found["launch"] for found in said("ls")] == [tags.launch]


@pytest.mark.usefixtures("account")
def test_what_aws_refuses_is_told_in_a_line() -> None:
    result = run("ls", "--launches", "s3://no-such-bucket/launches")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: AWS: An error occurred (NoSuchBucket)")


def test_missing_credentials_are_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps those that it found
    result = run("ls", "--launches", LOCATION, "--region", "us-east-1")
    assert (result.exit_code, result.stderr) == (1, "Error: AWS: Unable to locate credentials\n")
