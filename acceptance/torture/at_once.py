"""Rounds in which several are at the same partitions at once: one wins, the others wait or reuse."""

import contextlib
import json
import logging
import os
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import psutil
from moto.server import ThreadedMotoServer

from acceptance.conftest import PROJECT
from acceptance.torture import kills, outputs
from acceptance.torture.audience import CATEGORIES, MONTHS, TinyExplorer
from acceptance.torture.rounds import MOST_SECONDS, Round, Undisturbed, differences, going_on, left_behind, pipeline

BUCKET = "audience"


def two_commands(folder: Path, undisturbed: Undisturbed, seed: str) -> Round:
    """Two pipelines of the same months, with the same records: what one computes, the other reuses."""
    done, began, chance = Round(seed), time.monotonic(), random.Random(seed)
    explorer = TinyExplorer(folder, undisturbed.audience, None if chance.random() < 0.5 else undisturbed.records)
    with outputs.watched(explorer) as watcher:
        said = _ended([explorer, explorer], [pipeline(), pipeline()], chance.uniform(0, undisturbed.seconds / 2), done)
    launched = [result["launched"] for result in said]
    done.figures["computed by the first"], done.figures["computed by the second"] = (*launched, 0, 0)[:2]
    twice = [name for name, times in outputs.finished(explorer.root).items() if times > 1 and _is_once(name)]
    done.violations += watcher.violations + ([f"computed twice: {twice}"] if twice else [])
    done.violations += differences(explorer, undisturbed) + going_on(explorer) + left_behind(explorer)
    done.seconds = time.monotonic() - began
    return done


def two_orchestrators(folder: Path, undisturbed: Undisturbed, seed: str) -> Round:
    """Two pipelines of the same months on one root, each with records of its own, which know nothing of each other."""
    done, began, chance = Round(seed), time.monotonic(), random.Random(seed)
    first = TinyExplorer(folder / "first", undisturbed.audience, undisturbed.records)
    second = TinyExplorer(folder / "second", undisturbed.audience, undisturbed.records)
    second.root = first.root
    second.environment["AUDIENCE_EXPLORER_ROOT"] = str(first.root)
    with outputs.watched(first) as watcher:
        _ended([first, second], [pipeline(), pipeline()], chance.uniform(0, 2), done)
    done.violations += watcher.violations + differences(first, undisturbed)
    for explorer in (first, second):
        done.violations += going_on(explorer) + left_behind(explorer)
    done.seconds = time.monotonic() - began
    return done


def promotion_in_between(folder: Path, undisturbed: Undisturbed, seed: str) -> Round:
    """A promotion while a pipeline computes the same month anew: the promoted output is current in the end."""
    done, began, chance = Round(seed), time.monotonic(), random.Random(seed)
    explorer = TinyExplorer(folder, undisturbed.audience, undisturbed.records)
    month, category = MONTHS[0], CATEGORIES[0]
    of_month = ["--month", month, "--category", category]
    ours = ["audience-explorer", "pipeline", "--json", *of_month]
    with outputs.watched(explorer) as watcher:
        explorer.command(*ours, "--k", "3", "--label", "three")
        promote = ["audience-explorer", "promote", *of_month, "--label", "three"]
        _ended([explorer, explorer], [[*ours, "--force"], promote], chance.uniform(0, undisturbed.seconds / 2), done)
    pointer = explorer.root / "kmeans" / f"month={month}" / f"category={category}" / outputs.CURRENT
    current = json.loads(pointer.read_text())
    k = json.loads((Path(current["folder"]) / "summary.json").read_text())["k"]
    if not current.get("promoted") or k != 3:
        done.violations.append(f"the promotion is lost: {current}")
    done.violations += watcher.violations + _not_along(explorer, month, category) + going_on(explorer)
    done.violations += left_behind(explorer)
    done.seconds = time.monotonic() - began
    return done


def two_orchestrators_on_s3(folder: Path, undisturbed: Undisturbed, seed: str) -> Round:
    """The same on S3, as moto plays it: every pointer is whole whenever it is read, and points at what is whole."""
    done, began, chance = Round(seed), time.monotonic(), random.Random(seed)
    explorers = [TinyExplorer(folder / name, undisturbed.audience, undisturbed.records) for name in ("one", "other")]
    with _s3() as environment:
        client = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        for file in (file for file in undisturbed.audience.rglob("*") if file.is_file()):
            client.upload_file(str(file), BUCKET, f"root/{file.relative_to(undisturbed.audience)}")
        for explorer in explorers:
            explorer.environment |= {**environment, "AUDIENCE_EXPLORER_ROOT": f"s3://{BUCKET}/root"}
        _ended(explorers, [pipeline(), pipeline()], chance.uniform(0, 2), done)
        copy = folder / "copy"
        _download(client, copy)
    violations, found = _results_on_s3(copy, undisturbed)
    done.violations += violations
    done.figures["seen whole"] = found
    for explorer in explorers:
        done.violations += going_on(explorer) + left_behind(explorer)
    done.seconds = time.monotonic() - began
    return done


def _ended(
    explorers: Sequence[TinyExplorer], commands: Sequence[Sequence[str]], later: float, done: Round
) -> list[dict[str, Any]]:
    """Run two commands, the second one some time later than the first; what they said, and a violation if one fails."""
    started: list[subprocess.Popen[str]] = []
    for explorer, command in zip(explorers, commands, strict=True):
        if started:
            time.sleep(later)
        started.append(
            psutil.Popen(
                command,
                cwd=PROJECT,
                env=explorer.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=(explorer.home / f"command-{len(started)}.log").open("w"),
                text=True,
                start_new_session=True,
            )
        )
    said = []
    try:
        for number, process in enumerate(started):
            stdout, _ = process.communicate(timeout=MOST_SECONDS)
            if process.returncode:
                log = (explorers[number].home / f"command-{number}.log").read_text()
                done.violations.append(f"command {number} failed: {stdout[-2000:]}{log[-2000:]}")
            with contextlib.suppress(ValueError):
                said.append(json.loads(stdout))
    except subprocess.TimeoutExpired as error:
        done.violations.append(str(error))
    finally:
        for process in started:
            kills.end(process)
    return said


def _is_once(name: str) -> bool:
    return name.startswith(outputs.ONCE)


def _not_along(explorer: TinyExplorer, month: str, category: str) -> list[str]:
    """Whether segments and report are those of the current clusters."""
    below = f"month={month}/category={category}"
    pointers = {asset: explorer.root / asset / below / outputs.CURRENT for asset in ("kmeans", "segments")}
    clusters = json.loads(pointers["kmeans"].read_text())["fingerprint"]
    segments = Path(json.loads(pointers["segments"].read_text())["folder"])
    inputs = json.loads((segments / outputs.MANIFEST).read_text())["inputs"]
    return [] if inputs[0] == clusters else [f"the current segments are of other clusters: {inputs}, not {clusters}"]


@contextlib.contextmanager
def _s3() -> Iterator[dict[str, str]]:
    """S3 as moto plays it; the variables by which it is found."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # which prints each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    os.environ |= {name: value for name, value in environment.items() if "KEY" in name}
    try:
        yield environment
    finally:
        server.stop()


def _download(client: Any, folder: Path) -> None:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="root/"):
        for entry in page.get("Contents", []):
            file = folder / entry["Key"].removeprefix("root/")
            file.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(BUCKET, entry["Key"], str(file))


def _results_on_s3(copy: Path, undisturbed: Undisturbed) -> tuple[list[str], int]:
    """What is wrong with a copy of a root on S3, and how many pointers were followed."""
    pointers = [pointer for asset in outputs.ASSETS for pointer in (copy / asset).rglob(outputs.CURRENT)]
    violations: list[str] = []
    for pointer in pointers:
        named = json.loads(pointer.read_text())
        folder = pointer.parent / named["folder"].rpartition("/")[2]
        violations += outputs.is_not_whole(folder)
        pointer.write_text(json.dumps({**named, "folder": str(folder)}))
    found, wanted = outputs.results(copy), undisturbed.results
    # Fingerprints of raw files are of ETags there, so manifests differ.
    names = [name for name in wanted if not name.endswith(outputs.MANIFEST) and found.get(name) != wanted[name]]
    return violations + ([f"not as undisturbed: {names}"] if names else []), len(pointers)
