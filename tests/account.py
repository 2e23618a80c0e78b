"""An AWS account as moto plays it, in which launches are made up."""

import json
from dataclasses import asdict
from typing import Any

import boto3
import pytest
from moto.moto_api._internal import moto_api_backend

from ami import instances
from audience_explorer_dagster.launchers import pipes_extras
from audience_explorer_dagster.launchers.launch_store import LaunchStore, LaunchTags
from spark_jobs.launch.aws import PROJECT
from tests.jobs import kmeans_job

BUCKET = "audience"
LOCATION = f"s3://{BUCKET}/explorer/launches"


def empty_account(monkeypatch: pytest.MonkeyPatch) -> "Account":
    """The account, with nothing but an empty bucket and an image; to be asked for while moto's mock is on.

    The mock may last for many tests: to start it takes as long as some of them, for boto3 reads EC2's model anew.
    """
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # which takes a second
    moto_api_backend.reset()
    return Account()


class Account:
    """An AWS account with a bucket and an image."""

    def __init__(self) -> None:
        self.s3, self.ec2 = boto3.client("s3"), boto3.client("ec2")
        self.s3.create_bucket(Bucket=BUCKET)
        self.store = LaunchStore(self.s3, LOCATION)
        self._image = self.image("debian-12", {})
        self._made = 0

    def launch(
        self,
        label: str = "2024-01",
        *,
        pipeline: str = "20240102T000000-aaaaaaaa",
        run: str = "run-11111111",
        status: dict[str, Any] | None = None,
        instance: bool = False,
        jobs: tuple[str, ...] = (),
        log: tuple[bytes, ...] = (),
        launch: str = "",
        launcher: str = "ec2",
    ) -> LaunchTags:
        """A launch that began later than those before it."""
        self._made += 1
        tags = LaunchTags(launch or f"20240102T0000{self._made:02}-0000000{self._made:x}", pipeline, run, label)
        folder = self.store.folder(tags)
        listed = [kmeans_job(job, inputs="in put") for job in jobs]
        folder.describe(
            {
                "code": "s3://audience/code/1.tar.gz",
                "max_runtime": 60,
                "context": {"extras": pipes_extras(listed)},
                "launched": {
                    "launcher": launcher,
                    "image": "audience-explorer-2024-01-01 (ami-1)",
                    "options": ["m5.large (spot)", "m5.large (on-demand)"],
                    "commands": [[job.module, *job.arguments] for job in listed],
                },
            }
        )
        for chunk in log:
            self.log(tags, chunk)
        if status is not None:
            self.end(tags, status)
        if instance:
            self.instance({**asdict(tags), **PROJECT})
        return tags

    def instance(self, tags: dict[str, str], key_pair: str | None = None) -> str:
        """An instance that runs; its id."""
        request: dict[str, Any] = {
            "ImageId": self._image,
            "InstanceType": "m5.large",
            "MinCount": 1,
            "MaxCount": 1,
            "TagSpecifications": [{"ResourceType": "instance", "Tags": instances.as_tags(tags)}],
            **({"KeyName": key_pair} if key_pair else {}),
        }
        return str(self.ec2.run_instances(**request)["Instances"][0]["InstanceId"])

    def image(self, name: str, tags: dict[str, str]) -> str:
        """An image; its id."""
        image = self.ec2.register_image(Name=name)["ImageId"]
        if tags:
            request: Any = {"Resources": [image], "Tags": instances.as_tags(tags)}
            self.ec2.create_tags(**request)
        return image

    def log(self, tags: LaunchTags, chunk: bytes) -> None:
        """Add an object to a launch's log."""
        number = 1
        while self.store.folder(tags).get_object("log", number) is not None:
            number += 1
        self._put(tags, f"log/{number:06}.txt", chunk)

    def end(self, tags: LaunchTags, status: dict[str, Any]) -> None:
        """Write how a launch ended."""
        self._put(tags, "status.json", json.dumps(status).encode())

    def _put(self, tags: LaunchTags, name: str, body: bytes) -> None:
        key = self.store.folder(tags).location.removeprefix(f"s3://{BUCKET}/")
        self.s3.put_object(Bucket=BUCKET, Key=f"{key}/{name}", Body=body)
