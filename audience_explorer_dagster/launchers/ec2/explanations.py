"""What to do about errors of AWS's whose own words do not say it."""

from botocore.exceptions import BotoCoreError, ClientError

from ami.instances import is_profile_unknown
from spark_jobs import kms
from spark_jobs.errors import as_clause

# EC2's answers to who names no subnet and has no default network, or one without subnets.
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
WITHOUT_NETWORK = {"MissingInput", "VPCIdNotSpecified", "VPCResourceNotSpecified"}
NO_NETWORK = "aws ec2 create-default-vpc (free), or name subnets: AUDIENCE_EXPLORER_EC2_SUBNETS."

# What EC2 says of most types to an account of AWS's free plan, of which all new ones may be since July 2025.
# https://docs.aws.amazon.com/cli/latest/reference/freetier/upgrade-account-plan.html
_OF_THE_FREE_PLAN = "not eligible for Free Tier"
FREE_PLAN = (
    "AWS's free plan has small types only. Upgrade the account to the paid plan:"
    " aws freetier upgrade-account-plan --account-plan-type PAID"
)

_PROFILE = (
    "If it was made just now, launch again in a minute. Else make it, with a role of the same name that has"
    " ami/iam/instance.json, or name another: AUDIENCE_EXPLORER_EC2_INSTANCE_PROFILE."
)


def is_on_free_plan(message: str) -> bool:
    """Whether EC2 says that the account's plan does not have an instance type."""
    return _OF_THE_FREE_PLAN in message


def explained(error: BotoCoreError | ClientError) -> str:
    """What AWS says, and what to do about it if that is known."""
    code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
    to_do = ""
    if code in WITHOUT_NETWORK:
        to_do = f"There is no default network: {as_clause(NO_NETWORK)}"
    elif is_profile_unknown(error):
        to_do = _PROFILE
    elif is_on_free_plan(str(error)):
        to_do = FREE_PLAN
    elif kms.is_denied(str(error)):
        to_do = kms.WAY_OUT
    return f"{as_clause(str(error))}. {to_do}" if to_do else str(error)
