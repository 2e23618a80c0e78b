"""The deployment's own parameters: the file that AUDIENCE_EXPLORER_RUN_CONFIG names, such as `kmeans: {k: 12}`.

They are the defaults of every run, however it is started: by sensor, schedule, backfill, command line or UI.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from audience_explorer_dagster import settings
from spark_jobs.errors import InputError, as_clause
from spark_jobs.yaml_texts import values_of

RUN_CONFIG = settings.variable("run_config")


def read_own_config() -> dict[str, Any]:
    """The content of the file; empty if none is named.

    Raises:
        InputError: The file can't be read, or holds no mapping; the message names it.
    """
    file = settings.read().run_config
    if not file:
        return {}
    try:
        content = values_of(Path(file).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{RUN_CONFIG}: {file} can't be read: {as_clause(error)}.") from None
    if not isinstance(content, dict):
        raise InputError(f"{RUN_CONFIG}: {file} holds no mapping, such as `kmeans: {{k: 12}}`.")
    if content.get("promote"):
        raise InputError(f"{RUN_CONFIG}: {file} has promote, which is for single runs. Take it out.")
    return content


def set_defaults(models: Iterable[type[BaseModel]], own: Mapping[str, Any]) -> None:
    """Make a config's values the defaults of models, each of which takes the fields that it has.

    Raises:
        InputError: A value is not allowed, or no model has such a field; the message names it.
    """
    of_models = {model: {name: own[name] for name in own if name in model.model_fields} for model in models}
    unknown = [str(name) for name in own if not any(name in given for given in of_models.values())]
    if unknown:
        raise InputError(not_a_config([f"{', '.join(unknown)}: there is no such parameter."]))
    for model, given in of_models.items():
        try:
            checked = model(**given)
        except ValidationError as error:
            raise InputError(not_a_config(what_is_wrong(error))) from None
        _set_defaults(model, checked, given)


def _set_defaults(model: type[BaseModel], checked: BaseModel, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        field, default = model.model_fields[name], getattr(checked, name)
        if isinstance(default, BaseModel):
            _set_defaults(type(default), default, value)
        else:
            # Dagster shows defaults in its launchpad, but for those of a factory.
            field.default, field.default_factory = default, None
    model.model_rebuild(force=True)


def what_is_wrong(error: ValidationError) -> list[str]:
    """What a validation found, a sentence each."""
    return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}." for e in error.errors()]


def not_a_config(wrong: Iterable[str]) -> str:
    """The message on a file that can't be the config of a run."""
    return f"{RUN_CONFIG}: {settings.read().run_config} is no config of a whole month: {' '.join(wrong)}"
