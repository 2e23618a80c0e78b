"""Everything that goes wrong on EC2, one story each: what is promised happens, no instance is left, and nothing half
written is read (both checked by the fixture `explorer` at the end of each). The table is in acceptance/README.md.
"""

import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from moto.s3.models import s3_backends

from acceptance.ec2.conftest import TYPES, EC2Explorer, kill
from acceptance.sandbox import HOLD_SECONDS, Instance, Sandbox
from acceptance.sandbox.ec2 import ACCOUNT
from acceptance.sandbox.permissions import Permissions

MONTH = "2018-12"
CATEGORY = "cloud"
PARTITION = f"{CATEGORY}|{MONTH}"
ARGUMENTS = ("--month", MONTH, "--category", CATEGORY)

GROUPED = f"group_by_user {MONTH}"
INPUTS, SELECT_K, KMEANS = f"make_clustering_inputs {MONTH}", f"select_k {PARTITION}", f"kmeans {PARTITION}"
JOBS = [GROUPED, INPUTS, SELECT_K, KMEANS, f"follow_segments {PARTITION}", f"make_report {PARTITION}"]
OUTPUTS = {
    GROUPED: f"/grouped_users/month={MONTH}/",
    INPUTS: f"/clustering_inputs/month={MONTH}/",
    SELECT_K: f"/k_selection/month={MONTH}/",
    KMEANS: f"/kmeans/month={MONTH}/",
}
CHOSEN = {f"{asset} {PARTITION}" for asset in ("k_selection", "kmeans", "segments", "audience_report")}
ALL = {f"grouped_users {MONTH}", f"clustering_inputs {PARTITION}"} | CHOSEN


def test_a_type_without_capacity_is_replaced_by_the_next(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    sandbox.faults.no_capacity(TYPES[0])
    assert explorer.pipeline(*ARGUMENTS).launched == ALL
    assert [(i.type, i.market) for i in sandbox.instances] == [(TYPES[1], "spot")]


def test_without_spot_capacity_an_on_demand_instance_is_taken(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    for instance_type in TYPES:
        sandbox.faults.no_capacity(instance_type, "spot")
    assert explorer.pipeline(*ARGUMENTS).launched == ALL
    assert [(i.type, i.market) for i in sandbox.instances] == [(TYPES[0], "on-demand")]


def test_without_any_capacity_the_error_names_every_place_that_was_asked(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    for instance_type in TYPES:
        sandbox.faults.no_capacity(instance_type)
    error = explorer.pipeline(*ARGUMENTS, ok=False).failed[f"grouped_users {MONTH}"]
    assert error.count("InsufficientInstanceCapacity") == len(TYPES) * len(sandbox.subnets) * 2
    assert_named(error, "NoCapacity")
    assert sandbox.instances == []


def test_capacity_that_is_lost_after_the_launch_is_looked_for_elsewhere(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    sandbox.faults.lose_capacity()
    assert explorer.pipeline(*ARGUMENTS).launched == ALL
    assert explorer.launched_jobs() == [JOBS, JOBS]
    lost, again = sandbox.instances
    assert lost.about.subnet_id != again.about.subnet_id


def test_a_spot_interruption_is_told_and_costs_only_what_was_not_finished(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    # S3 refuses the rest of kmeans' files until the machine is gone, so that it can't be done.
    while_it_writes(sandbox, KMEANS, lambda i: (hold_up_to_its_end(sandbox, i), sandbox.faults.interrupt(i, seconds=3)))
    assert explorer.pipeline(*ARGUMENTS).launched == ALL
    assert explorer.launched_jobs() == [JOBS, JOBS[3:]]
    assert_named(explorer.log_of_run(), "SpotInterrupted", instance=sandbox.instances[0])


def test_after_a_spot_notice_the_job_that_runs_goes_on_and_no_further_is_taken(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    noticed = threading.Event()
    when_seen(sandbox, '"spot_notice"', lambda _: noticed.set())
    # The job writes the rest of its files when the notice has been seen, and long before it comes true.
    while_it_writes(sandbox, SELECT_K, lambda i: (sandbox.faults.interrupt(i, seconds=600), noticed.wait(HOLD_SECONDS)))
    assert explorer.pipeline(*ARGUMENTS).launched == ALL
    assert explorer.launched_jobs() == [JOBS, JOBS[3:]], "select_k was done, kmeans not begun"
    log = explorer.log_of_run()
    assert "AWS takes the instance back at" in log
    assert_named(log, "SpotInterrupted", instance=sandbox.instances[0])


def test_a_killed_boot_program_ends_its_instance_and_is_launched_again(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    while_it_writes(sandbox, SELECT_K, sandbox.faults.kill_boot)
    assert explorer.pipeline(*ARGUMENTS).launched == ALL
    assert explorer.launched_jobs() == [JOBS, JOBS[2:]]
    assert_named(explorer.log_of_run(), "BootFailed")


def test_a_boot_that_never_finishes_is_given_up_and_launched_again_elsewhere(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    explorer.configure(boot_timeout=40)  # enough for the second boot, also on a machine that is busy with much else
    sandbox.faults.boot_never_finishes()
    assert explorer.pipeline(*ARGUMENTS).launched == ALL
    assert explorer.launched_jobs() == [JOBS, JOBS]
    assert "no sign of life in 40 s" in explorer.log_of_run()


def test_instances_that_have_no_way_to_s3_are_warned_of_and_given_up_after_the_first(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    explorer.configure(boot_timeout=3, public_ip="false")
    error = explorer.pipeline(*ARGUMENTS, ok=False).failed[f"grouped_users {MONTH}"]
    assert_named(error, "NoWayToS3", instance=sandbox.instances[0])
    assert "AUDIENCE_EXPLORER_EC2_PUBLIC_IP=true" in error
    assert len(sandbox.instances) == 1
    assert f"{sandbox.subnets[0]}: no way to S3" in explorer.log_of_run()


def test_boots_that_never_finish_fail_the_run_in_the_end(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    explorer.configure(boot_timeout=3, retries=0)
    sandbox.faults.boot_never_finishes()
    error = explorer.pipeline(*ARGUMENTS, ok=False).failed[f"grouped_users {MONTH}"]
    assert_named(error, "BootFailed", instance=sandbox.instances[0])


@pytest.mark.usefixtures("root_rights")
def test_a_full_disk_fails_the_jobs_and_is_told(sandbox: Sandbox, explorer: EC2Explorer, ansible: Path) -> None:
    explorer.bring(ansible, MONTH)
    sandbox.faults.disk_size(64 << 20)
    while_it_writes(sandbox, INPUTS, sandbox.faults.fill_disk)
    ended = explorer.pipeline(*ARGUMENTS, ok=False)
    assert ended.launched == {f"grouped_users {MONTH}"}
    # The job tells it, if what it tells finds room; else the end of the log does.
    error = ended.failed[f"clustering_inputs {PARTITION}"]
    assert "No space left on device" in error
    assert_named(error, "JobFailed", instance=sandbox.instances[0])
    assert_named(ended.failed[f"kmeans {PARTITION}"], "JobFailed", instance=sandbox.instances[0])
    assert explorer.launched_jobs() == [JOBS], "a failed job is not launched again"


def test_a_network_that_is_lost_for_a_while_loses_nothing(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    # While k is chosen, which needs no network, and for a little longer than boto3 repeats a request.
    when_seen(sandbox, "k = 2: wssse", lambda i: sandbox.faults.cut_network(i, seconds=4))
    assert explorer.pipeline(*ARGUMENTS).launched == ALL
    assert explorer.launched_jobs() == [JOBS]
    assert_every_message_arrived(explorer)


def test_throttling_and_server_errors_are_ridden_out(sandbox: Sandbox, explorer: EC2Explorer, ansible: Path) -> None:
    explorer.bring(ansible, MONTH)
    sandbox.faults.throttle(3, action="RunInstances")
    sandbox.faults.server_errors(2, action="RunInstances")
    sandbox.faults.throttle(3, action="DescribeInstances")
    sandbox.faults.server_errors(5, action="PutObject", caller="instance")
    sandbox.faults.server_errors(5, action="GetObject", caller="launcher")
    assert explorer.pipeline(*ARGUMENTS).launched == ALL
    assert len(sandbox.instances) == 1
    assert_every_message_arrived(explorer)


def test_an_answer_that_is_lost_after_the_launch_happened_starts_no_second_instance(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    sandbox.faults.lose_answer("RunInstances")
    assert explorer.pipeline(*ARGUMENTS).launched == ALL
    assert [call.action for call in sandbox.calls].count("RunInstances") == 2
    assert len(sandbox.instances) == 1


def test_a_new_instance_that_is_not_visible_yet_is_waited_for(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    sandbox.faults.invisible(seconds=5)
    assert explorer.pipeline(*ARGUMENTS).launched == ALL
    assert len(sandbox.instances) == 1


def test_an_instance_that_somebody_terminates_fails_the_run_and_is_not_launched_again(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    while_it_writes(sandbox, SELECT_K, sandbox.faults.terminate)
    ended = explorer.pipeline(*ARGUMENTS, ok=False)
    assert ended.launched == {f"grouped_users {MONTH}", f"clustering_inputs {PARTITION}"}, "what was done is recorded"
    assert_named(ended.failed[f"kmeans {PARTITION}"], "TerminatedFromOutside", instance=sandbox.instances[0])
    assert explorer.launched_jobs() == [JOBS]
    # The way out: run it again, and only what is missing is launched.
    assert explorer.pipeline(*ARGUMENTS).launched == CHOSEN


@pytest.mark.usefixtures("root_rights")
def test_a_job_that_uses_up_the_memory_is_told_by_that_name(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    sandbox.faults.memory_limit(100 << 20)
    error = explorer.pipeline(*ARGUMENTS, ok=False).failed[f"grouped_users {MONTH}"]
    assert "Choose a larger type" in error
    assert_named(error, "OutOfMemory", instance=sandbox.instances[0])
    assert explorer.launched_jobs() == [JOBS]


def test_an_instance_that_takes_too_long_is_ended(sandbox: Sandbox, explorer: EC2Explorer, ansible: Path) -> None:
    explorer.bring(ansible, MONTH)
    explorer.configure(max_runtime=40)  # enough for a boot, also on a machine that is busy with much else
    # The job waits for S3, which is slower to say that its output is stored than the instance may run.
    when_seen(sandbox, OUTPUTS[GROUPED], lambda _: time.sleep(HOLD_SECONDS))
    error = explorer.pipeline(*ARGUMENTS, ok=False).failed[f"grouped_users {MONTH}"]
    assert_named(error, "Overdue", instance=sandbox.instances[0])


def test_an_orchestrator_that_is_interrupted_ends_its_instance(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path, permissions: Permissions
) -> None:
    explorer.bring(ansible, MONTH)
    seen = threading.Event()
    sandbox.faults.invisible(seconds=5)  # even if EC2 does not know it yet
    # Its jobs can't end by themselves before.
    when_seen(sandbox, OUTPUTS[GROUPED], lambda _: (hold_up(sandbox), seen.set()))
    pipeline = explorer.begin(*ARGUMENTS)
    assert seen.wait(300)
    pipeline.terminate()
    pipeline.wait(timeout=300)
    sandbox.instances[0].wait_until("terminated")
    assert pipeline.returncode == 130
    # Who may end instances by their tags may not end one that EC2 does not know yet: it was asked until that was over.
    ending = [refused for refused in permissions.refused if refused.startswith("launcher: TerminateInstances: ")]
    permissions.refused[:] = [refused for refused in permissions.refused if refused not in ending]


def test_an_orchestrator_that_is_killed_leaves_an_instance_that_the_sensor_ends(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    seen = threading.Event()
    # Its jobs can't end by themselves before the sensor looks.
    explorer.configure(max_runtime=6000)
    when_seen(sandbox, OUTPUTS[GROUPED], lambda _: (hold_up(sandbox), seen.set()))
    pipeline = explorer.begin(*ARGUMENTS)
    assert seen.wait(300)
    kill(pipeline)
    (instance,) = sandbox.instances

    assert "No instance is abandoned" in tick(explorer, []), "its orchestrator might still be there"
    age_lease(explorer)
    assert f"{instance.id} will be ended the next time" in tick(explorer, [])
    assert instance.state == "running", "it says so one time before it does it"
    assert f"{instance.id} is ended" in tick(explorer, [instance.id])
    instance.wait_until("terminated")
    sandbox.faults.clear()

    assert explorer.pipeline(*ARGUMENTS).launched == ALL, "what the killed run left unfinished is not read"


def test_an_image_that_does_not_fit_is_refused_by_name_before_the_launch(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    tag = {"Key": "dependency:pyarrow", "Value": "1.0"}
    sandbox.client("ec2").create_tags(Resources=[sandbox.image], Tags=[tag])
    error = explorer.pipeline(*ARGUMENTS, ok=False).failed[f"grouped_users {MONTH}"]
    assert re.search(r"ImageMisfit: Image audience-explorer-\S+ .* has pyarrow 1.0, pyarrow>=18 is needed", error)
    assert "RunInstances" not in [call.action for call in sandbox.calls]


def test_a_job_that_fails_names_its_instance_and_log_and_the_others_are_done(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    explorer.s3.put_object(
        Bucket=sandbox.bucket, Key=f"explorer/raw/month={MONTH}/broken.parquet", Body=b"this is no Parquet"
    )
    error = explorer.pipeline(*ARGUMENTS, ok=False).failed[f"grouped_users {MONTH}"]
    assert "broken.parquet can't be read" in error
    assert_named(error, "JobFailed", instance=sandbox.instances[0])
    assert explorer.launched_jobs() == [JOBS]


# --- what the stories share ---


def when_seen(sandbox: Sandbox, text: str, do: Callable[[Instance], object]) -> None:
    """Do something once a message of an instance's holds a text."""
    sandbox.on_put(text, lambda instance: (do(instance), None)[1])


def while_it_writes(sandbox: Sandbox, job: str, do: Callable[[Instance], object]) -> None:
    """Do something while a job writes its output, when all that was done before it has been told."""
    told = threading.Event()
    when_seen(sandbox, f"{job} starts", lambda _: told.set())
    when_seen(sandbox, OUTPUTS[job], lambda instance: told.wait(HOLD_SECONDS) and do(instance))


def assert_named(error: str, kind: str, instance: Instance | None = None) -> None:
    """An error says what it is, and where: launch, log and instance."""
    found = re.search(
        rf"{kind}: .*\[(instance .*?)?launch \S+, log s3://audience/explorer/launches/\S+/log/\]", error, re.S
    )
    assert found, error
    if instance is not None:
        assert f"instance {instance.id}, launch {instance.tags['launch']}" in error


def assert_every_message_arrived(explorer: EC2Explorer) -> None:
    """Each job's beginning, told by message, is in the run's log once."""
    log = explorer.log_of_run()
    for job in JOBS:
        assert log.count(f"{job} starts") == 1, log


def hold_up(sandbox: Sandbox, seconds: float = 3600) -> None:
    """Keep a job from ending: S3 refuses all that it asks."""
    sandbox.faults.throttle(seconds=seconds, caller="instance")


def hold_up_to_its_end(sandbox: Sandbox, instance: Instance) -> None:
    """Keep a job from ending before its instance does, however late that is; the next instance is not held up."""
    hold_up(sandbox)

    def release() -> None:
        instance.wait_until("terminated", seconds=600)
        sandbox.faults.clear()

    threading.Thread(target=release, daemon=True).start()


def age_lease(explorer: EC2Explorer) -> None:
    """Let it be long ago that somebody waited for the launches."""
    bucket = s3_backends[ACCOUNT]["aws"].buckets[explorer.sandbox.bucket]
    for key in bucket.keys.values():
        if key.name.endswith("/lease"):
            key.last_modified = key.last_modified.replace(year=2020)


def tick(explorer: EC2Explorer, announced: list[str]) -> str:
    """Let the sensor look once, as the daemon does; what it said."""
    module = ("-m", "audience_explorer_dagster.definitions")
    cursor = ("--cursor", json.dumps(announced))
    return explorer.command("dagster", "sensor", "preview", "abandoned_instances", *module, *cursor).stdout
