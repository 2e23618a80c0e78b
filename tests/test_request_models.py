"""Requests that AWS would refuse are refused here, by its models and by what its documents add to these."""

import base64
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.client import BaseClient
from moto.server import ThreadedMotoServer

from audience_explorer_dagster.launchers.ec2.start import user_data
from tests.request_models import misfits_of
from tests.requests_checked import MisfitRequest, found

ROLE = "arn:aws:iam::123456789012:role/jobs"
RUN: dict[str, Any] = {"ImageId": "ami-1", "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1}
JOB: dict[str, Any] = {"applicationId": "00f1", "executionRoleArn": ROLE, "clientToken": "token"}
QUOTA = {"ServiceCode": "ec2", "QuotaCode": "L-1"}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")


def misfits(service: str, operation: str, **params: Any) -> list[str]:
    model = botocore.session.get_session().get_service_model(service)
    return misfits_of(model.operation_model(operation), params)


def tagged(key: str, value: str) -> dict[str, Any]:
    return {"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": key, "Value": value}]}]}


def tags(count: int) -> dict[str, Any]:
    listed = [{"Key": f"t{number}", "Value": ""} for number in range(count)]
    return {"TagSpecifications": [{"ResourceType": "instance", "Tags": listed}]}


def encoded(size: int) -> dict[str, str]:
    return {"UserData": base64.b64encode(b"#" * size).decode()}


@pytest.mark.parametrize(
    ("service", "operation", "fits", "wrong", "path"),
    [
        ("emr-serverless", "ListJobRuns", {"applicationId": "00f1"}, {"states": ["RUNING"]}, ".states[0]"),
        ("emr-serverless", "StartJobRun", JOB, {"tags": {"label": "größe"}}, ".tags.label"),
        ("emr-serverless", "StartJobRun", JOB, {"tags": {"k" * 129: ""}}, f".tags (key '{'k' * 129}')"),
        ("emr-serverless", "StartJobRun", JOB, {"clientToken": "a b"}, ".clientToken"),
        ("emr-serverless", "StartJobRun", JOB, {"clientToken": "x" * 65}, ".clientToken"),
        ("emr-serverless", "StartJobRun", JOB, {"executionRoleArn": "arn:aws:iam::1:role/jobs"}, ".executionRoleArn"),
        ("emr-serverless", "StartJobRun", JOB, {"executionTimeoutMinutes": 1_000_001}, ".executionTimeoutMinutes"),
        ("emr-serverless", "StartJobRun", JOB, {"jobDriver": {"sparkSubmit": {}}}, ".jobDriver.sparkSubmit.entryPoint"),
        ("ec2", "RunInstances", RUN, {"InstanceType": "m5.tiny"}, ".InstanceType"),
        ("ec2", "RunInstances", RUN, tagged("k" * 128, ""), ".TagSpecifications[0].Tags[0].Key"),
        ("ec2", "RunInstances", RUN, tagged("aws:name", ""), ".TagSpecifications[0].Tags[0].Key"),
        ("ec2", "RunInstances", RUN, tagged("k", "v" * 257), ".TagSpecifications[0].Tags[0].Value"),
        ("ec2", "RunInstances", RUN, tags(51), ".TagSpecifications[0].Tags"),
        ("ec2", "RunInstances", RUN, {"ClientToken": "x" * 65}, ".ClientToken"),
        ("ec2", "RunInstances", RUN, {"ClientToken": "größe"}, ".ClientToken"),
        ("ec2", "RunInstances", RUN, encoded(16 * 1024 + 1), ".UserData"),
        ("ec2", "CreateImage", {"InstanceId": "i-1", "Name": "a b.c"}, {"Name": "a:b"}, ".Name"),
        ("iam", "GetRole", {"RoleName": "jobs"}, {"RoleName": "a/b"}, ".RoleName"),
        ("service-quotas", "GetServiceQuota", QUOTA, {"QuotaCode": "_"}, ".QuotaCode"),
        ("sns", "Publish", {"Message": "m", "Subject": "s" * 99}, {"Subject": "s" * 100}, ".Subject"),
        ("sns", "Publish", {"Message": "m"}, {"Message": "ä" * (128 * 1024 + 1)}, ".Message"),
        ("s3", "HeadObject", {"Bucket": "bucket", "Key": "a"}, {"Key": "ä" * 513}, ".Key"),
        ("s3", "HeadObject", {"Bucket": "bucket", "Key": "a"}, {"Bucket": "Bucket_1"}, ".Bucket"),
        ("s3", "PutObject", {"Bucket": "bucket", "Key": "a"}, {"StorageClass": "CHEAP"}, ".StorageClass"),
    ],
)  # fmt: skip
def test_what_aws_refuses_is_named_by_operation_and_path(
    service: str, operation: str, fits: dict[str, Any], wrong: dict[str, Any], path: str
) -> None:
    assert misfits(service, operation, **fits) == []
    (misfit,) = misfits(service, operation, **{**fits, **wrong})
    assert misfit.startswith(f"{service} {operation}{path}: ")


def test_what_just_fits_is_not_refused() -> None:
    for more in (tagged("k" * 127, "v" * 256), tags(50), encoded(16 * 1024), {"ClientToken": "x" * 64}):
        assert misfits("ec2", "RunInstances", **RUN, **more) == []
    assert misfits("emr-serverless", "StartJobRun", **JOB, tags={"k" * 128: "v" * 256}) == []
    assert misfits("s3", "HeadObject", Bucket="a.b", Key="a" * 1024) == []


def test_a_client_of_any_kind_is_refused_before_it_asks() -> None:
    emr, ec2 = (boto3.client(service, region_name="us-east-1") for service in ("emr-serverless", "ec2"))
    with pytest.raises(MisfitRequest, match=r"emr-serverless ListJobRuns\.states\[0\]: 'RUNING' is not one of SUBM"):
        emr.list_job_runs(applicationId="00f1", states=["RUNING"])
    with pytest.raises(MisfitRequest, match=r"ec2 CreateTags\.Tags\[0\]\.Key: .* has 128 characters, and may have 127"):
        ec2.create_tags(Resources=["i-1"], Tags=[{"Key": "k" * 128, "Value": ""}])
    with pytest.raises(MisfitRequest, match=r"ec2 RunInstances\.UserData: .* has 16385 bytes, and may have 16384"):
        ec2.run_instances(**RUN, UserData="#" * (16 * 1024 + 1))
    with pytest.raises(
        MisfitRequest, match=r"StartJobRun\.executionRoleArn: 'jobs, and this is no ARN' does not fit the"
    ):
        emr.start_job_run(**{**JOB, "executionRoleArn": "jobs, and this is no ARN"})
    assert len(found) == 4
    found.clear()  # by which this test would fail


def test_user_data_of_launches_are_far_from_their_limit() -> None:
    assert len(user_data("us-gov-west-1", f"s3://{'b' * 63}/{'k' * 1024}")) < 2048


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """moto's server, whose callers have no checks of their own, as in another process."""
    by_session = getattr(BaseClient._convert_to_request_dict, "__wrapped__")  # type: ignore[attr-defined]  # noqa: B009
    monkeypatch.setattr(BaseClient, "_convert_to_request_dict", by_session)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.parametrize(
    ("service", "operation", "params", "path"),
    [
        ("ec2", "create_tags", {"Resources": ["i-1"], "Tags": [{"Key": "k" * 128, "Value": ""}]}, ".Tags[0].Key: "),
        ("emr-serverless", "start_job_run", {**JOB, "tags": {"a": "ü"}}, ".tags.a: 'ü' does not fit the pattern"),
        ("s3", "put_object", {"Bucket": "bucket", "Key": "a", "StorageClass": "CHEAP"}, ".StorageClass: 'CHEAP' is"),
        ("iam", "get_role", {"RoleName": "a/b"}, ".RoleName: 'a/b' does not"),
        ("service-quotas", "get_service_quota", {"ServiceCode": "ec2", "QuotaCode": "_"}, ".QuotaCode: '_'"),
        ("ssm", "get_parameter", {"Name": "n" * 2049}, " has 2049 characters, and may have 2048"),
        ("pricing", "get_products", {"ServiceCode": "AmazonEC2", "MaxResults": 101}, ".MaxResults: 101 is not betw"),
    ],
)
def test_requests_of_other_processes_are_refused_by_the_server(
    server: str, service: str, operation: str, params: dict[str, Any], path: str
) -> None:
    client = boto3.client(service, region_name="us-east-1", endpoint_url=server)  # type: ignore[call-overload]
    with pytest.raises(client.exceptions.ClientError, match="Validation"):
        getattr(client, operation)(**params)
    (misfit,) = found
    assert path in misfit
    found.clear()


def test_what_fits_reaches_the_server_as_it_was_sent(server: str) -> None:
    s3 = boto3.client("s3", region_name="us-east-1", endpoint_url=server)
    s3.create_bucket(Bucket="bucket")
    body = bytes(range(256)) * 1000
    s3.put_object(Bucket="bucket", Key="a/ü b", Body=body, Metadata={"a": "b"})
    assert s3.get_object(Bucket="bucket", Key="a/ü b")["Body"].read() == body
    s3.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "a/ü b"}]})
    assert s3.list_objects_v2(Bucket="bucket")["KeyCount"] == 0
    ec2 = boto3.client("ec2", region_name="us-east-1", endpoint_url=server)
    assert ec2.describe_instances(Filters=[{"Name": "tag:a", "Values": ["b"]}])["Reservations"] == []
    with pytest.raises(urllib.error.HTTPError, match="404"):  # unsigned
        urllib.request.urlopen(f"{server}/bucket/none")
