"""`current.json` when several change it at the same time: no change is lost to another one, here and on S3."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.store import Current, Store
from spark_jobs import storage
from spark_jobs.storage import conditional

TEA = Partition("2024-01", "tea")


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty root."""
    if request.param == "folder":
        yield str(tmp_path)
        return
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"ENDPOINT_URL": f"http://{host}:{port}", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
    for name, value in {**settings, "ALLOW_HTTP": "true", "REGION": "us-east-1", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    boto3.client("s3").create_bucket(Bucket="audience")
    yield "s3://audience/root"
    server.stop()


def finished_output(store: Store, name: str) -> str:
    folder = storage.join(store.outputs("kmeans", TEA), name)
    manifest = {"step": "kmeans", "fingerprint": name, "files": [], "summary": {}}
    storage.write_text(storage.join(folder, "manifest.json"), json.dumps(manifest))
    return folder


def in_between(monkeypatch: pytest.MonkeyPatch, store: Store, folder: str) -> None:
    """Promote an output after somebody else has read the file, and before that one writes it."""
    read, done = conditional.read, []

    def read_and_lose(location: str) -> tuple[str | None, str | None]:
        found = read(location)
        if not done:
            done.append(location)
            store.point_current("kmeans", TEA, folder, "b", promoted="by a person")
        return found

    monkeypatch.setattr(conditional, "read", read_and_lose)


@pytest.mark.parametrize("there", [False, True], ids=["no file yet", "one is there"])
def test_a_promotion_is_not_lost_to_a_run_that_ends_at_the_same_time(
    root: str, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    store = Store(root=root)
    first, promoted, newest = (finished_output(store, name) for name in ("first", "promoted", "newest"))
    if there:
        store.point_current("kmeans", TEA, first, "a")
    in_between(monkeypatch, store, promoted)
    assert store.point_current("kmeans", TEA, newest, "c") == Current(promoted, promoted=True)
    assert store.current("kmeans", TEA) == Current(promoted, promoted=True)


def test_what_was_made_from_clusters_that_are_no_longer_current_does_not_become_so(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(root=root)
    own, promoted = (finished_output(store, name) for name in ("own", "promoted"))
    store.point_current("kmeans", TEA, own, "a")
    in_between(monkeypatch, store, promoted)
    assert not store.point_along("segments", TEA, "of-own", "x", "kmeans", "a")
    assert store.current("segments", TEA) is None
    assert store.point_along("segments", TEA, "of-promoted", "y", "kmeans", "b")


def test_of_many_writers_each_sees_the_one_before(root: str) -> None:
    location = storage.join(root, "counted.json")

    def count(number: int) -> None:
        done = False
        while not done:
            text, version = conditional.read(location)
            done = conditional.replace(location, json.dumps([*json.loads(text or "[]"), number]), version)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(12)))
    assert sorted(json.loads(conditional.read(location)[0] or "")) == list(range(12))
    if "://" not in root:
        assert [path.name for path in Path(root).iterdir()] == ["counted.json"], "no lock and no draft is left"
