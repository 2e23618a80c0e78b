"""Launchers as the environment has them: a variable a field."""

import os
from collections.abc import Mapping
from typing import Any, TypeVar, get_origin

import dagster as dg
from pydantic import ValidationError

from audience_explorer_dagster.launchers import Launcher
from spark_jobs.errors import InputError

AnyLauncher = TypeVar("AnyLauncher", bound=Launcher)


def from_environment(
    launcher: type[AnyLauncher], name: str, prefix: str, defaults: Mapping[str, str | None], by_name: bool
) -> AnyLauncher:
    """A launcher whose fields are set by variables, each named after its field.

    Lists are separated by commas, and so are mappings, whose entries are `name=value`.

    Args:
        launcher: Its class.
        name: What errors call it.
        prefix: What the names of its variables begin with.
        defaults: Fields that the environment decides in another way, if no variable does.
        by_name: Leave it to Dagster to look up texts when a run starts, and to show the names of their variables.

    Raises:
        InputError: A value makes no sense, or a needed one is missing.
    """
    variables = {field: f"{prefix}{field.upper()}" for field in launcher.model_fields}
    given = [field for field, variable in variables.items() if variable in os.environ]
    values = {field: value for field, value in defaults.items() if value is not None}
    values |= {field: _value(variables[field], launcher.model_fields[field].annotation) for field in given}
    try:
        checked = launcher(**values)
    except ValidationError as error:
        wrong = {variables[str(e["loc"][0])]: "needed" if e["input"] is None else e["msg"] for e in error.errors()}
        told = "; ".join(f"{variable}: {why}" for variable, why in wrong.items())
        raise InputError(f"The {name} launcher lacks settings, or some make no sense. {told}") from error
    if not by_name:
        return checked
    texts = [field for field in given if launcher.model_fields[field].annotation in (str, str | None)]
    return launcher(**values | {field: dg.EnvVar(variables[field]) for field in texts})


def _value(variable: str, annotation: Any) -> Any:
    text = os.environ[variable]
    kind = get_origin(annotation)
    if kind is list:
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind is dict:
        pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
        if wrong := [name for name, separator, _ in pairs if not separator]:
            raise InputError(f"{variable}: {wrong[0]!r} is not of the form name=value.")
        return {name: value for name, _, value in pairs}
    return text
