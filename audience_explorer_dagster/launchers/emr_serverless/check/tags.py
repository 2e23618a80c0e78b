"""Whether EMR Serverless takes the tags that are configured: it allows fewer characters than EC2 does."""

import re
from typing import TYPE_CHECKING

from audience_explorer_dagster.launchers.aws_checks import Result
from audience_explorer_dagster.launchers.emr_serverless.settings import EMRServerlessSettings

if TYPE_CHECKING:
    from mypy_boto3_emr_serverless import EMRServerlessClient


def check_tags(emr: "EMRServerlessClient", settings: EMRServerlessSettings) -> list[Result]:
    """Whether names and values of tags fit what the model of the API says of them; nothing is asked."""
    wrong = [
        f"{name}={value}"
        for name, value in settings.extra_tags.items()
        if not _fits(emr, "TagKey", name) or not _fits(emr, "TagValue", value)
    ]
    if not wrong:
        return [Result("tags", "ok", "EMR takes them")]
    to_do = "AUDIENCE_EXPLORER_EMR_EXTRA_TAGS: letters without accents, digits, blanks and /_.:=+@- up to 128 and 256."
    return [Result("tags", "failed", f"EMR takes no tag {' or '.join(wrong)}", to_do)]


def _fits(emr: "EMRServerlessClient", shape: str, text: str) -> bool:
    limit = emr.meta.service_model.shape_for(shape).metadata
    return limit["min"] <= len(text) <= limit["max"] and bool(re.fullmatch(limit["pattern"], text))
