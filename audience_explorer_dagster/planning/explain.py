"""Why a target is computed: what changed since its newest record."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from audience_explorer_dagster.planning.targets import SEGMENTS
from audience_explorer_dagster.records.history import Record
from spark_jobs.config import StepConfig

RAW_DATA = "raw data"
CATEGORY_FILE = "category file"
BEFORE = "the month before"

_ADDED_LATER = {BEFORE, SEGMENTS}  # inputs that may be made after what reads them


@dataclass(frozen=True)
class Recipe:
    """What decides a target's fingerprint."""

    fingerprint: str
    code_version: str
    config: StepConfig
    inputs: Mapping[str, str]  # fingerprints by what they are of, in the order of the manifest's
    otherwise: str = "made from something else"  # why, where nothing of these changed


def why_not_reused(newest: Record | None, recipe: Recipe, damage_of: Callable[[Record], str] = lambda _: "") -> str:
    """What keeps the newest record of a target from being reused, such as `code version 3 → 4, k 12 → 13`.

    Args:
        newest: The record, if there is one.
        recipe: What the target is to be.
        damage_of: What is wrong with a record's output; empty if that is gone.
    """
    if newest is None:
        return "never made"
    if newest.fingerprint == recipe.fingerprint:
        damage = damage_of(newest)
        return f"its output is damaged: {damage}" if damage else "its output is gone"
    changes = [*_changed_code(newest, recipe), *_changed_config(newest, recipe), *_changed_inputs(newest, recipe)]
    # Records of early versions do not have all that this compares.
    return ", ".join(changes) or recipe.otherwise


def _changed_code(newest: Record, recipe: Recipe) -> Iterator[str]:
    if newest.code_version not in (None, recipe.code_version):
        yield f"code version {newest.code_version} → {recipe.code_version}"


def _changed_config(newest: Record, recipe: Recipe) -> Iterator[str]:
    if newest.config is not None:
        for name, before, now in differing_values(newest.config, recipe.config):
            yield f"{name} {shown(before)} → {shown(now)}"


def differing_values(before: Mapping[str, Any], config: StepConfig) -> Iterator[tuple[str, Any, Any]]:
    """The parameters that differ between a recorded config and another one, with both values; the label is none."""
    now = config.model_dump(mode="json", exclude={"label"})
    # A field that decides nothing with its value of now, and that there was not yet, did not change.
    new_and_without_effect = now.keys() - config.fingerprinted().keys() - before.keys()
    recorded = {name: value for name, value in before.items() if name != "label"}
    yield from _differences(recorded, {name: now[name] for name in now if name not in new_and_without_effect})


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys([*now, *before]):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name}", old, new


def shown(value: Any) -> str:
    """A parameter's value, for a person."""
    return "not given" if value is None else str(value)


def _changed_inputs(newest: Record, recipe: Recipe) -> Iterator[str]:
    # With a given k there is one input less.
    for before, (name, now) in zip(newest.inputs, recipe.inputs.items(), strict=False):
        if before != now:
            yield f"{name} changed"
    if len(newest.inputs) < len(recipe.inputs) and list(recipe.inputs)[-1] in _ADDED_LATER:
        yield f"{list(recipe.inputs)[-1]} was not there"
