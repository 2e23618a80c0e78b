"""Whether requests are such as AWS takes them, by botocore's models of its services, and by limits that these lack.

botocore itself checks types, required members and minimums. AWS refuses as well what is too long or too much, is not
among the values of an enumeration, or does not fit a pattern; moto mostly doesn't. Services of the query protocol have
few patterns in their models, EC2 ten in 4,266 shapes; their limits are in its documents only. `DOCUMENTED` has those of
what this project sends.
"""

import base64
import difflib
import functools
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# botocore's models of an operation and of a shape, or moto's, which are derived from these.
Operation = Any
Shape = Any


@dataclass(frozen=True)
class Limit:
    """A limit of texts, or of how many entries a list has; None for no limit.

    Attributes:
        least: Characters or entries, at least.
        most: Characters or entries, at most.
        most_bytes: Bytes in UTF-8, at most.
        pattern: What all of a text must fit.
        in_base64: Whether the bytes are those that the text stands for.
    """

    least: int | None = None
    most: int | None = None
    most_bytes: int | None = None
    pattern: str | None = None
    in_base64: bool = False


# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Tag.html, as botocore's model; the user guide allows 128.
# Keys that begin with `aws:` are AWS's own.
_TAG_KEY = Limit(1, 127, pattern=r"(?!aws:).*")
_TAG_VALUE = Limit(0, 256)
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions
_TAGS = Limit(1, 50)
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
_TOKEN = Limit(1, 64, pattern=r"[\x21-\x7e]+")
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html#user-data-basics
_USER_DATA = Limit(most_bytes=16 * 1024, in_base64=True)
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateImage.html
_IMAGE_NAME = Limit(3, 128, pattern=r"[A-Za-z0-9()\[\] ./'@_-]+")
_DESCRIPTION = Limit(0, 255)
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Filter.html
_FILTERS, _FILTER_VALUES = Limit(0, 50), Limit(1, 200)
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = Limit(3, 63, pattern=r"[a-z0-9][a-z0-9.-]+[a-z0-9]")
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
_KEY = Limit(1, most_bytes=1024)
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
_DELETED_AT_ONCE = Limit(1, 1000)
# https://docs.aws.amazon.com/sns/latest/api/API_Publish.html
_SUBJECT, _MESSAGE = Limit(1, 99, pattern=r"[^\x00-\x1f\x7f]*"), Limit(1, most_bytes=256 * 1024)

# By service, by shape (`*` for any) and by member.
DOCUMENTED: dict[tuple[str, str, str], Limit] = {
    ("ec2", "Tag", "Key"): _TAG_KEY,
    ("ec2", "Tag", "Value"): _TAG_VALUE,
    ("ec2", "TagSpecification", "Tags"): _TAGS,
    ("ec2", "CreateTagsRequest", "Tags"): _TAGS,
    ("ec2", "RunInstancesRequest", "ClientToken"): _TOKEN,
    ("ec2", "RunInstancesRequest", "UserData"): _USER_DATA,
    ("ec2", "CreateImageRequest", "Name"): _IMAGE_NAME,
    ("ec2", "CreateImageRequest", "Description"): _DESCRIPTION,
    ("ec2", "RegisterImageRequest", "Name"): _IMAGE_NAME,
    ("ec2", "*", "Filters"): _FILTERS,
    ("ec2", "Filter", "Values"): _FILTER_VALUES,
    ("sns", "PublishInput", "Subject"): _SUBJECT,
    ("sns", "PublishInput", "Message"): _MESSAGE,
    ("s3", "*", "Bucket"): _BUCKET,
    ("s3", "*", "Key"): _KEY,
    ("s3", "*", "Prefix"): Limit(most_bytes=1024),
    ("s3", "Delete", "Objects"): _DELETED_AT_ONCE,
}

_SHOWN = 60  # characters of a value
_MOST_NAMED = 20  # values of an enumeration


def misfits_of(operation: Operation, params: Mapping[str, Any]) -> list[str]:
    """What AWS would refuse of a request; each line has the operation and the path of a parameter.

    Args:
        operation: The model of the operation.
        params: The parameters, by the names that the model gives them.
    """
    shape, service = operation.input_shape, operation.service_model.service_name
    if shape is None:
        return []
    return [f"{service} {operation.name}{path}: {why}" for path, why in _of_shape(service, shape, params, "")]


def _of_shape(service: str, shape: Shape, value: Any, path: str) -> Iterator[tuple[str, str]]:
    if value is None:
        return
    yield from ((path, why) for why in _of_limit(_modeled(shape), value))
    if shape.type_name == "structure":
        yield from _of_structure(service, shape, value, path)
    elif shape.type_name == "list":
        for number, entry in enumerate(value):
            yield from _of_shape(service, shape.member, entry, f"{path}[{number}]")
    elif shape.type_name == "map":
        for key, entry in value.items():
            yield from _of_shape(service, shape.key, key, f"{path} (key {key!r})")
            yield from _of_shape(service, shape.value, entry, f"{path}.{key}")
    elif shape.type_name == "string" and getattr(shape, "enum", None) and value not in shape.enum:
        yield path, f"{_shown(value)} is not one of {_some(value, shape.enum)}"
    elif shape.type_name in ("integer", "long", "float", "double"):
        least, most = shape.metadata.get("min"), shape.metadata.get("max")
        if (least is not None and value < least) or (most is not None and value > most):
            yield path, f"{value} is not between {least} and {most}"


def _of_structure(service: str, shape: Shape, value: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for member in shape.required_members:
        if value.get(member) is None:
            yield f"{path}.{member}", "it is needed"
    for member, entry in value.items():
        if member not in shape.members:
            yield f"{path}.{member}", "there is no such parameter"
            continue
        yield from _of_shape(service, shape.members[member], entry, f"{path}.{member}")
        for of in (shape.name, "*"):
            if limit := DOCUMENTED.get((service, of, member)):
                yield from ((f"{path}.{member}", why) for why in _of_limit(limit, entry))


def _modeled(shape: Shape) -> Limit:
    """The limits of a text, of bytes, of a list or of a map, as the model has them."""
    of = shape.metadata
    if shape.type_name == "blob":
        return Limit(most_bytes=of.get("max"))
    if shape.type_name not in ("string", "list", "map"):
        return Limit()
    return Limit(of.get("min"), of.get("max"), pattern=of.get("pattern"))


def _of_limit(limit: Limit, value: Any) -> Iterator[str]:
    if not isinstance(value, (str, bytes, bytearray, Sequence, Mapping)):
        return  # a file, for one, whose content is not read
    what = "characters" if isinstance(value, str) else "entries"
    if limit.least is not None and len(value) < limit.least:
        yield f"{_shown(value)} has {len(value)} {what}, and {limit.least} at least are needed"
    if limit.most is not None and len(value) > limit.most:
        yield f"{_shown(value)} has {len(value)} {what}, and may have {limit.most}"
    if limit.most_bytes is not None and (size := _size(value, limit.in_base64)) > limit.most_bytes:
        yield f"{_shown(value)} has {size} bytes, and may have {limit.most_bytes}"
    if limit.pattern is not None and isinstance(value, str) and not _compiled(limit.pattern).fullmatch(value):
        yield f"{_shown(value)} does not fit the pattern {limit.pattern}"


def _size(value: str | bytes, in_base64: bool) -> int:
    content = value.encode() if isinstance(value, str) else value
    if not in_base64:
        return len(content)
    try:
        return len(base64.b64decode(content, validate=True))
    except ValueError:
        return len(content)  # botocore has not encoded it yet


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """A pattern of a model, which is Java's: Python has no `\\p{L}`."""
    return re.compile(re.sub(r"\\p\{(\w)\}", lambda found: _characters(found[1]), pattern))


@functools.cache
def _characters(kind: str) -> str:
    """The characters of a kind (`L`: letters, `N`: numbers, …), as ranges of a class."""
    spans: list[list[int]] = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code))[0] != kind:
            continue
        if spans and spans[-1][1] == code - 1:
            spans[-1][1] = code
        else:
            spans.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in spans)


def _some(value: str, allowed: Sequence[str]) -> str:
    """Values of an enumeration; of EC2's 1,300 types those that are like one that is not among them."""
    if len(allowed) <= _MOST_NAMED:
        return ", ".join(allowed)
    return f"{len(allowed)}, such as {', '.join(difflib.get_close_matches(value, allowed) or allowed[:3])}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
