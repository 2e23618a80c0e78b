"""A run that failed is told of, with what failed and why, wherever that is wanted."""

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import boto3
import dagster as dg
import pytest
from moto import mock_aws
from moto.sns import sns_backends

from audience_explorer_dagster.automation import notifications, run_failures
from audience_explorer_dagster.automation.notifications import (
    Notice,
    Sink,
    SnsSink,
    WebhookSink,
    notify,
    sinks_from_environment,
)
from spark_jobs.errors import InputError
from tests.project import Project

SECRET = "T0-secret"
NOTICE = Notice("whole_month", "2024-01", "1234", {"kmeans tea|2024-01": "k must be 1 or more"}, "")


class Hook:
    """A web server that keeps what is posted to it, and answers what it is told to."""

    def __init__(self) -> None:
        hook = self
        self.bodies: list[dict[str, Any]] = []
        self.answers: list[int] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == f"/services/{SECRET}"
                assert self.headers["Content-Type"] == "application/json"
                hook.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(hook.answers.pop(0) if hook.answers else 200)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/{SECRET}"


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    """A webhook, on this machine."""
    monkeypatch.setattr(notifications, "wait_exponential", lambda **_: lambda _: 0)
    hook = Hook()
    thread = threading.Thread(target=hook.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hook
    hook.server.shutdown()
    thread.join()
    hook.server.server_close()


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A topic of SNS as moto plays it; its ARN."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        yield boto3.client("sns", region_name="eu-west-1").create_topic(Name="failures")["TopicArn"]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the sensor logs."""
    lines: list[str] = []
    log = logging.Logger("sensor")
    log.addHandler(handler := logging.Handler())
    monkeypatch.setattr(handler, "emit", lambda record: lines.append(record.getMessage()))
    monkeypatch.setattr(dg.RunFailureSensorContext, "log", log)
    return lines


def tell(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> None:
    """Let the sensor see that a run failed."""
    run_failures(
        dg.build_run_status_sensor_context(
            sensor_name="run_failures",
            dagster_event=result.get_run_failure_event(),
            dagster_instance=instance,
            dagster_run=instance.get_run_by_id(result.run_id) or result.dagster_run,
        )
    )


def published(topic: str) -> list[tuple[str, str]]:
    """What SNS published: subjects and messages."""
    sent = sns_backends[topic.split(":")[4]]["eu-west-1"].topics[topic].sent_notifications
    return [(subject, message) for _, message, subject, _, _ in sent]


def test_a_failed_month_is_told_to_all_sinks_with_each_partition_that_failed_and_why(
    project: Project, hook: Hook, topic: str, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIENCE_EXPLORER_NOTIFY", f"log, {hook.url},{topic}")
    monkeypatch.setenv("AUDIENCE_EXPLORER_UI_URL", "https://explorer.example.org/")
    (project.root / "categories" / "tea.json").write_text("{")
    result = project.run_month("2024-01")
    tell(project.instance, result)

    [body] = hook.bodies
    assets = ("clustering_inputs", "k_selection", "kmeans", "segments", "audience_report")
    assert body["failed"].keys() == {f"{asset} tea|2024-01" for asset in assets}
    assert "tea.json is not JSON" in body["failed"]["clustering_inputs tea|2024-01"]
    assert (body["job"], body["partitions"], body["run"]) == ("whole_month", "2024-01", result.run_id)
    text = body["text"]
    assert text.startswith("Audience Explorer: whole_month of 2024-01 failed\n- ")
    assert "clustering_inputs tea|2024-01" in text
    assert text.endswith(f"\nRun {result.run_id}: https://explorer.example.org/runs/{result.run_id}")
    assert logged == [text]
    assert published(topic) == [("Audience Explorer: whole_month of 2024-01 failed", text)]


def test_without_a_setting_a_line_in_the_log_tells_it(project: Project, logged: list[str]) -> None:
    (project.root / "raw" / "month=2024-01" / "actions.jsonl").unlink()
    tell(project.instance, project.run_month("2024-01"))
    [line] = logged
    cause, others = line.splitlines()[1:3]
    assert cause.startswith("- grouped_users 2024-01: There is no raw data in")
    assert others.endswith(" and 10 more: grouped_users of 2024-01 can't be made"), (
        "one reason, told once, with a few names"
    )


def test_a_sink_that_fails_is_told_in_the_log_without_its_secret_and_keeps_back_no_other(
    project: Project, hook: Hook, topic: str, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = f"http://127.0.0.1:9/services/{SECRET}"
    no_topic = topic.replace("failures", "nothing")
    monkeypatch.setenv("AUDIENCE_EXPLORER_NOTIFY", ",".join([gone, no_topic, hook.url, topic]))
    tell(project.instance, project.run_month("2024-01", categories=["wine"]))
    assert len(hook.bodies) == len(published(topic)) == 1
    assert [line.split(" could not be told, ")[0] for line in logged] == ["webhook at 127.0.0.1", no_topic]
    assert logged[0].startswith("webhook at 127.0.0.1 could not be told, ConnectionError, of this: Audience Explorer: ")
    assert "NotFound" in logged[1]
    assert SECRET not in "".join(logged)


def test_what_may_pass_is_tried_again_and_what_is_refused_is_not(hook: Hook) -> None:
    hook.answers = [503, 429, 200]
    assert notify([WebhookSink(hook.url)], NOTICE) == {}
    assert len(hook.bodies) == 3
    hook.answers = [500, 500, 500]
    assert notify([WebhookSink(hook.url)], NOTICE) == {"webhook at 127.0.0.1": "it answered 500"}
    for refused in (302, 404):
        hook.bodies.clear()
        hook.answers = [refused]
        assert notify([WebhookSink(hook.url)], NOTICE) == {"webhook at 127.0.0.1": f"it answered {refused}"}
        assert len(hook.bodies) == 1, "nor is a redirection followed"


def test_a_sink_that_hangs_is_given_up(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "_TIMEOUT", 0.05)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as deaf:  # connects, and never answers
        told = notify([WebhookSink(f"http://127.0.0.1:{deaf.server_port}/"), WebhookSink(hook.url)], NOTICE)
    assert told == {"webhook at 127.0.0.1": "ReadTimeout"}
    assert len(hook.bodies) == 1


def test_an_error_of_a_sink_that_it_did_not_foresee_is_told_by_its_kind_only(hook: Hook) -> None:
    class Broken(Sink):
        name = "broken"

        def tell(self, notice: Notice) -> None:
            raise KeyError(SECRET, notice)

    assert notify([Broken(), WebhookSink(hook.url)], NOTICE) == {"broken": "KeyError"}
    assert len(hook.bodies) == 1


def test_an_error_that_holds_marks_of_a_chat_wakes_nobody(hook: Hook) -> None:
    notify([WebhookSink(hook.url)], replace(NOTICE, failed={"kmeans": "<!channel> & all"}))
    assert "&lt;!channel&gt; &amp; all" in hook.bodies[0]["text"]
    assert hook.bodies[0]["failed"] == {"kmeans": "<!channel> & all"}


def test_a_long_story_is_cut_and_still_ends_with_the_run(topic: str) -> None:
    notice = replace(NOTICE, partitions="2024-01\n…" + "x" * 100, failed={str(n): "why " * 100 for n in range(50)})
    notice = replace(notice, failed={name: f"{why}{name}" for name, why in notice.failed.items()}, retried=True)
    assert notify([SnsSink(topic)], notice) == {}
    [(subject, message)] = published(topic)
    assert len(message) < 3200
    assert message.endswith("…\nIt is started again.\nRun 1234")
    assert len(subject) == 99, "AWS wants less than 100"
    assert subject.isascii()
    assert subject.isprintable()


def test_a_run_whose_process_was_killed_is_told_with_what_dagster_knows(project: Project, logged: list[str]) -> None:
    job = project.definitions.resolve_job_def("whole_month")
    tags = {"dagster/partition": "2024-02", "dagster/will_retry": "true"}
    run = project.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    failure = project.instance.report_run_failed(run, "Detected run worker status FAILED")
    run_failures(dg.build_run_status_sensor_context("run_failures", failure, project.instance, run))
    [line] = logged
    assert line.splitlines()[1:] == [
        "Detected run worker status FAILED",
        "It is started again.",
        f"Run {run.run_id}",
    ]


def test_a_run_from_the_page_of_an_asset_is_told_by_its_assets_and_the_range_of_its_partitions(
    project: Project, logged: list[str]
) -> None:
    tell(project.instance, project.run(["clustering_inputs", "kmeans"], "coffee|2024-01", "tea|2024-01"))
    assert logged[0].startswith("Audience Explorer: clustering_inputs, kmeans of coffee|2024-01...tea|2024-01 failed\n")
    assert "grouped_users of 2024-01 was never materialized here" in logged[0]


@pytest.mark.parametrize(
    "wrong",
    [
        *(f"ftp://example.org/{SECRET}", SECRET, "arn:aws:sqs:eu-west-1:1:queue", "arn:aws:sns", "log,,log"),
        *("https://", f"https:///{SECRET}", f"http://[::1/{SECRET}", f"https://example.org:{SECRET}/"),
        *(f"https://example.org:99999/{SECRET}", f"https://exa mple.org/{SECRET}", f"https://a.example\t/{SECRET}"),
    ],
)
def test_a_sink_of_no_known_kind_is_refused_and_not_told(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIENCE_EXPLORER_NOTIFY", wrong)
    with pytest.raises(InputError, match=r"AUDIENCE_EXPLORER_NOTIFY: no\. [12] is neither") as refused:
        sinks_from_environment(logging.getLogger())
    assert SECRET not in str(refused.value)


def test_a_webhook_is_never_shown_with_its_address() -> None:
    sink = WebhookSink(f"https://user:{SECRET}@hooks.example.org/{SECRET}")
    assert SECRET not in f"{sink!r} {sink.name}"


def test_a_setting_that_makes_no_sense_loses_no_failure(
    project: Project, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIENCE_EXPLORER_NOTIFY", "log,mailto:somebody")
    (project.root / "raw" / "month=2024-01" / "actions.jsonl").unlink()
    tell(project.instance, project.run_month("2024-01"))
    [line] = logged
    assert "So nobody was told of this: Audience Explorer: whole_month of 2024-01 failed" in line
