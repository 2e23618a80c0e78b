"""The project's settings from the environment. Those of a launcher are its fields: `launchers/from_environment.py`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from spark_jobs.errors import InputError
from spark_jobs.raw.rules import Month

_ADDRESS = r"^(https?://[^\s?#]+)?$"  # of a server that links begin with
_FIRST_MONTH = "1970-01"  # that can be a partition: as for `list_months`


def variable(setting: str) -> str:
    """The environment variable of a setting."""
    return f"AUDIENCE_EXPLORER_{setting.upper()}"


def _is_month(text: str) -> str:
    try:
        Month.parse(text)
    except InputError as error:
        raise ValueError from error
    if text < _FIRST_MONTH:
        raise ValueError
    return text


def _is_cron(text: str) -> str:
    from dagster._utils.schedules import is_valid_cron_schedule  # takes its time, and few set a schedule

    if not is_valid_cron_schedule(text):
        raise ValueError
    return text


class Settings(BaseSettings):
    """A field a variable: AUDIENCE_EXPLORER_ROOT is `root`. A description says what a value must be, for errors."""

    model_config = SettingsConfigDict(
        alias_generator=variable, case_sensitive=True, env_ignore_empty=True, extra="ignore", frozen=True
    )

    root: str = "data"
    launcher: Literal["local", "ec2", "spark-submit", "emr-serverless"] = Field(
        default="local", description="allowed are local, ec2, spark-submit, emr-serverless"
    )
    start_month: Annotated[str, AfterValidator(_is_month)] | None = Field(
        default=None, description="it must be a month from 1970 on, the first that is a partition, such as 2018-01"
    )
    end_month: Annotated[str, AfterValidator(_is_month)] | None = Field(
        default=None, description="it must be a month, the last that is a partition, such as 2024-03"
    )
    automatic: Literal["0", "1"] = Field(default="0", description="it must be 1 (new months run by themselves) or 0")
    schedule: Annotated[str, AfterValidator(_is_cron)] = Field(
        default="0 6 2 * *",
        description="it must be a schedule as in cron, such as 0 6 2 * *: minute, hour, day, month, day of the week",
    )
    run_config: str = ""
    settle_seconds: float = Field(
        default=3600, ge=0, le=366 * 86400, allow_inf_nan=False, description="it must be a number of seconds, 0 or more"
    )
    arrival_days: float = Field(
        default=3, ge=0, le=366, allow_inf_nan=False, description="it must be a number of days, 0 to 366"
    )
    drift: float = Field(
        default=0.5,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="it must be a number from 0 to 1, the share that may change",
    )
    notify: str = Field(default="log", repr=False)  # addresses of webhooks are secrets
    ui_url: str = Field(
        default="",
        pattern=_ADDRESS,
        description="it must be the address of Dagster's webserver, such as http://127.0.0.1:3000",
    )
    reports_url: str = Field(
        default="",
        pattern=_ADDRESS,
        description="it must be the address of the server of reports, such as http://127.0.0.1:3001",
    )


def read() -> Settings:
    """The settings as the environment has them now; an empty variable is as none.

    Raises:
        InputError: Some make no sense; the message names each with its value, and says what it must be.
    """
    try:
        return Settings()
    except ValidationError as error:
        must = {field.alias: field.description for field in Settings.model_fields.values()}
        wrong = [(entry["loc"][0], entry["input"]) for entry in error.errors()]
        raise InputError(" ".join(f"{name} is {value!r}; {must[str(name)]}." for name, value in wrong)) from None
