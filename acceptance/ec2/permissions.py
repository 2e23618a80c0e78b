"""The policies allow all that a month on EC2 asks for, and hardly anything else.

That all is allowed is shown by every story in this folder: the sandbox refuses what the policies do not allow.
"""

from pathlib import Path

from acceptance.ec2.conftest import EC2Explorer
from acceptance.sandbox import Sandbox
from acceptance.sandbox.permissions import Permissions

MONTH = "2018-12"

# What is allowed and not asked for by a month that goes well, and why.
UNUSED = {
    "launcher": {
        ("NameTheNewestOutput", "s3:DeleteObject"): "an output that is not current any more, after an edit",
        ("OpenSessions", "ssm:StartSession"): "`audience-explorer ec2 ssh`",
        ("OpenSessionsAsAShell", "ssm:StartSession"): "as above",
        ("UseOwnSessions", "ssmmessages:OpenDataChannel"): "as above",
        ("UseOwnSessions", "ssm:ResumeSession"): "as above",
        ("UseOwnSessions", "ssm:TerminateSession"): "as above",
        ("AskForPrices", "pricing:GetProducts"): "on-demand instances; this one is a spot instance",
    },
    "instance": {
        ("WriteOutputs", "s3:AbortMultipartUpload"): "a large upload that fails",
        ("BeKnownToSessions", "ssm:UpdateInstanceInformation"): "the SSM agent, which the sandbox's machines lack",
        **{
            ("BeOpenToSessions", f"ssmmessages:{action}{what}Channel"): "as above"
            for action in ("Create", "Open")
            for what in ("Control", "Data")
        },
    },
}


def test_a_month_uses_all_that_the_policies_allow(
    sandbox: Sandbox, explorer: EC2Explorer, permissions: Permissions, ansible: Path
) -> None:
    explorer.bring(ansible, MONTH)
    explorer.pipeline("--month", MONTH, "--category", "cloud")
    explorer.command("audience-explorer", "launch", "ls")
    (instance,) = sandbox.instances
    explorer.command("audience-explorer", "launch", "rm", "--yes", instance.tags["launch"])
    unused = {name: role.allowed - role.used for name, role in permissions.roles.items()}
    assert unused == {name: set(expected) for name, expected in UNUSED.items()}
