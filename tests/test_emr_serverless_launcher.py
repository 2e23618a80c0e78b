"""The EMR Serverless launcher, against moto, which keeps job runs and does nothing with them.

It starts no driver, knows no dashboards, bills nothing, accepts no release of Spark 4, and denies an application
without job runs when they are listed. What a driver does is done by `Driver` here; that the real one does it, and that
the packed archive runs, is told by acceptance/emr_serverless.py.
"""

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import boto3
import dagster as dg
import moto.emrserverless.models as moto_models
import pytest
from moto import mock_aws
from moto.moto_api._internal import moto_api_backend

from audience_explorer_dagster.definitions import definitions
from audience_explorer_dagster.launchers import Job, LaunchFailed, Report, packing
from audience_explorer_dagster.launchers.emr_serverless.launcher import EMRServerlessLauncher
from spark_jobs.errors import InputError
from tests.jobs import kmeans_job

ROLE = "arn:aws:iam::123456789012:role/jobs"
LAUNCHES = "s3://bucket/explorer/launches"
JOBS = [kmeans_job(job, "spark") for job in ("a", "b")]
BILLED = {"vCPUHour": 2.0, "memoryGBHour": 10.0, "storageGBHour": 0.0}


def pipes(method: str, **params: Any) -> dict[str, Any]:
    return {"__dagster_pipes_version": "0.1", "method": method, "params": params}


def report(job: str, event: str = "done", **facts: Any) -> dict[str, Any]:
    return pipes("report_custom_message", payload={"job": job, "event": event, **facts})


class Driver:
    """What the one job run of a test says, and how it ends."""

    def __init__(self, account: "Account", run: Any):
        self._account, self.run = account, run
        self.location = run.job_driver["sparkSubmit"]["entryPointArguments"][0]
        self._prefix = self.location.removeprefix("s3://bucket/")
        self._objects = {"messages": 0, "log": 0}
        self._messages = 0

    def put(self, name: str, body: bytes) -> None:
        self._account.s3.put_object(Bucket="bucket", Key=f"{self._prefix}/{name}", Body=body)

    def head(self, name: str) -> dict[str, Any]:
        return cast(dict[str, Any], self._account.s3.head_object(Bucket="bucket", Key=f"{self._prefix}/{name}"))

    def get(self, name: str) -> dict[str, Any]:
        found = self._account.s3.get_object(Bucket="bucket", Key=f"{self._prefix}/{name}")["Body"].read()
        return cast(dict[str, Any], json.loads(found))

    def tell(self, *messages: dict[str, Any]) -> None:
        self._objects["messages"] += 1
        self._messages += len(messages)
        body = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
        self.put(f"messages/{self._objects['messages']:06}.jsonl", body)

    def print(self, text: str) -> None:
        self._objects["log"] += 1
        self.put(f"log/{self._objects['log']:06}.txt", text.encode())

    def end(self, state: str = "SUCCESS", details: str = "", **status: Any) -> None:
        """End, with a status if there is anything to say of it."""
        if status:
            told = {"overdue": False, "out_of_memory": False, "messages": self._messages, "objects": self._objects}
            self.put("status.json", json.dumps({**told, **status}).encode())
        self.run.state_details = details
        self.run.billed_resource_utilization = BILLED
        self.run.state = state


class Account:
    """An AWS account with a bucket and an application."""

    def __init__(self) -> None:
        self.s3, self.emr = boto3.client("s3"), boto3.client("emr-serverless")
        self.s3.create_bucket(Bucket="bucket")
        made = self.emr.create_application(name="explorer", releaseLabel="emr-7.12.0", type="SPARK")
        self.application = made["applicationId"]
        self.backend = moto_models.emrserverless_backends["123456789012"]["us-east-1"]
        self.backend.job_runs[self.application] = []
        self.reports: list[Report] = []
        self.said: list[str] = []

    @property
    def runs(self) -> list[Any]:
        """The job runs, as moto keeps them."""
        return cast(list[Any], self.backend.job_runs[self.application])

    def launcher(self, **changed: Any) -> EMRServerlessLauncher:
        settings = {"application": self.application, "role": ROLE, "launches": LAUNCHES, "poll_seconds": 0.02}
        return EMRServerlessLauncher(**{**settings, **changed})

    def launch(
        self,
        driver: Callable[[Driver], None] | None = None,
        jobs: Sequence[Job] = JOBS,
        until: Callable[[], bool] = lambda: False,
        **changed: Any,
    ) -> str:
        """Launch jobs in a Dagster run, whose reports are kept; the error of the launch, if it had one."""
        launcher, errors = self.launcher(**changed), [""]

        @dg.op
        def launch_jobs(context: dg.OpExecutionContext) -> None:
            try:
                for told in launcher.launch(context, jobs):
                    self.reports.append(told)
                    if until():
                        break
            except LaunchFailed as error:
                errors.append(str(error))

        @dg.job(partitions_def=dg.StaticPartitionsDefinition(["2024-01"]))
        def job() -> None:
            launch_jobs()

        threading.Thread(target=self._play, args=(driver, len(self.runs)), daemon=True).start()
        with dg.DagsterInstance.ephemeral() as instance:
            done = job.execute_in_process(partition_key="2024-01", instance=instance)
            self.said = [entry.user_message for entry in instance.all_logs(done.run_id)]
        return errors[-1]

    def _play(self, driver: Callable[[Driver], None] | None, before: int) -> None:
        until = time.monotonic() + 120
        while driver is not None and time.monotonic() < until:
            if len(self.runs) > before:
                played = Driver(self, self.runs[-1])
                try:
                    driver(played)
                except Exception as error:
                    played.end("FAILED", f"the test's driver failed: {error!r}")
                return
            time.sleep(0.01)


@pytest.fixture(scope="module")
def aws() -> Iterator[None]:
    """moto, for all tests: to start it takes as long as some of them."""
    with mock_aws():
        yield


@pytest.fixture
def account(aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Account:  # noqa: ARG001
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    monkeypatch.setattr(moto_models, "JOB_STATUS", "RUNNING")  # and not ended at once
    packed = tmp_path / "packed.tar.gz"
    packed.write_bytes(b"packed")
    monkeypatch.setattr(packing, "build", lambda _: packed)
    moto_api_backend.reset()
    return Account()


def all_done(driver: Driver) -> None:
    driver.tell({"boot": "started"}, {"boot": "jobs"}, pipes("opened", extras={}))
    driver.tell(report("a", "output", folder="of a"), report("a"))
    driver.tell(report("b", "output", folder="of b"), report("b"), pipes("closed"))
    driver.end(exit_code=0)


def test_reports_come_in_order_and_the_last_output_tells_what_the_launch_cost(account: Account) -> None:
    assert account.launch(all_done) == ""
    assert [(of.job, of.event) for of in account.reports] == [
        *[("a", "output"), ("a", "done")],
        *[("b", "output"), ("b", "done")],
    ]
    first, last = (of.launch for of in account.reports if of.event == "output")
    assert "estimated_dollars" not in first
    assert last["estimated_dollars"] == pytest.approx(2 * 0.052624 + 10 * 0.0057785, abs=1e-6)
    assert (last["vcpu_hours"], last["memory_gb_hours"]) == (2, 10)
    assert last["job_run"] == account.runs[0].id
    assert not [line for line in account.said if "did not receive" in line or "not supported" in line]


def test_reports_come_while_the_jobs_run(account: Account) -> None:
    def driver(driver: Driver) -> None:
        driver.tell(report("a", "output", folder="of a"), report("a"))
        until = time.monotonic() + 120
        while len(account.reports) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        driver.tell(report("b", "output", folder=f"seen {len(account.reports)}"), report("b"))
        driver.end(exit_code=0)

    assert account.launch(driver) == ""
    assert account.reports[2].folder == "seen 2"


def properties_of(run: Any) -> dict[str, str]:
    """Spark's properties of a job run, as AWS is given them."""
    (defaults,) = run.configuration_overrides["applicationConfiguration"]
    assert defaults["classification"] == "spark-defaults"
    return cast(dict[str, str], defaults["properties"])


def test_a_property_may_have_any_characters(account: Account) -> None:
    """AWS takes the text of parameters apart by blanks, and a quote in it may be taken for a part of the value."""
    account.launch(all_done, conf={"spark.driver.extraJavaOptions": "-Da='b c' -De=#"})
    (run,) = account.runs
    assert properties_of(run)["spark.driver.extraJavaOptions"] == "-Da='b c' -De=#"
    parameters = run.job_driver["sparkSubmit"]["sparkSubmitParameters"]
    assert not set("'\"#") & set(parameters), "what is left there is Dagster's own"


def test_a_job_run_is_asked_for_as_configured(account: Account) -> None:
    account.launch(
        all_done,
        driver_memory_gb=30,
        python_share=0.6,
        max_executors=7,
        max_runtime=3600,
        conf={"spark.sql.shuffle.partitions": "64"},
        extra_tags={"team": "data"},
    )
    (run,) = account.runs
    submit = run.job_driver["sparkSubmit"]
    expected = {
        "spark.driver.memory": "12288m",
        "spark.executor.memory": "6553m",
        "spark.emr-serverless.memoryOverheadFactor": "1.5",
        "spark.dynamicAllocation.maxExecutors": "7",
        "spark.sql.shuffle.partitions": "64",
        "spark.executorEnv.PYSPARK_PYTHON": "./environment/bin/python",
        "spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON": "./environment/bin/python",
    }
    assert expected.items() <= properties_of(run).items()
    assert (run.execution_role, run.execution_timeout_minutes) == (ROLE, 60)
    assert {"project": "audience-explorer", "label": "2024-01", "team": "data"}.items() <= run.tags.items()
    logs = run.configuration_overrides["monitoringConfiguration"]["s3MonitoringConfiguration"]["logUri"]
    assert logs == f"{submit['entryPointArguments'][0]}/spark/"


def test_a_launch_fits_by_default_into_the_quota_of_a_new_account() -> None:
    settings = {name: field.default for name, field in EMRServerlessLauncher.model_fields.items()}
    assert settings["driver_cores"] + settings["max_executors"] * settings["executor_cores"] <= 16


def test_the_driver_and_the_executors_know_the_region_by_both_names_that_clients_read(account: Account) -> None:
    account.launch(all_done)
    (run,) = account.runs
    for process in ("spark.emr-serverless.driverEnv", "spark.executorEnv"):
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            assert properties_of(run)[f"{process}.{name}"] == "us-east-1"


def test_the_archive_and_the_program_are_on_s3_before_the_job_run(account: Account) -> None:
    account.launch(all_done)
    account.launch(all_done)
    assert len(account.runs) == 2
    keys = [entry["Key"] for entry in account.s3.list_objects_v2(Bucket="bucket")["Contents"]]
    code = [f"s3://bucket/{key}" for key in keys if "/code/" in key]
    submit = account.runs[1].job_driver["sparkSubmit"]
    assert sorted(code) == sorted([submit["entryPoint"], f"{LAUNCHES}/code/{packing.name('x86_64')}"])
    archive = f"{LAUNCHES}/code/{packing.name('x86_64')}#environment"
    assert properties_of(account.runs[1])["spark.archives"] == archive


def test_what_the_jobs_are_is_in_the_description_and_no_secret_in_what_aws_keeps(account: Account) -> None:
    described: dict[str, Any] = {}

    def driver(driver: Driver) -> None:
        described.update(driver.get("description.json"))
        all_done(driver)

    account.launch(driver)
    assert [job["id"] for job in described["context"]["extras"]["jobs"]] == ["a", "b"]
    assert described["context"]["run_id"] == account.runs[0].tags["run"]
    kept = json.dumps([account.runs[0].job_driver, account.runs[0].tags, described])
    assert "testing-secret" not in kept


def test_a_job_that_fails_is_a_report_that_says_where_its_log_is(account: Account) -> None:
    def driver(driver: Driver) -> None:
        driver.tell(report("a", "failed", error="bad input"), report("b", "output", folder="of b"), report("b"))
        driver.end("FAILED", exit_code=1)

    assert account.launch(driver) == ""
    failed = account.reports[0]
    assert failed.error.startswith(f"EMR Serverless: bad input [job run {account.runs[0].id}, launch ")
    assert failed.error.endswith("/log/]")


def test_a_job_run_that_ends_early_is_told_with_its_state_and_sparks_last_words(account: Account) -> None:
    def driver(driver: Driver) -> None:
        driver.tell(report("a", "output", folder="of a"), report("a"))
        of_spark = f"spark/applications/{account.application}/jobs/{driver.run.id}/SPARK_DRIVER/stderr.gz"
        driver.put(of_spark, gzip.compress(b"26/11/23 INFO\nthis machine has no python3.11"))
        driver.end("FAILED", "Job failed, ExitCode: 127")

    error = account.launch(driver)
    assert "the job run ended as FAILED, with 1 of 2 jobs not done: Job failed, ExitCode: 127" in error
    assert "this machine has no python3.11" in error
    assert account.reports[0].folder == "of a", "what was reported stands"


@pytest.mark.parametrize(
    ("status", "what"),
    [
        ({"exit_code": -9, "out_of_memory": True}, "raise driver_memory_gb or python_share, with 1 of 2 jobs"),
        ({"exit_code": -9, "overdue": True}, "longer than max_runtime"),
        ({"exit_code": -11}, "ended with exit code -11, with 1 of 2 jobs not done; last words:\nAlas"),
        ({"error": "ValueError: no"}, "could not be run: ValueError: no"),
        ({"exit_code": 0, "messages": 3}, "messages are lost"),
    ],
)
def test_ways_to_end_are_told_apart(account: Account, status: dict[str, Any], what: str) -> None:
    def driver(driver: Driver) -> None:
        driver.tell(report("a"))
        driver.print("Alas\n")
        driver.end("FAILED", **status)

    assert what in account.launch(driver)


def test_an_interrupted_launch_cancels_its_job_run(account: Account) -> None:
    account.launch(lambda driver: driver.tell(report("a")), until=lambda: True)
    assert account.runs[0].state == "CANCELLED"


def test_what_an_earlier_attempt_of_the_run_left_is_cancelled(account: Account) -> None:
    request: dict[str, Any] = {"applicationId": account.application, "executionRoleArn": ROLE}
    account.emr.start_job_run(**request, name="audience-explorer 2024-01 another-run")
    launcher = account.launcher()

    @dg.op
    def launch_jobs(context: dg.OpExecutionContext) -> None:
        account.emr.start_job_run(**request, name=f"audience-explorer 2024-01 {context.run_id}")
        threading.Thread(target=account._play, args=(all_done, 2), daemon=True).start()
        list(launcher.launch(context, JOBS))

    @dg.job(partitions_def=dg.StaticPartitionsDefinition(["2024-01"]))
    def job() -> None:
        launch_jobs()

    job.execute_in_process(partition_key="2024-01")
    assert [run.state for run in account.runs] == ["RUNNING", "CANCELLED", "SUCCESS"]


def test_an_application_or_a_role_that_aws_refuses_is_told(account: Account) -> None:
    assert "ResourceNotFoundException" in account.launch(application="unknown")
    assert "could not be started: An error occurred (AccessDenied" in account.launch(role=ROLE.replace("123", "999"))
    assert account.runs == []


def test_the_local_engine_is_refused_before_anything_is_asked_for(account: Account) -> None:
    assert "a asks for the engine local" in account.launch(jobs=[kmeans_job("a", "local")])
    assert account.runs == []


def test_the_address_of_sparks_ui_which_has_a_token_is_not_logged(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, get_job_run = threading.Semaphore(0), account.backend.get_job_run

    def look(**asked: str) -> Any:
        looks.release()
        return get_job_run(**asked)

    def driver(driver: Driver) -> None:
        for _ in range(2):  # a second look comes when the first, at a job run that runs, is told
            assert looks.acquire(timeout=120)
        all_done(driver)

    monkeypatch.setattr(account.backend, "get_job_run", look)
    account.launch(driver)
    (told,) = {line for line in account.said if "Dashboard URL" in line}
    assert told.endswith(
        f"get-dashboard-for-job-run --application-id {account.application} --job-run-id {account.runs[0].id}"
    )


def test_the_driver_can_see_that_somebody_waits_for_the_launch(account: Account) -> None:
    leases: list[dict[str, Any]] = []

    def driver(driver: Driver) -> None:
        leases.append(driver.head("lease"))
        all_done(driver)

    assert account.launch(driver) == ""
    assert leases


def test_settings_come_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "APPLICATION": "00f1",
        "ROLE": ROLE,
        "EXECUTOR_MEMORY_GB": "30",
        "CONF": "spark.a=1, spark.b=2",
        "DOLLARS_PER_VCPU_HOUR": "0.04",
    }.items():
        monkeypatch.setenv(f"AUDIENCE_EXPLORER_EMR_{name}", value)
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", "s3://bucket/root")
    found = EMRServerlessLauncher.from_environment()
    assert (found.application, found.launches) == ("00f1", "s3://bucket/root/launches")
    assert (found.executor_memory_gb, found.conf) == (30, {"spark.a": "1", "spark.b": "2"})
    assert found.dollars({"vCPUHour": 2}) == pytest.approx(0.08)


def test_settings_that_are_missing_are_named_by_their_variables() -> None:
    with pytest.raises(InputError, match=r"AUDIENCE_EXPLORER_EMR_APPLICATION: needed; .*EMR_ROLE: needed"):
        EMRServerlessLauncher.from_environment()


def test_a_root_that_awss_machines_cannot_reach_is_refused() -> None:
    launcher = EMRServerlessLauncher(application="00f1", role=ROLE, launches=LAUNCHES)
    with pytest.raises(InputError, match="AWS's machines can't reach data"):
        definitions("data", launcher)
