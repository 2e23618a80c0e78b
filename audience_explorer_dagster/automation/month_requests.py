"""Asking for the run of a whole month, as sensor and schedule do."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import ValidationError

from audience_explorer_dagster.assets import MONTH_OP, whole_month
from audience_explorer_dagster.deployment import not_a_config, read_own_config, what_is_wrong
from audience_explorer_dagster.run_config import MonthRunConfig
from spark_jobs.errors import InputError


def config_from_environment() -> dict[str, Any]:
    """The deployment's own config, as its file is now.

    Raises:
        InputError: The file can't be read, or holds no config of a month; the message names both.
    """
    content = read_own_config()
    wrong = _what_is_wrong(content)
    if wrong:
        raise InputError(not_a_config(wrong))
    return content


def month_request(month: str, config: Mapping[str, Any], run_key: str | None = None) -> dg.RunRequest:
    """Ask for a run of a month; with a run key, a sensor's request is fulfilled once."""
    return dg.RunRequest(run_key=run_key, partition_key=month, run_config=_run_config(config))


def _run_config(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"ops": {MONTH_OP: {"config": dict(config)}}}


def _what_is_wrong(config: Mapping[str, Any]) -> list[str]:
    """What a run would be refused for: names and types that Dagster checks before it, and values that it checks."""
    try:
        dg.validate_run_config(whole_month, _run_config(config))
        MonthRunConfig(**config)
    except dg.DagsterInvalidConfigError as error:
        return [e.message.split(' Expected: "{')[0] for e in error.errors]  # what follows is the whole schema
    except ValidationError as error:
        return what_is_wrong(error)
    return []
