"""What docs/first-run.md and deploy/README.md have people type for roles fits AWS and the policies."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from acceptance.sandbox.permissions import Request, Role
from ami.build import DEBIAN
from tests.test_policies import FILES, NAMES

PROJECT = Path(__file__).parents[1]
DEPLOYMENT = (PROJECT / "deploy" / "README.md").read_text(encoding="utf-8")
FIRST_DAY = (PROJECT / "docs" / "first-run.md").read_text(encoding="utf-8")
# Of all inline policies of a role together, without white space.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
MOST_CHARACTERS = 10_240
LONGEST_BUCKET = "b" * 63


def filled_in(file: Path) -> str:
    """A policy or script as the documented function `policy` has it."""
    found = re.search(r"^policy\(\) \{\n.*?^\}\n", DEPLOYMENT, re.DOTALL | re.MULTILINE)
    assert found
    names = {"AWS_REGION": "ap-southeast-2", "ACCOUNT": "123456789012", "BUCKET": LONGEST_BUCKET}
    done = subprocess.run(
        ["bash", "-c", f'{found[0]}policy "$1"', "bash", file],
        env={"PATH": "/usr/bin:/bin", **names, "AUDIENCE_EXPLORER_EMR_APPLICATION": "00f1example"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def documented_roles() -> dict[str, list[str]]:
    """The policy files of each role that a person is shown how to make."""
    lines = re.findall(r"^(?:role|person) (\S+) ((?:\w+/iam/\S+ ?)+)$", DEPLOYMENT + FIRST_DAY, re.MULTILINE)
    roles = {name: files.split() for name, files in lines}
    roles["audience-explorer-services"].append("ami/iam/gc.json")  # while somebody cleans up
    roles["audience-explorer-jobs"] = ["emr/iam/job.json"]
    return roles


@pytest.mark.parametrize("file", [file for file in FILES if file.stem != "kms"], ids=lambda file: str(file.parts[-3:]))
def test_the_documented_function_leaves_no_name_open_in_a_policy(file: Path) -> None:
    text = filled_in(file)
    assert json.loads(text)["Statement"]
    assert "@" not in text


def test_the_box_learns_its_own_names_and_leaves_those_of_its_settings_to_sed() -> None:
    script = filled_in(PROJECT / "deploy" / "user_data.sh")
    assert f"s3://{LONGEST_BUCKET}/audience/install/app.tar.gz" in script
    assert set(re.findall(r"@[A-Z_\[\]]+@", script)) == {"@[R]EGION@", "@[A]CCOUNT@", "@[B]UCKET@"}


@pytest.mark.parametrize(
    ("name", "files"), documented_roles().items(), ids=lambda of: of if isinstance(of, str) else ""
)
def test_the_policies_of_a_documented_role_fit_into_it(name: str, files: list[str]) -> None:
    characters = sum(len(re.sub(r"\s", "", filled_in(PROJECT / file))) for file in files)
    assert characters <= MOST_CHARACTERS, name


def test_the_documented_roles_are_found() -> None:
    roles = documented_roles()
    assert roles["audience-explorer-operator"] == [
        f"ami/iam/{of}.json" for of in ("launcher", "check", "image_operator")
    ]
    assert {"audience-explorer-instance", "audience-explorer-image-builder", "audience-explorer-emr"} <= set(roles)


def test_the_box_may_fetch_its_code_and_change_none_of_it() -> None:
    box = Role([PROJECT / file for file in ("ami/iam/launcher.json", "deploy/iam/services.json")], NAMES)
    code = "arn:aws:s3:::bucket/audience/install/app.tar.gz"
    assert box.may(Request("s3:GetObject", code))
    assert not box.may(Request("s3:PutObject", code))


def test_the_box_is_of_the_debian_release_of_the_image() -> None:
    assert f"resolve:ssm:{DEBIAN} " in DEPLOYMENT
