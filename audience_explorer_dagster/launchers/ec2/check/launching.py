"""Whether there is an image, whether EC2 would launch it by each option, and whether the costs can be seen."""

import re
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from ami.images import Image
from ami.instances import Market
from audience_explorer_dagster.launchers.aws_checks import Result, State, looked, message_of
from audience_explorer_dagster.launchers.ec2.errors import ImageMisfit, NoImage
from audience_explorer_dagster.launchers.ec2.explanations import FREE_PLAN, NO_NETWORK, is_on_free_plan
from audience_explorer_dagster.launchers.ec2.images import check_fit, find_image
from audience_explorer_dagster.launchers.ec2.prices import price_of
from audience_explorer_dagster.launchers.ec2.settings import EC2Settings
from audience_explorer_dagster.launchers.ec2.start import (
    NO_CAPACITY,
    LaunchOption,
    instance_tags,
    launch_options,
    launch_request,
)
from audience_explorer_dagster.launchers.launch_store import LaunchTags
from spark_jobs.errors import as_clause

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

_BUILD = "Build one, in some minutes: python -m ami build"

_ACCOUNT = "AWS has yet to admit the account to EC2: see its mails and its billing, or ask its support."
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
_TO_DO = {
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": "Once for the account:"
    " aws iam create-service-linked-role --aws-service-name spot.amazonaws.com",
    "Blocked": _ACCOUNT,
    "InvalidGroup.NotFound": "Name others: AUDIENCE_EXPLORER_EC2_SECURITY_GROUPS.",
    "InvalidGroupId.Malformed": "Name others: AUDIENCE_EXPLORER_EC2_SECURITY_GROUPS.",
    "InvalidKeyPair.NotFound": "Name another, or none: AUDIENCE_EXPLORER_EC2_KEY_PAIR.",
    "InvalidSecurityGroupID.NotFound": "Name others: AUDIENCE_EXPLORER_EC2_SECURITY_GROUPS.",
    "InvalidSubnetID.NotFound": "Name others: AUDIENCE_EXPLORER_EC2_SUBNETS.",
    "MissingInput": NO_NETWORK,
    "OptInRequired": _ACCOUNT,
    "PendingVerification": _ACCOUNT,
    "Unsupported": "Name other types, or subnets of other zones: AUDIENCE_EXPLORER_EC2_INSTANCE_TYPES, …_SUBNETS.",
    "VPCIdNotSpecified": NO_NETWORK,
}


def find(ec2: "EC2Client", settings: EC2Settings) -> Image | None:
    """The image of launches; None if it is missing or can't be seen."""
    try:
        return find_image(ec2, settings.image)
    except (BotoCoreError, ClientError, NoImage):
        return None


def check_image(ec2: "EC2Client", settings: EC2Settings) -> list[Result]:
    """Whether there is an image, whether it fits this code and the root volume, and how old it is."""
    return looked("image", lambda: [_image(ec2, settings)])


def _image(ec2: "EC2Client", settings: EC2Settings) -> Result:
    try:
        found = find_image(ec2, settings.image)
        check_fit(found, settings.volume_gb)
    except NoImage as error:
        return Result("image", "failed", error.what.partition(". ")[0], _BUILD)
    except ImageMisfit as error:
        to_do = "Build a new one: python -m ami build"
        if "root volume" in error.what:
            to_do = "Raise AUDIENCE_EXPLORER_EC2_VOLUME_GB."
        return Result("image", "failed", error.what.removesuffix(" Build a new one: python -m ami build"), to_do)
    name = f"{found.name} ({found.id})"
    if found.state != "available":
        return Result("image", "failed", f"{name} is {found.state}", "Wait until it is available, or build another.")
    if found.is_old:
        to_do = "Build a new one, with Debian's security updates: python -m ami build"
        return Result("image", "warning", f"{name} fits, but is {found.days_old} days old", to_do)
    return Result("image", "ok", f"{name} fits")


def check_launches(ec2: "EC2Client", settings: EC2Settings, found: Image | None) -> list[Result]:
    """Ask EC2 whether it would launch: by the very requests of a launch, of which it does everything but launch.

    What is refused in the same way is one result. Whether there is capacity, EC2 does not say.
    """
    if found is None:
        return [Result("launches", "unseen", "EC2 can't be asked without an image", "First mend the image.")]
    return looked("launches", lambda: _dry_runs(ec2, settings, found))


def _dry_runs(ec2: "EC2Client", settings: EC2Settings, found: Image) -> list[Result]:
    answers: dict[tuple[Market, str, str], list[LaunchOption]] = {}
    for option in launch_options(settings.instance_types, settings.subnets, settings.market):
        answer = _ask(ec2, settings, option, found)
        said = (option.market, answer.response["Error"]["Code"], message_of(answer))
        answers.setdefault(said, []).append(option)
    works = any(code == "DryRunOperation" for _, code, _ in answers)
    return [_answered(market, code, message, options, works) for (market, code, message), options in answers.items()]


def _ask(ec2: "EC2Client", settings: EC2Settings, option: LaunchOption, found: Image) -> ClientError:
    """EC2's answer to a dry run, which is an error whatever it says."""
    launch = LaunchTags(launch="check", pipeline="check", run="check", label="check")
    folder = f"{settings.launches.rstrip('/')}/{launch.folder}"
    tags = instance_tags(settings, launch)
    request = launch_request(settings, ec2.meta.region_name, option, tags, found, folder)
    try:
        ec2.run_instances(**request, DryRun=True)
    except ClientError as error:
        return error
    raise AssertionError("EC2 answers a dry run with an error at any time")


def _answered(market: Market, code: str, message: str, options: list[LaunchOption], works: bool) -> Result:
    of = _named(options)
    check = f"launch {market}"
    if code == "DryRunOperation":
        return Result(check, "ok", f"EC2 would launch {of}")
    passed_over = works and code in NO_CAPACITY
    state: State = "warning" if passed_over else "failed"
    finding = f"{of}: {message}{', so launches pass it over' if passed_over else ''}"
    return Result(check, state, finding, _to_do(code, message))


def _named(options: list[LaunchOption]) -> str:
    """Launch options in a few words, where each type is in each subnet."""
    types = list(dict.fromkeys(option.instance_type for option in options))
    subnets = list(dict.fromkeys(option.subnet for option in options if option.subnet))
    if not subnets:
        return ", ".join(types)
    if len(options) == len(types) * len(subnets):
        return f"{', '.join(types)}{', each' if len(types) > 1 else ''} in {' and '.join(subnets)}"
    return ", ".join(f"{option.instance_type} in {option.subnet}" for option in options)


def _to_do(code: str, message: str) -> str:
    if code == "UnauthorizedOperation":
        missing = re.search(r"not authorized to perform: (\S+)(?: on resource: (\S+))?", message)
        if missing is None:
            return "Compare your rights with ami/iam/launcher.json: ec2:RunInstances, ec2:CreateTags, iam:PassRole."
        where = f" on {missing[2]}" if missing[2] else ""
        return f"Allow {missing[1]}{where}, as ami/iam/launcher.json does."
    if "instance profile" in message.lower():
        return "Make the profile, with the role of ami/iam/instance.json, or name another: …_EC2_INSTANCE_PROFILE."
    if is_on_free_plan(message):
        return FREE_PLAN
    more = "Its message says what is wrong; ami/README.md and docs/ec2.md have what is needed."
    return _TO_DO.get(code, more)


def check_prices(ec2: "EC2Client", settings: EC2Settings, zone: str) -> list[Result]:
    """Whether what launches cost will be on record, by the first type's price on each market."""
    first = settings.instance_types[0]
    actions = {"spot": "ec2:DescribeSpotPriceHistory", "on-demand": "pricing:GetProducts"}
    results = []
    for option in launch_options([first], [], settings.market):
        price = price_of(ec2, first, zone, option.market)
        check = f"price {option.market}"
        if price.dollars_an_hour is None:
            allow = f"Allow {actions[option.market]}, as ami/iam/launcher.json does."
            to_do = f"{allow} Without it launches work, and their costs are not on record."
            results.append(Result(check, "unseen", as_clause(price.unknown), to_do))
        else:
            results.append(Result(check, "ok", f"{first}: ${price.dollars_an_hour:.4g} an hour"))
    return results
