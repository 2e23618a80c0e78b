"""The policies of this project, as AWS applies them: which calls a role may make, and what it used of what it may.

Of IAM's language this has what the policies use: statements that allow and that deny, `*` in resources, and conditions
of four kinds. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

import fnmatch
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Tags = Mapping[str, str]

_READS = {"GetObject", "HeadObject"}
_S3_ACTIONS = {
    **dict.fromkeys(_READS, "s3:GetObject"),
    **dict.fromkeys(
        ("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "CopyObject"), "s3:PutObject"
    ),
    **dict.fromkeys(("DeleteObject", "DeleteObjects"), "s3:DeleteObject"),
    **dict.fromkeys(("HeadBucket", "GetBucket", "ListObjectsV2"), "s3:ListBucket"),
    "GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
}
# What belongs to no account in its name, and the parameter that has its id.
_REMOVED = {"DeregisterImage": ("image", "ImageId"), "DeleteSnapshot": ("snapshot", "SnapshotId")}
# EC2 has tags of what is asked for, and of what is there.
_OF_INSTANCES = {"TerminateInstances", "GetConsoleOutput", "StopInstances", "RebootInstances"}


@dataclass(frozen=True)
class Request:
    """What IAM is asked: whether an action may be done on a resource. `context` has the values of condition keys."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


class Role:
    """What the holder of some policies may do.

    Args:
        policies: Their files.
        names: What stands for the placeholders in them, such as `REGION`.

    Attributes:
        used: The statements that allowed something, each with the action: (Sid, action).
    """

    def __init__(self, policies: Sequence[Path], names: Mapping[str, str]):
        texts = [re.sub("@([A-Z_]+)@", lambda found: names[found[1]], file.read_text()) for file in policies]
        self.statements: list[dict[str, Any]] = [one for text in texts for one in json.loads(text)["Statement"]]
        self.used: set[tuple[str, str]] = set()

    @property
    def allowed(self) -> set[tuple[str, str]]:
        """All that is allowed: the Sid of each statement, with each of its actions."""
        return {
            (statement["Sid"], action)
            for statement in self.statements
            if statement["Effect"] == "Allow"
            for action in _listed(statement["Action"])
        }

    def may(self, request: Request) -> bool:
        """Whether a request is allowed, and by no statement denied."""
        fitting = [statement for statement in self.statements if _fits(statement, request)]
        if not fitting or any(statement["Effect"] == "Deny" for statement in fitting):
            return False
        self.used |= {(statement["Sid"], request.action) for statement in fitting}
        return True


class Permissions:
    """The roles of an account's callers, which are asked before each call.

    Args:
        roles: By caller.
        names: The names of the account's things, as the placeholders in the policies have them.

    Attributes:
        refused: What was refused, in words.
    """

    def __init__(self, roles: Mapping[str, Role], names: Mapping[str, str]):
        self.roles, self._names = roles, names
        self.refused: list[str] = []
        self._lock = threading.Lock()

    def denied(
        self,
        caller: str,
        service: str,
        action: str,
        params: Mapping[str, str],
        tags_of: Callable[[str], Tags],
        key_of: Callable[[str], str] = lambda _: "",
        owner_of: Callable[[str], str] = lambda _: "",
    ) -> list[Request]:
        """What of a call a caller may not do; nothing if it may make it.

        Args:
            caller: Who.
            service: Of which service, such as `ec2`.
            action: The API's name of it, such as `RunInstances`.
            params: Its parameters.
            tags_of: Gives the tags of what has an id.
            key_of: Gives the ARN of the KMS key of a bucket; empty if it has none of the account's own.
            owner_of: Gives the owner of an image, as `ec2:Owner` has it.
        """
        with self._lock:
            denied = [
                request
                for request in requests_of(service, action, params, self._names, tags_of, key_of, owner_of)
                if not self.roles[caller].may(request)
            ]
            self.refused += [f"{caller}: {action}: {request}" for request in denied]
        return denied

    def hides(self, caller: str, action: str, bucket: str) -> bool:
        """Whether S3 keeps from a caller that an object which it asked for does not exist, and answers 403."""
        seen = Request("s3:ListBucket", f"arn:{partition_of(self._names)}:s3:::{bucket}")
        return action in _READS and not self.roles[caller].may(seen)


def partition_of(names: Mapping[str, str]) -> str:
    """The partition of the account's region, with which all ARNs begin."""
    of = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
    return next((partition for prefix, partition in of.items() if names["REGION"].startswith(prefix)), "aws")


def requests_of(
    service: str,
    action: str,
    params: Mapping[str, str],
    names: Mapping[str, str],
    tags_of: Callable[[str], Tags],
    key_of: Callable[[str], str] = lambda _: "",
    owner_of: Callable[[str], str] = lambda _: "",
) -> list[Request]:
    """What IAM is asked for a call; see `Permissions.denied`."""
    if service == "s3":
        return [*_of_s3(action, params, names), *_of_key(action, names, key_of(params["Bucket"]))]
    if service == "ssm" and action == "GetParameter":
        # Public parameters belong to no account.
        # https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-public-parameters.html
        account = "" if params["Name"].startswith("/aws/") else names["ACCOUNT"]
        place = f"arn:{partition_of(names)}:ssm:{names['REGION']}:{account}"
        return [Request(f"ssm:{action}", f"{place}:parameter{params['Name']}")]
    if service == "servicequotas":
        place = f"arn:{partition_of(names)}:servicequotas:{names['REGION']}:{names['ACCOUNT']}"
        return [Request(f"servicequotas:{action}", f"{place}:{params['ServiceCode']}/{params['QuotaCode']}")]
    if (service, action) == ("sts", "GetCallerIdentity"):
        # Everybody may ask that. https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
        return []
    if service != "ec2":
        return [Request(f"{service}:{action}", "*")]
    place = f"arn:{partition_of(names)}:ec2:{names['REGION']}:{names['ACCOUNT']}"
    if action == "RunInstances":
        return list(_of_launch(params, names, tags_of, owner_of))
    if action == "CreateImage":
        return list(_of_image(params, names, tags_of))
    if removed := _REMOVED.get(action):
        kind, parameter = removed
        of = params[parameter]
        anybodys = f"arn:{partition_of(names)}:ec2:{names['REGION']}:"
        return [Request(f"ec2:{action}", f"{anybodys}:{kind}/{of}", _resource_tags(tags_of(of)))]
    if action in _OF_INSTANCES:
        ids = [value for name, value in params.items() if name.startswith("InstanceId")]
        return [Request(f"ec2:{action}", f"{place}:instance/{of}", _resource_tags(tags_of(of))) for of in ids]
    return [Request(f"ec2:{action}", "*")]


def _of_key(action: str, names: Mapping[str, str], key: str) -> Iterator[Request]:
    """What S3 asks of the KMS key of a bucket.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html
    """
    through = {"kms:ViaService": f"s3.{names['REGION']}.{_domain(names)}"}
    kinds = {"s3:GetObject": ["kms:Decrypt"], "s3:PutObject": ["kms:GenerateDataKey"]}
    asked = [] if action == "HeadObject" else list(kinds.get(_S3_ACTIONS.get(action, ""), []))
    if action in ("UploadPart", "CompleteMultipartUpload"):
        asked = ["kms:Decrypt", "kms:GenerateDataKey"]
    if key:
        yield from (Request(of, key, through) for of in asked)


def _domain(names: Mapping[str, str]) -> str:
    """With which the names of services end."""
    return "amazonaws.com.cn" if partition_of(names) == "aws-cn" else "amazonaws.com"


def _of_s3(action: str, params: Mapping[str, str], names: Mapping[str, str]) -> Iterator[Request]:
    bucket = f"arn:{partition_of(names)}:s3:::{params['Bucket']}"
    asked = _S3_ACTIONS.get(action, f"s3:{action}")
    if asked == "s3:ListBucket":
        yield Request(asked, bucket, {"s3:prefix": params["prefix"]} if "prefix" in params else {})
    elif asked in ("s3:ListBucketMultipartUploads", "s3:GetEncryptionConfiguration"):  # which no prefix limits
        yield Request(asked, bucket)
    else:
        for key in params.get("Keys", params["Key"]).split("\n"):
            yield Request(asked, f"{bucket}/{key}")


def _of_launch(
    params: Mapping[str, str],
    names: Mapping[str, str],
    tags_of: Callable[[str], Tags],
    owner_of: Callable[[str], str],
) -> Iterator[Request]:
    """Everything that RunInstances makes and uses.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/iam-policies-ec2-console.html
    """
    place, action = f"arn:{partition_of(names)}:ec2:{names['REGION']}", "ec2:RunInstances"
    own = f"{place}:{names['ACCOUNT']}"
    tags = _request_tags(params)
    image = params["ImageId"]
    of_image = {**_resource_tags(tags_of(image)), "ec2:Owner": owner_of(image)}
    yield Request(action, f"{place}::image/{image}", of_image)
    options = {"ec2:MetadataHttpTokens": params.get("MetadataOptions.HttpTokens", "optional")}
    yield Request(action, f"{own}:instance/*", {**tags.get("instance", {}), **options})
    encrypted = {"ec2:Encrypted": params.get("BlockDeviceMapping.1.Ebs.Encrypted", "false")}
    yield Request(action, f"{own}:volume/*", {**tags.get("volume", {}), **encrypted})
    if params.get("InstanceMarketOptions.MarketType") == "spot":
        yield Request(action, f"{own}:spot-instances-request/*", tags.get("spot-instances-request", {}))
    yield Request(action, f"{own}:network-interface/*")
    for kind, name in {"subnet": "SubnetId", "security-group": "SecurityGroupId", "key-pair": "KeyName"}.items():
        # Of the instance, or of a network interface that is made with it.
        named = re.compile(rf"(NetworkInterface\.\d+\.)?{name}(\.\d+)?")
        for of in (value for asked, value in params.items() if named.fullmatch(asked)):
            yield Request(action, f"{own}:{kind}/{of}")
    for kind, of_kind in tags.items():
        yield Request("ec2:CreateTags", f"{own}:{kind}/*", {**of_kind, "ec2:CreateAction": "RunInstances"})
    if profile := params.get("IamInstanceProfile.Name"):
        # The profiles of this project are named as their roles are.
        role = f"arn:{partition_of(names)}:iam::{names['ACCOUNT']}:role/{profile}"
        yield Request("iam:PassRole", role, {"iam:PassedToService": f"ec2.{_domain(names)}"})


def _of_image(params: Mapping[str, str], names: Mapping[str, str], tags_of: Callable[[str], Tags]) -> Iterator[Request]:
    """Everything that CreateImage makes and uses.

    AWS's reference gives `aws:RequestTag` for image and snapshot. Whether it is there for both, nobody of us has seen:
    here it is not, so that a policy must do without.
    https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
    """
    place, action = f"arn:{partition_of(names)}:ec2:{names['REGION']}", "ec2:CreateImage"
    instance = params["InstanceId"]
    yield Request(action, f"{place}:{names['ACCOUNT']}:instance/{instance}", _resource_tags(tags_of(instance)))
    for kind in ("image", "snapshot"):
        yield Request(action, f"{place}::{kind}/*")
    for kind, of_kind in _request_tags(params).items():
        yield Request("ec2:CreateTags", f"{place}::{kind}/*", {**of_kind, "ec2:CreateAction": "CreateImage"})


def _request_tags(params: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The condition keys of the tags that are asked for, by what is to bear them."""
    found: dict[str, dict[str, str]] = {}
    for name, kind in params.items():
        if specification := re.fullmatch(r"(TagSpecification\.\d+)\.ResourceType", name):
            keys = {n: v for n, v in params.items() if re.fullmatch(rf"{specification[1]}\.Tag\.\d+\.Key", n)}
            found[kind] = {f"aws:RequestTag/{key}": params[f"{n[:-3]}Value"] for n, key in keys.items()}
    return found


def _resource_tags(tags: Tags) -> dict[str, str]:
    return {f"aws:ResourceTag/{name}": value for name, value in tags.items()}


def _fits(statement: Mapping[str, Any], request: Request) -> bool:
    return (
        request.action in _listed(statement["Action"])
        and any(_is_of(request, of) for of in _listed(statement["Resource"]))
        and all(
            key in request.context and _holds(kind, request.context[key], _listed(values))
            for kind, conditions in statement.get("Condition", {}).items()
            for key, values in conditions.items()
        )
    )


def _is_of(request: Request, pattern: str) -> bool:
    """Whether a resource is one of a pattern's, in which a `${key}` stands for the value of a condition key.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
    """
    variables = re.findall(r"\$\{([^}]+)\}", pattern)
    if any(variable not in request.context for variable in variables):
        return False
    for variable in variables:
        pattern = pattern.replace(f"${{{variable}}}", request.context[variable])
    return fnmatch.fnmatchcase(request.resource, pattern)


def _holds(kind: str, value: str, wanted: Sequence[str]) -> bool:
    if kind in ("StringEquals", "Bool"):
        return value in wanted
    if kind == "StringLike":
        return any(fnmatch.fnmatchcase(value, of) for of in wanted)
    raise ValueError(f"conditions of the kind {kind} are not played")


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
