"""The same on S3, played by moto's server on this machine."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer

from audience_explorer_dagster import edits
from audience_explorer_dagster.definitions import definitions
from audience_explorer_dagster.launchers.local import LocalLauncher
from audience_explorer_dagster.reports.index import write_index
from audience_explorer_dagster.reports.served import Served
from audience_explorer_dagster.store import Store
from spark_jobs import storage
from spark_jobs.following.edits import PinK, read_edits
from spark_jobs.storage import s3
from tests.project import Project
from tests.test_report_server import publish

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket; its URL."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="audience")
    yield "s3://audience/explorer"
    server.stop()


def test_a_month_on_s3_is_computed_once_and_noticed_when_deleted(project: Project, bucket: str) -> None:
    for file in project.root.rglob("*"):
        if file.is_file():
            storage.write_text(storage.join(bucket, str(file.relative_to(project.root))), file.read_text())
    local = project.pipeline(["2024-01"], ["tea"])
    project.store = Store(root=bucket)
    # In a process of its own: fsspec and Sail keep the credentials and connections of the first use.
    project.definitions = definitions(bucket, LocalLauncher())

    first = project.pipeline(["2024-01"], ["tea"])
    assert {outcome.status for outcome in first.values()} == {"launched"}, first
    folder = str(first["kmeans tea|2024-01"].folder)
    assert folder.startswith(f"{bucket}/kmeans/month=2024-01/category=tea/")
    for file in ("data.json", "meta-data.json", "assignments.parquet"):
        on_s3 = storage.at(storage.join(folder, file)).read_bytes()
        assert on_s3 == Path(str(local["kmeans tea|2024-01"].folder), file).read_bytes()

    assert {outcome.status for outcome in project.pipeline(["2024-01"], ["tea"]).values()} == {"reused"}
    storage.delete_folder(folder)
    again = project.pipeline(["2024-01"], ["tea"])
    assert [name for name, outcome in again.items() if outcome.status == "launched"] == ["kmeans tea|2024-01"], again


def test_a_link_shows_a_page_to_a_browser_without_credentials_until_it_expires(bucket: str) -> None:
    page = storage.join(bucket, "audience_report/report.html")
    storage.write_text(page, "<!doctype html>Grüße")
    link = s3.link_that_expires(page, timedelta(hours=1))
    answer = requests.get(link, timeout=120)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.content.decode() == "<!doctype html>Grüße"
    assert "X-Amz-Expires=3600" in link
    assert "X-Amz-Credential=testing" in link, "it is signed for who made it"
    storage.write_text(storage.join(bucket, "k.json"), "{}")
    assert (
        "html"
        not in requests.get(s3.link_that_expires(f"{bucket}/k.json", timedelta(hours=1)), timeout=120).headers[
            "Content-Type"
        ]
    )


def test_edits_of_segments_are_kept_on_s3(bucket: str) -> None:
    file = Store(root=f"{bucket}/root").edits_file("tea")
    assert read_edits(file) == ()
    edits.add(file, PinK(k=2))
    edits.add(file, PinK(k=3))
    assert read_edits(file) == (PinK(k=2), PinK(k=3))
    assert edits.undo(file, 1) == (1, PinK(k=2))
    assert read_edits(file) == (PinK(k=3),)


def test_reports_on_s3_are_served_and_listed(bucket: str, tmp_path: Path) -> None:
    for month in ("2024-01", "2024-03"):
        publish(tmp_path, "coffee", month)
    publish(tmp_path, "games", "2024-01", private=True)
    for file in (tmp_path / "audience_report").rglob("*.*"):
        if file.is_file():
            storage.write_text(storage.join(bucket, file.relative_to(tmp_path).as_posix()), file.read_text())
    store = Store(root=bucket)
    served = Served(store)
    assert 'href="coffee/2024-03"' in served.index()
    assert "games" not in served.index()
    page = served.report("coffee", "2024-01")
    assert page is not None
    assert 'href="2024-03" rel="next"' in page
    assert served.report("coffee", "2024-02") is None
    index, _ = write_index(store)
    (link,) = re.findall(r'href="(month=2024-03/.*?)"', storage.at(index).read_text())
    assert storage.at(storage.join(bucket, "audience_report", link)).exists()
