"""gc: what killed processes left and what no record points at is listed, and deleted when asked; nothing else is."""

import json
import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import pytest
from botocore.client import BaseClient
from click.testing import CliRunner
from moto import mock_aws

from acceptance.sandbox.permissions import Permissions, Role
from audience_explorer_dagster import definitions as loaded
from audience_explorer_dagster.cli import main
from audience_explorer_dagster.launchers.launch_store import LaunchStore, LaunchTags
from audience_explorer_dagster.records import garbage
from audience_explorer_dagster.records.garbage import delete_garbage, find_garbage
from spark_jobs import outputs, storage
from spark_jobs.config import KMeansConfig
from spark_jobs.reporting import Reporter
from spark_jobs.storage import s3
from tests.project import Project

pytestmark = pytest.mark.filterwarnings("ignore")

IAM = Path(__file__).parents[1] / "ami/iam"
OLD = 40 * 86400.0  # seconds
DRAFT = ".data.json." + "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def home(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", project.instance.root_directory)
    monkeypatch.setattr(loaded, "defs", project.definitions)


@pytest.fixture
def made(project: Project) -> Path:
    """The current output of kmeans of a month and category, made 40 days ago like all that it is made from."""
    folder = project.pipeline(["2024-01"], ["tea"], kmeans={"k": 2})["kmeans tea|2024-01"].folder
    Path(project.store.edits_file("tea")).parent.mkdir()
    Path(project.store.edits_file("tea")).write_text("- pin-k: 2\n")
    age(project.root)
    return Path(str(folder))


def age(folder: Path, seconds: float = OLD) -> None:
    then = time.time() - seconds
    for file in [folder, *folder.rglob("*")]:
        os.utime(file, (then, then))


def put(file: Path, text: str = "{}") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    age(file)
    return file


def run(project: Project, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    result = CliRunner().invoke(main, ["gc", "--json", *arguments, "--root", str(project.root)])
    assert result.exit_code == code, result.output
    return [] if code else list(json.loads(result.stdout))


def kinds(found: list[dict[str, Any]]) -> dict[str, str]:
    return {one["location"]: one["kind"] for one in found}


def all_files(root: Path) -> set[Path]:
    return {file for file in root.rglob("*") if file.is_file()}


def test_what_killed_jobs_left_and_what_is_not_on_record_goes_and_all_else_stays(project: Project, made: Path) -> None:
    before = all_files(project.root)
    unfinished = put(made.with_name("20240101T000000-0123abcd") / "_unfinished").parent
    unknown = put(made.with_name("20240101T000000-4567abcd-1") / "manifest.json").parent
    drafts = [put(made / DRAFT), put(made.with_name(".current" + DRAFT[5:])), put(project.root / "edits" / DRAFT)]
    kept = [put(project.root / "raw" / "month=2024-01" / DRAFT), put(made.with_name("theirs") / "data.json")]
    wanted = {
        str(unfinished): "unfinished output",
        str(unknown): "output not on record",
        **{str(draft): "temporary file" for draft in drafts},
    }
    assert kinds(run(project)) == wanted
    assert all(Path(location).exists() for location in wanted), "it is a list"
    job = project.definitions.resolve_job_def("whole_month")
    going_on = project.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    run(project, "--yes", code=2)
    assert all(Path(location).exists() for location in wanted), "a run goes on"
    project.instance.report_run_canceled(going_on)
    assert kinds(run(project, "--yes")) == wanted
    assert all_files(project.root) == before | set(kept)
    assert run(project) == []


def test_what_is_young_or_superseded_or_being_written_is_kept(project: Project, made: Path) -> None:
    superseded = made
    project.pipeline(["2024-01"], ["tea"], kmeans={"k": 1})
    (made / DRAFT).write_text("half")
    young = put(made.with_name("20240101T000000-0123abcd") / "_unfinished")
    os.utime(young)
    old = str(made.with_name("20240101T000000-4567abcd"))
    config = KMeansConfig(k=2)
    with outputs.writing("kmeans", "1", old, Reporter(), config=config, inputs=[], fingerprint="f") as writing:
        writing.write_json("by.json", "me")
        age(Path(old))
        assert run(project, "--yes") == [], "a job writes to it since 40 days"
        writing.complete(rows={}, summary={})
    assert superseded.exists()
    assert outputs.is_whole(old, "kmeans")


def test_an_output_that_a_record_misses_is_kept_for_adoption(project: Project, made: Path) -> None:
    twin = made.with_name("20240101T000000-0123abcd")
    made.rename(twin)
    assert run(project) == []
    made.mkdir()
    for file in twin.iterdir():
        (made / file.name).write_bytes(file.read_bytes())
    age(made)
    assert kinds(run(project)) == {str(twin): "output not on record"}, "the record has its own again"


# --- on S3 -----------------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="garbage")
        yield client


def test_launches_whose_run_is_over_and_unfinished_uploads_go(
    project: Project, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = project.definitions.resolve_job_def("whole_month")
    going_on = project.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED).run_id
    launches = LaunchStore(bucket, "s3://garbage/launches")
    over, goes_on = (LaunchTags("20240101T000000-0123abcd", "p", of_run, "tea") for of_run in ("unknown", going_on))
    for tags in (over, goes_on):
        launches.folder(tags).put("log/000001.txt", b"1234")
    bucket.put_object(Bucket="garbage", Key="launches/code/a.tar.gz", Body=b"")
    upload = bucket.create_multipart_upload(Bucket="garbage", Key="root/kmeans/month=2024-01/data.json")["UploadId"]
    bucket.create_multipart_upload(Bucket="garbage", Key="elsewhere/data.json")
    project.store = type(project.store)(root="s3://garbage/root")

    now = datetime.now(timezone.utc)
    begun = now - timedelta(days=1)
    uploads = [("s3://garbage/root/kmeans/month=2024-01/data.json", upload, begun)]
    with monkeypatch.context() as patch:  # moto knows no times
        patch.setattr(s3, "unfinished_uploads", lambda at: uploads if at.endswith("/kmeans") else [])
        assert find_garbage(project.instance, project.store, launches, begun) == []
    found = find_garbage(project.instance, project.store, launches, now + timedelta(minutes=1))
    assert [(one.kind, one.what) for one in found] == [("unfinished upload", upload), ("launch", over)]
    assert found[1].bytes == 4
    for one in found:
        delete_garbage(one, launches)
    assert launches.list() == [goes_on]
    assert [u["Key"] for u in bucket.list_multipart_uploads(Bucket="garbage")["Uploads"]] == ["elsewhere/data.json"]
    assert storage.at("s3://garbage/launches/code/a.tar.gz").exists()


def test_gc_on_s3_asks_for_no_more_than_its_policies_allow_and_uses_all_of_its_own(
    project: Project, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    launches, over = (
        LaunchStore(bucket, "s3://garbage/launches"),
        LaunchTags("20240101T000000-0123abcd", "p", "r", "tea"),
    )
    launches.folder(over).put("log/000001.txt", b"1234")
    left = f"root/kmeans/month=2024-01/category=tea/20240101T000000-0123abcd/{DRAFT}"
    bucket.put_object(Bucket="garbage", Key=left, Body=b"")
    bucket.create_multipart_upload(Bucket="garbage", Key="root/kmeans/month=2024-01/data.json")
    project.store = type(project.store)(root="s3://garbage/root")
    names = dict.fromkeys(("DATA_BUCKET", "LAUNCHES_BUCKET"), "garbage") | {"DATA_PREFIX": "root"}
    names |= {"LAUNCHES_PREFIX": "launches"}
    names |= dict.fromkeys(("REGION", "ACCOUNT", "INSTANCE_ROLE"), "")
    role = Role([IAM / "launcher.json", IAM / "gc.json"], names)
    permissions = Permissions({"person": role}, names)
    call = BaseClient._make_api_call

    def checked_call(client: BaseClient, action: str, params: dict[str, Any]) -> Any:
        asked = {"Key": "", **{name: str(value) for name, value in params.items()}}
        if "Prefix" in params:
            asked["prefix"] = params["Prefix"]
        if "Delete" in params:
            asked["Keys"] = "\n".join(one["Key"] for one in params["Delete"]["Objects"])
        permissions.denied("person", "s3", action, asked, lambda _: {})
        return call(client, action, params)

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", checked_call)
        found = find_garbage(
            project.instance, project.store, launches, datetime.now(timezone.utc) + timedelta(minutes=1)
        )
        for one in found:
            delete_garbage(one, launches)
    assert sorted(one.kind for one in found) == ["launch", "unfinished output", "unfinished upload"]
    assert [refused for refused in permissions.refused if "HeadBucket" not in refused] == []
    own = {of for of in role.allowed if of[0] in ("SeeUnfinishedUploads", "DeleteOutputs")}
    assert own <= role.used
    assert bucket.list_objects_v2(Bucket="garbage")["KeyCount"] == 0


def test_temporary_files_are_told_by_the_name_that_a_writer_gives_them(tmp_path: Path) -> None:
    with storage.new_file(str(tmp_path / "a.b")) as file:
        assert garbage._DRAFT.fullmatch(Path(file.name).name)
    assert not any(
        garbage._DRAFT.fullmatch(name) for name in (".hidden", ".a.0123", "a.0123456789abcdef0123456789abcdef")
    )
