"""Whether the caller may do what launches do, by IAM's own simulation, and whether the jobs' role is one for EMR.

The simulation knows the caller's policies and permission boundaries. It does not know policies of buckets.
https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from botocore.exceptions import ClientError

from audience_explorer_dagster.launchers.aws_checks import Result, looked
from audience_explorer_dagster.launchers.emr_serverless.settings import EMRServerlessSettings
from spark_jobs.launch.aws import client

POLICIES = "emr/iam"
SERVICE = "emr-serverless.amazonaws.com"

_ON_APPLICATION = ["GetApplication", "ListJobRuns", "StartJobRun", "TagResource"]
_ON_JOB_RUNS = ["GetJobRun", "CancelJobRun", "TagResource"]

Decision = Literal["allowed", "explicitDeny", "implicitDeny"]


@dataclass(frozen=True)
class Rights:
    """What IAM says of the caller.

    Attributes:
        iam: A client of IAM's.
        caller: The caller's ARN, as STS has it.
    """

    iam: Any
    caller: str

    @property
    def account(self) -> str:
        """The caller's account."""
        return self.caller.split(":")[4]

    @property
    def partition(self) -> str:
        """AWS's partition: `aws`, `aws-cn`, …"""
        return self.caller.split(":")[1]

    def decide(
        self, actions: Sequence[str], resource: str, context: Mapping[str, str] | None = None
    ) -> dict[str, Decision]:
        """What IAM decides on actions of the caller.

        Args:
            actions: Such as `iam:PassRole`.
            resource: On which.
            context: The values of condition keys.
        """
        if self.caller.endswith(":root"):  # which is allowed everything, and can't be simulated
            return dict.fromkeys(actions, "allowed")
        answer = self.iam.simulate_principal_policy(
            PolicySourceArn=self._principal(),
            ActionNames=list(actions),
            ResourceArns=[resource],
            ContextEntries=[
                {"ContextKeyName": name, "ContextKeyValues": [value], "ContextKeyType": "string"}
                for name, value in (context or {}).items()
            ],
        )
        return {of["EvalActionName"]: of["EvalDecision"] for of in answer["EvaluationResults"]}

    def _principal(self) -> str:
        """The user or the role that has the caller's policies. A session's ARN leaves out its role's path."""
        kind, _, name = self.caller.split(":", 5)[5].partition("/")
        if kind != "assumed-role":
            return self.caller
        return str(self.iam.get_role(RoleName=name.partition("/")[0])["Role"]["Arn"])


def rights_of(region: str, attempts: int) -> Rights:
    """The rights of whoever calls.

    Args:
        region: The home region of the partition.
        attempts: How often a request that fails is made.
    """
    caller = client("sts", region, attempts).get_caller_identity()["Arn"]
    return Rights(client("iam", region, attempts), str(caller))


def check_role(rights: Rights, settings: EMRServerlessSettings) -> list[Result]:
    """Whether the jobs' role is there and one for EMR Serverless, and the caller may give it to jobs and run them."""
    found = _role(rights, settings.role)
    if found and found[0].state == "failed":
        return [*found, Result("rights", "unseen", "not checked yet", "First mend the role.")]
    may_pass = looked("pass role", lambda: [_pass_role(rights, settings.role)], POLICIES)
    return [*found, *may_pass, *looked("rights", lambda: [_rights(rights, settings)], POLICIES)]


def _role(rights: Rights, role: str) -> list[Result]:
    parts = role.split(":")
    if len(parts) != 6 or parts[2] != "iam" or not parts[5].startswith("role/"):
        to_do = "AUDIENCE_EXPLORER_EMR_ROLE=arn:aws:iam::ACCOUNT:role/NAME"
        return [Result("job role", "failed", f"{role} is not the ARN of a role", to_do)]
    if parts[4] != rights.account:
        finding = f"{role} is of the account {parts[4]}, and the caller is of {rights.account}"
        return [Result("job role", "failed", finding, "Name a role of this account: AUDIENCE_EXPLORER_EMR_ROLE.")]
    return looked("job role", lambda: [_described(rights.iam, role)], POLICIES)


def _described(iam: Any, role: str) -> Result:
    name = role.rpartition("/")[2]
    try:
        trust = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchEntity":
            raise
        to_do = "Make it, with emr/iam/job.json: emr/README.md has the commands."
        return Result("job role", "failed", f"there is no role {name}", to_do)
    if not _trusts_emr(trust):
        to_do = f"aws iam update-assume-role-policy --role-name {name} --policy-document …, as in emr/README.md."
        return Result("job role", "failed", f"{name} is not one that {SERVICE} may take", to_do)
    return Result("job role", "ok", f"{name}, which {SERVICE} may take")


def _trusts_emr(trust: Mapping[str, Any] | str) -> bool:
    policy = json.loads(trust) if isinstance(trust, str) else trust
    statements = policy.get("Statement", [])
    return any(
        of["Effect"] == "Allow" and SERVICE in _as_list(of.get("Principal", {}).get("Service", []))
        for of in (statements if isinstance(statements, list) else [statements])
        if isinstance(of.get("Principal", {}), dict)
    )


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _pass_role(rights: Rights, role: str) -> Result:
    decisions = rights.decide(["iam:PassRole"], role, {"iam:PassedToService": SERVICE})
    if set(decisions.values()) == {"allowed"}:
        return Result("pass role", "ok", "the caller may give jobs their role")
    to_do = f"Allow iam:PassRole on {role}, as {POLICIES}/launcher.json does."
    return Result("pass role", "failed", "the caller may not give jobs their role", to_do)


def _rights(rights: Rights, settings: EMRServerlessSettings) -> Result:
    region = settings.emr.meta.region_name
    application = (
        f"arn:{rights.partition}:emr-serverless:{region}:{rights.account}:/applications/{settings.application}"
    )
    asked = {application: _ON_APPLICATION, f"{application}/jobruns/check": _ON_JOB_RUNS}
    denied = {
        action: None
        for resource, names in asked.items()
        for action, decision in rights.decide([f"emr-serverless:{name}" for name in names], resource).items()
        if decision != "allowed"
    }
    if not denied:
        return Result("rights", "ok", "the caller may start, follow and end job runs of the application")
    to_do = f"Allow {', '.join(denied)} on {application}, as {POLICIES}/launcher.json does."
    return Result("rights", "failed", f"the caller may not {', '.join(denied)}", to_do)
