"""The machine image is built from nothing, as a person builds it, and jobs run from it on both engines.

In the isolated sandbox: the builder is a bare Debian 13, the image is what provisioning made of its disk, and instances
of it reach nothing but S3 and their own metadata. It takes a few minutes, and root.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster_pipes import PipesContextData

from acceptance.conftest import PROJECT, isolated_sandbox
from acceptance.sandbox import Sandbox
from audience_explorer_dagster.launchers.ec2 import code
from audience_explorer_dagster.launchers.ec2.start import user_data
from audience_explorer_dagster.launchers.launch_store import LaunchStore, LaunchTags
from spark_jobs.launch.reader import Transcript
from tests.conftest import Said

pytestmark = pytest.mark.isolated

SECONDS = 900  # that an instance may take

# What each instance of this story does first: it is as a launch has it, but for a script in the boot program's place.
BEGIN = """\
#!/bin/bash
trap 'echo "the script exited with $?"; shutdown -h now' EXIT
set -euo pipefail
cd /scratch
python=/opt/audience-explorer/venv/bin/python
as_explorer() { runuser -u explorer -- env HOME=/scratch "$@"; }
"""

RUN_JOB = """\
export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1 PYTHONPATH=/scratch/code
as_explorer $python - CODE <<'END'
import io, sys, tarfile, boto3
bucket, key = sys.argv[1].removeprefix("s3://").split("/", 1)
archive = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
tarfile.open(fileobj=io.BytesIO(archive)).extractall("/scratch/code")
END
as_explorer $python -m spark_jobs.group_by_user --engine ENGINE s3://BUCKET/raw/month=2019-06 s3://BUCKET/ENGINE
"""

# It is told neither region nor credentials, so that hadoop-aws must find both in the instance's metadata.
PROBE = """\
as_explorer $python - <<'END'
import os, sys
from pyspark.ml.clustering import KMeans
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession

os.environ["PYSPARK_PYTHON"] = sys.executable
spark = SparkSession.builder.getOrCreate()
jvm = spark._jvm
spark.range(0, 1000, 1, 4).write.parquet("s3a://BUCKET/probe")
print("read:", spark.read.parquet("s3://BUCKET/probe").selectExpr("sum(id)").first()[0])
s3a = jvm.org.apache.hadoop.fs.Path("s3a://BUCKET/").getFileSystem(spark._jsc.hadoopConfiguration()).getS3AInternals()
print("region:", s3a.getAmazonS3Client("probe").serviceClientConfiguration().region().id())
print("access key:", s3a.shareCredentials("probe").resolveCredentials().accessKeyId())
mllib = getattr(getattr(jvm.org.apache.spark.ml.linalg, "BLAS$"), "MODULE$")
print("NativeBLAS:", mllib.nativeBLAS().getClass().getName())
points = spark.createDataFrame([(Vectors.dense(n % 2, 1),) for n in range(100)], ["features"])
print("centers:", sorted(center.tolist() for center in KMeans(k=2, seed=1).fit(points).clusterCenters()))
END
"""


class Account:
    """An account in which somebody has built an image."""

    def __init__(self, sandbox: Sandbox):
        self.sandbox = sandbox
        self.s3, self.ec2 = sandbox.client("s3"), sandbox.client("ec2")

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Type `python -m ami …`."""
        settings = {
            "AUDIENCE_EXPLORER_EC2_LAUNCHES": f"s3://{self.sandbox.bucket}/jobs",
            "AUDIENCE_EXPLORER_EC2_BUILDER_PROFILE": self.sandbox.instance_profile,
            "AUDIENCE_EXPLORER_EC2_SUBNETS": self.sandbox.subnets[0],
        }
        return subprocess.Popen(
            [sys.executable, "-m", "ami", *arguments],
            cwd=PROJECT,
            env={**os.environ, **self.sandbox.environment, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ami(self, *arguments: str) -> Said:
        """Type it, and wait for its end."""
        with self.start(*arguments) as process:
            stdout, stderr = process.communicate(timeout=2400)
        assert process.returncode == 0, stderr
        return Said(stdout, stderr)

    def run(self, script: str) -> str:
        """Run a script on an instance of the image, until that has ended itself; what it printed."""
        return self.start_instance(BEGIN + script.replace("BUCKET", self.sandbox.bucket))

    def start_instance(self, script: str) -> str:
        """Start an instance of the image with user data, and wait until it has ended itself; what it printed."""
        self.ec2.run_instances(
            ImageId=self.sandbox.image,
            InstanceType="m7i.2xlarge",
            MinCount=1,
            MaxCount=1,
            UserData=script,
            IamInstanceProfile={"Name": self.sandbox.instance_profile},
            InstanceInitiatedShutdownBehavior="terminate",
            MetadataOptions={"HttpTokens": "required"},
        )
        instance = self.sandbox.instances[-1]
        instance.wait_until("terminated", SECONDS)
        return instance.log.read_text(errors="replace")

    def files(self, folder: str) -> dict[str, bytes]:
        """The files below a folder, by name; without the manifest, which has times and names the engine."""
        found = self.s3.list_objects_v2(Bucket=self.sandbox.bucket, Prefix=f"{folder}/").get("Contents", [])
        keys = [entry["Key"] for entry in found if not entry["Key"].endswith("/manifest.json")]
        return {key.removeprefix(f"{folder}/"): self._read(key) for key in keys}

    def _read(self, key: str) -> bytes:
        return bytes(self.s3.get_object(Bucket=self.sandbox.bucket, Key=key)["Body"].read())


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory, image_cache: Path) -> Iterator[Account]:
    """An account without any image of ours, and then one that was built."""
    with isolated_sandbox(tmp_path_factory.mktemp("sandbox"), image_cache) as sandbox:
        yield Account(sandbox)


@pytest.fixture(scope="module")
def built(account: Account) -> Said:
    """What `python -m ami build` said."""
    began = time.monotonic()
    said = account.ami("build")
    print(f"python -m ami build took {time.monotonic() - began:.0f} s")
    return said


def test_ctrl_c_ends_the_builder_at_its_work_and_leaves_no_image(account: Account) -> None:
    with account.start("build") as process:
        assert process.stderr
        assert any(line.startswith("provision: ") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    account.sandbox.instances[-1].wait_until("terminated")
    assert account.ami("ls", "--json").stdout == "[]\n"


def test_build_makes_an_image_and_leaves_no_builder(account: Account, built: Said) -> None:
    assert built.stdout.strip() == account.sandbox.image
    assert "local runs tasks in processes" in built.stderr
    assert "spark runs a query, its NativeBLAS is JNIBLAS, s3a:// is opened by S3AFileSystem" in built.stderr
    account.sandbox.instances[-1].wait_until("terminated")
    listed: list[dict[str, Any]] = json.loads(account.ami("ls", "--json").stdout)
    assert [(image["id"], image["misfits"]) for image in listed] == [(account.sandbox.image, [])]


@pytest.mark.usefixtures("built")
def test_a_job_gives_the_same_on_both_engines(account: Account, ansible: Path) -> None:
    for file in sorted((ansible / "raw" / "month=2019-06").iterdir()):
        account.s3.upload_file(str(file), account.sandbox.bucket, f"raw/month=2019-06/{file.name}")
    archive = LaunchStore(account.s3, f"s3://{account.sandbox.bucket}/jobs").keep_code(*code.pack())
    for engine in ("local", "spark"):
        printed = account.run(RUN_JOB.replace("CODE", archive).replace("ENGINE", engine))
        assert "the script exited with 0" in printed, printed
    assert account.files("local") == account.files("spark")
    assert any(name.endswith(".parquet") for name in account.files("local"))


@pytest.mark.usefixtures("built")
def test_the_boot_program_starts_the_agent_of_a_launch_whose_code_comes_with_it(account: Account) -> None:
    store = LaunchStore(account.s3, f"s3://{account.sandbox.bucket}/jobs")
    folder = store.folder(LaunchTags("20240101T000000-00000000", "p", "r", "2024-01"))
    digest, archive = code.pack()
    context: dict[str, Any] = dict.fromkeys(PipesContextData.__annotations__)
    context |= {"run_id": "r", "job_name": "j", "retry_number": 0, "extras": {"jobs": []}}
    facts = {"code": store.keep_code(digest, archive), "code_sha256": digest, "max_runtime": SECONDS}
    folder.describe({**facts, "context": context})
    printed = account.start_instance(user_data("us-east-1", folder.location))
    status, transcript = folder.status(), Transcript(folder)
    assert status is not None, printed
    messages = list(transcript.new_messages())
    assert (status.exit_code, transcript.missing(status)) == (0, ""), printed
    assert messages[0]["instance"] == account.sandbox.instances[-1].id
    assert [message["boot"] for message in messages if "boot" in message] == ["started", "jobs", "ended"]
    assert any(message.get("method") == "opened" for message in messages), "the jobs had their context"


@pytest.mark.usefixtures("built")
def test_spark_reads_and_writes_s3a_by_the_instances_role_with_native_blas(account: Account) -> None:
    printed = account.run(PROBE)
    assert "the script exited with 0" in printed, printed
    said = dict(line.split(": ", 1) for line in printed.splitlines() if ": " in line)
    assert said["read"] == "499500"
    assert said["region"] == "us-east-1"
    assert said["access key"].startswith("ASIA")  # that of a role
    assert said["NativeBLAS"] == "dev.ludovic.netlib.blas.JNIBLAS"
    assert said["centers"] == "[[0.0, 1.0], [1.0, 1.0]]"
