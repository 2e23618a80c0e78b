"""Command-line options made from a config's fields, and the way back, so that each field is described once."""

import functools
import types
import typing
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from spark_jobs.errors import InputError

Model = TypeVar("Model", bound=BaseModel)
Command = Callable[..., Any]


def config_options(
    model: type[BaseModel], parameter: str = "config", only: Collection[str] | None = None
) -> Callable[[Command], Command]:
    """Give a command one option for every field of `model`, and hand it the validated model as `parameter`.

    Args:
        model: The config.
        parameter: What the command calls it.
        only: The fields that get an option, if not all; the others have their defaults.
    """
    fields = {name: field for name, field in model.model_fields.items() if only is None or name in only}

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_config(*args: Any, **values: Any) -> Any:
            given = {name: values.pop(name) for name in fields}
            return command(*args, **{parameter: from_options(model, given)}, **values)

        decorated: Command = with_config
        for name, field in reversed(fields.items()):
            decorated = _option(name, field)(decorated)
        return decorated

    return decorate


def from_options(model: type[Model], given: dict[str, Any]) -> Model:
    """The validated model of what was given on a command line; a field that was not given has its default.

    Raises:
        click.ClickException: A value is not allowed; the message says what is.
    """
    fields = {
        name: dict(_parse_weight(_option_name(name), v) for v in value)
        if _is_mapping(model.model_fields[name])
        else value
        for name, value in given.items()
        if value is not None and value != ()
    }
    try:
        return model(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        raise click.BadParameter(
            first["msg"].removeprefix("Value error, "), param_hint=_option_name(name) if name else None
        ) from None
    except InputError as error:  # of a default that the environment gives
        raise click.ClickException(str(error)) from None


def to_arguments(config: BaseModel) -> list[str]:
    """The options that give a job this config."""
    arguments: list[str] = []
    for name, value in config.model_dump(mode="json").items():
        option = _option_name(name)
        if isinstance(value, dict):
            for key, entry in value.items():
                arguments += [option, f"{key}={entry}"]
        elif value is not None:
            arguments += [option, str(value)]
    return arguments


def _option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    shown = f"  [default: {field.default}]" if field.default_factory is None and field.default is not None else ""
    return click.option(
        _option_name(name),
        name,
        type=_click_type(field),
        multiple=_is_mapping(field),
        metavar="ACTION=WEIGHT" if _is_mapping(field) else None,
        help=f"{field.description}{shown}",
    )


def _option_name(field: str) -> str:
    return "--" + field.replace("_", "-")


def _is_mapping(field: FieldInfo) -> bool:
    return typing.get_origin(field.annotation) is dict


def _click_type(field: FieldInfo) -> Any:
    annotation = field.annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    if typing.get_origin(annotation) is typing.Literal:
        return click.Choice(typing.get_args(annotation))
    return str if _is_mapping(field) else annotation


def _parse_weight(option: str, text: str) -> tuple[str, float]:
    key, _, number = text.partition("=")
    try:
        return key, float(number)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not of the form ACTION=WEIGHT, such as page_like=2.", param_hint=option
        ) from None
