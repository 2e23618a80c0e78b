"""Telling people of runs that failed: what is told, and the sinks that take it."""

import html
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_exponential

from audience_explorer_dagster import settings
from audience_explorer_dagster.partitions import of_run
from audience_explorer_dagster.records.metadata import failed_targets
from spark_jobs.errors import InputError

_MOST_NAMES = 5  # that a reason is told with
_MOST_TEXT = 3000  # characters
# A tick tells of five failures and must end within a minute.
_TIMEOUT = 3  # seconds to connect, and to wait for an answer


@dataclass(frozen=True)
class Notice:
    """What is told of a run that failed."""

    job: str
    partitions: str  # such as `2024-01`; "" if it has none
    run: str
    failed: Mapping[str, str]  # why, by asset and partition
    error: str  # why, where it isn't for partitions to fail
    url: str | None = None  # the run's page
    retried: bool = False

    @classmethod
    def of(cls, run: dg.DagsterRun, failure: dg.DagsterEvent, steps: Sequence[dg.DagsterEvent]) -> "Notice":
        """The notice of a run, of its failure and of its steps' failures."""
        failed: dict[str, str] = {}
        errors: list[str] = []
        for step in steps:
            data, targets = step.step_failure_data, failed_targets(step)
            if targets is not None:
                failed |= {str(target): why for target, why in targets.items()}
            elif data.user_failure_data is not None and data.user_failure_data.description:
                errors.append(data.user_failure_data.description)
            elif data.error is not None:
                errors.append((data.error.cause or data.error).message.strip())
        if not failed and not errors:
            errors.append(failure.message or "its process ended, and nothing is known of why")
        ui = settings.read().ui_url.rstrip("/")
        return cls(
            job=_job(run),
            partitions=of_run(run.tags),
            run=run.run_id,
            failed=failed,
            error=" ".join(errors),
            url=f"{ui}/runs/{run.run_id}" if ui else None,
            retried=run.tags.get("dagster/will_retry") == "true",
        )

    @property
    def subject(self) -> str:
        """The notice in a few words."""
        return f"Audience Explorer: {self.job}{self.partitions and f' of {self.partitions}'} failed"

    @property
    def text(self) -> str:
        """The notice for people: what failed for the same reason is told together."""
        names: dict[str, list[str]] = {}
        for name, why in self.failed.items():
            names.setdefault(why, []).append(name)
        told = "\n".join(
            [
                self.subject,
                # What failed first took others with it, so the fewest names tell the most.
                *(f"- {_some(names[why])}: {why}" for why in sorted(names, key=lambda why: len(names[why]))),
                *([self.error] if self.error else []),
            ]
        )
        if len(told) > _MOST_TEXT:
            told = told[: _MOST_TEXT - 1] + "…"
        retry = ["It is started again."] if self.retried else []
        return "\n".join([told, *retry, f"Run {self.run}{f': {self.url}' if self.url else ''}"])


class SinkFailed(Exception):
    """A sink could not be told; the message holds no secret."""


class Sink(ABC):
    """Somewhere to tell of a failure. To add one, write a class and let `sinks_from_environment` know it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What logs call it, which holds no secret."""

    @abstractmethod
    def tell(self, notice: Notice) -> None:
        """Tell it.

        Raises:
            SinkFailed: It could not be told.
        """


@dataclass(frozen=True)
class LogSink(Sink):
    """A log."""

    log: logging.Logger

    @property
    def name(self) -> str:
        """What logs call it."""
        return "log"

    def tell(self, notice: Notice) -> None:
        """Log the notice as an error."""
        self.log.error(notice.text)


@dataclass(frozen=True)
class WebhookSink(Sink):
    """A web address that takes JSON: `text`, which is all that Slack and its like read, and each fact by itself."""

    url: str = field(repr=False)  # who knows it may post, so it is never told

    @property
    def name(self) -> str:
        """What logs call it."""
        return f"webhook at {urlsplit(self.url).hostname}"

    def tell(self, notice: Notice) -> None:
        """Post the notice, again if the connection fails, or the answer is that it may be tried again."""
        retrying = Retrying(
            retry=retry_if_exception_type(_Temporary),
            wait=wait_exponential(multiplier=0.5),
            stop=stop_after_attempt(3) | stop_after_delay(2 * _TIMEOUT),
            reraise=True,
        )
        retrying(self._post, _as_json(notice))

    def _post(self, body: dict[str, Any]) -> None:
        import requests

        try:
            with requests.post(self.url, json=body, timeout=_TIMEOUT, allow_redirects=False, stream=True) as answer:
                status = answer.status_code
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _Temporary(type(error).__name__) from None  # the error's own message has the address
        except (requests.RequestException, ValueError) as error:
            raise SinkFailed(type(error).__name__) from None
        if status == 429 or status >= 500:
            raise _Temporary(f"it answered {status}")
        if not 200 <= status < 300:
            raise SinkFailed(f"it answered {status}")


class _Temporary(SinkFailed):
    pass


@dataclass(frozen=True)
class SnsSink(Sink):
    """A topic of Amazon SNS."""

    topic: str

    @property
    def name(self) -> str:
        """What logs call it."""
        return self.topic

    def tell(self, notice: Notice) -> None:
        """Publish the notice."""
        import boto3  # takes its time, which each run of the pipeline would wait for
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        twice = Config(connect_timeout=_TIMEOUT, read_timeout=_TIMEOUT, retries={"mode": "standard", "max_attempts": 2})
        try:
            sns = boto3.client("sns", region_name=self.topic.split(":")[3], config=twice)
            sns.publish(TopicArn=self.topic, Subject=_as_subject(notice.subject), Message=notice.text)
        except (BotoCoreError, ClientError) as error:
            raise SinkFailed(str(error)) from None


def sinks_from_environment(log: logging.Logger) -> list[Sink]:
    """The sinks that AUDIENCE_EXPLORER_NOTIFY names, with commas between; the log by default.

    Raises:
        InputError: One is of no known kind. What it is is not told, for it may be a secret.
    """
    name = settings.variable("notify")
    sinks: list[Sink] = []
    for place, target in enumerate(map(str.strip, settings.read().notify.split(",")), 1):
        if target == "log":
            sinks.append(LogSink(log))
        elif _is_webhook(target):
            sinks.append(WebhookSink(target))
        elif re.fullmatch(r"arn:[^:]+:sns(:[^:]+){3}", target):
            sinks.append(SnsSink(target))
        else:
            raise InputError(
                f"{name}: no. {place} is neither `log`, nor a webhook's address (https://…), nor the ARN of a topic."
            )
    return sinks


def _is_webhook(target: str) -> bool:
    """Whether a text is an address that a request can be sent to: a host, and a port that is a number, if any."""
    if not target.startswith(("https://", "http://")) or not target.isprintable() or " " in target:
        return False
    try:
        parts = urlsplit(target)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # whose message may hold a part of the address
        return False


def notify(sinks: Sequence[Sink], notice: Notice) -> dict[str, str]:
    """Tell all sinks, at the same time; those that could not be told, and why, by name."""

    def tell(sink: Sink) -> str | None:
        try:
            sink.tell(notice)
        except SinkFailed as error:
            return str(error)
        except Exception as error:  # whatever a sink does, the others are told
            return type(error).__name__
        return None

    with ThreadPoolExecutor(8) as pool:
        told = zip(sinks, pool.map(tell, sinks), strict=True)
    return {sink.name: why for sink, why in told if why is not None}


def _job(run: dg.DagsterRun) -> str:
    """The run's job; its assets, if it is Dagster's own job for assets."""
    if run.job_name.startswith("__") and run.asset_selection:
        return ", ".join(sorted(asset.to_user_string() for asset in run.asset_selection))
    return run.job_name


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _as_json(notice: Notice) -> dict[str, Any]:
    return {
        # Chats take these three characters for marks of their own: `<!channel>` in an error must not wake everybody.
        "text": html.escape(notice.text, quote=False),
        "job": notice.job,
        "partitions": notice.partitions,
        "run": notice.run,
        "url": notice.url,
        "failed": dict(notice.failed),
        "error": notice.error,
        "retried": notice.retried,
    }


def _as_subject(text: str) -> str:
    """SNS takes less than 100 characters, with no control characters; mail has them in ASCII."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:99]
