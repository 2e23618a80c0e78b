"""EMR Serverless on this machine: moto has its API and keeps its job runs, and here they are run.

A job run gets what AWS gives it, and nothing of this project's: a folder with its program and the unpacked archive, an
environment of a few variables, Spark, and a Python without packages. What is otherwise than at AWS: executors are as
many and as large as this machine can bear, Spark is that of PySpark, and credentials are moto's.
"""

import gzip
import os
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any, cast
from unittest import mock
from urllib.parse import urlsplit

import boto3
import moto.emrserverless.models as moto_models
from moto.server import ThreadedMotoServer

ROLE = "arn:aws:iam::123456789012:role/jobs"
REGION = "us-east-1"
BUCKET = "audience"
_MASTER = "local-cluster[2,1,1024]"  # two executors, each a process that starts in a folder of its own
_OF_JAVA = ("JAVA_HOME", "SPARK_SUBMIT_OPTS")
_DRIVER_ENVIRONMENT = "spark.emr-serverless.driverEnv."


class EMRServerless:
    """An account with a bucket and an application, whose job runs are run one after another."""

    def __init__(self, folder: Path, spark_home: Path):
        self._folder, self._spark_home = folder, spark_home
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        # A job run that moto was given is not done by that.
        self._unended = mock.patch.object(moto_models, "JOB_STATUS", "SUBMITTED")
        self._closed = threading.Event()
        self._runner = threading.Thread(target=self._run_all, daemon=True)
        self.python = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")

    def __enter__(self) -> "EMRServerless":
        self._unended.start()
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.variables = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }
        access: dict[str, Any] = {
            "endpoint_url": self.variables["AWS_ENDPOINT_URL"],
            "region_name": REGION,
            "aws_access_key_id": "testing",
            "aws_secret_access_key": "testing",
        }
        self.s3 = boto3.client("s3", **access)
        self.s3.create_bucket(Bucket=BUCKET)
        made = boto3.client("emr-serverless", **access).create_application(
            name="explorer", releaseLabel="emr-7.12.0", type="SPARK"
        )
        self.application = made["applicationId"]
        self.runs[:] = []
        self._runner.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._runner.join(timeout=60)
        self._server.stop()
        self._unended.stop()

    @property
    def runs(self) -> list[Any]:
        """The job runs, as moto keeps them."""
        backend = moto_models.emrserverless_backends["123456789012"][REGION]
        return cast(list[Any], backend.job_runs.setdefault(self.application, []))

    def bring(self, folder: Path) -> None:
        """Put a folder's files into the bucket."""
        for file in folder.rglob("*"):
            if file.is_file():
                self.s3.upload_file(str(file), BUCKET, f"{folder.name}/{file.relative_to(folder).as_posix()}")

    def _run_all(self) -> None:
        while not self._closed.wait(0.1):
            for run in self.runs:
                if run.state == "SUBMITTED":
                    run.state = "RUNNING"
                    try:
                        self._run(run)
                    except Exception as error:
                        run.state_details, run.state = f"the sandbox failed: {error!r}", "FAILED"

    def _run(self, run: Any) -> None:
        began, submit = time.monotonic(), run.job_driver["sparkSubmit"]
        properties = _properties_of(run)
        work = self._folder / run.id
        work.mkdir(parents=True)
        self._fetch(submit["entryPoint"], work / "main.py")
        location, _, name = properties["spark.archives"].partition("#")
        self._fetch(location, work / "archive.tar.gz")
        with tarfile.open(work / "archive.tar.gz") as tar:  # as for a driver that runs in the cluster
            tar.extractall(work / name, filter="data")
        environment = {
            **self.variables,
            **{
                variable.removeprefix(_DRIVER_ENVIRONMENT): value
                for variable, value in properties.items()
                if variable.startswith(_DRIVER_ENVIRONMENT)
            },
            "PATH": os.pathsep.join([str(self.python.parent), "/usr/bin", "/bin"]),
            "SPARK_HOME": str(self._spark_home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            **{variable: os.environ[variable] for variable in _OF_JAVA if variable in os.environ},
        }
        kept = {
            "spark.archives": f"{work}/archive.tar.gz#{name}",
            "spark.executor.memory": "1g",
            **{n: value for n, value in properties.items() if n.startswith("spark.executorEnv.")},
        }
        command = [str(self._spark_home / "bin" / "spark-submit"), "--master", _MASTER]
        command += [part for pair in kept.items() for part in ("--conf", "=".join(pair))]
        with (work / "stderr").open("wb") as printed:
            code = subprocess.call(
                [*command, "main.py", *submit["entryPointArguments"]],
                cwd=work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )
        self._keep_log(run, (work / "stderr").read_bytes())
        hours = (time.monotonic() - began) / 3600
        run.billed_resource_utilization = {"vCPUHour": 3 * hours, "memoryGBHour": 6 * hours, "storageGBHour": 0.0}
        run.state_details = "" if code == 0 else f"Job failed, please check complete logs. ExitCode: {code}"
        run.state = "SUCCESS" if code == 0 else "FAILED"

    def _keep_log(self, run: Any, text: bytes) -> None:
        uri = run.configuration_overrides["monitoringConfiguration"]["s3MonitoringConfiguration"]["logUri"]
        folder = urlsplit(uri).path.strip("/")
        key = f"{folder}/applications/{run.application_id}/jobs/{run.id}/SPARK_DRIVER/stderr.gz"
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=gzip.compress(text))

    def _fetch(self, location: str, target: Path) -> None:
        parts = urlsplit(location)
        self.s3.download_file(parts.netloc, parts.path.lstrip("/"), str(target))


def _properties_of(run: Any) -> dict[str, str]:
    """Spark's properties of a job run. Its parameters are taken apart by blanks, as by AWS: no quote has a meaning."""
    parameters = run.job_driver["sparkSubmit"].get("sparkSubmitParameters", "").split()
    given = [pair.split("=", 1) for pair in parameters[1::2]]
    defaults = run.configuration_overrides.get("applicationConfiguration", [])
    of_spark = [each["properties"] for each in defaults if each["classification"] == "spark-defaults"]
    return {name: value for properties in of_spark for name, value in properties.items()} | dict(given)
