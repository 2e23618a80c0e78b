"""How a report's segments were made, how to make them again, and what can be done with them."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spark_jobs.audience_report.cards import Row
from spark_jobs.audience_report.tables import Table
from spark_jobs.config import ClusteringInputsConfig, KMeansConfig, KSelectionConfig, StepConfig
from spark_jobs.options import to_arguments
from spark_jobs.outputs import Manifest

_CHECKS = {
    "schema": "All tables have their columns, types and rules",
    "every_user_once": "Everybody is in one segment, nobody in two, and all files agree",
    "centers_in_range": "Every center lies within the data",
    "figures_published": "No published figure is of too few people",
}
_OF_KMEANS_ALONE = {"n_init", "seed", "fit_min_actions"}  # options of the command by these names set kmeans's


def parameters(kmeans: Manifest, k_selection: Manifest | None) -> Table:
    """The parameters of each step."""
    steps: list[tuple[str, Mapping[str, Any]]] = [("clustering_inputs", kmeans["summary"]["clustering_inputs"])]
    steps += [("k_selection", k_selection["config"])] if k_selection is not None else []
    steps += [("kmeans", kmeans["config"])]
    rows = [[step, *pair] for step, config in steps for pair in _flat(config)]
    return Table("parameters", ["step", "parameter", "value"], rows)


def _flat(config: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", part) for key, part in _flat(value))
        elif name != "label" and value is not None:
            # A label names a variant, and the same result may have several.
            yield name, str(value)


def command(month: str, category: str, kmeans: Manifest, k_selection: Manifest | None) -> str:
    """The command that makes it again: what is not given has its default."""
    options = [
        *_not_default(ClusteringInputsConfig, kmeans["summary"]["clustering_inputs"]),
        *(_not_default(KSelectionConfig, k_selection["config"], _OF_KMEANS_ALONE) if k_selection is not None else ()),
        *_not_default(KMeansConfig, kmeans["config"], {"label"}),
    ]
    return " ".join(["audience-explorer pipeline", f"--month {month}", f"--category {category}", *options])


def using(month: str, category: str, rows: Sequence[Row], followed: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What to do with the segments: commands for the first of them."""
    first, of = rows[0], shlex.quote(category)
    names = {} if followed is None else {row["segment_id"]: row["name"] for row in followed["segments"]}
    # What is not followed, or not told apart this month, has no name by which it could be asked for.
    asked = f"--cluster {first.parts[0].cluster_id}"
    if first.segment_ids:
        asked = f"--segment {shlex.quote(names[first.segment_ids[0]])}"
    export = f"audience-explorer export --category {of} --month {month} {asked} --output people.csv"
    told = [(f"The people of “{first.name}”, in a file:", export)]
    if first.segment_ids:
        rename = f"audience-explorer segments rename {of} {first.segment_ids[0]} 'A better name'"
        told.append(("Another name for it, in all months:", rename))
    return told


def _not_default(model: type[StepConfig], config: Mapping[str, Any], but: Iterable[str] = ()) -> list[str]:
    default = to_arguments(model())
    pairs = to_arguments(model(**{name: value for name, value in config.items() if name not in set(but)}))
    known = set(zip(default[::2], default[1::2], strict=True))
    return [
        f"{option} {shlex.quote(value)}"
        for option, value in zip(pairs[::2], pairs[1::2], strict=True)
        if (option, value) not in known
    ]


def checks_of(kmeans: Manifest) -> Table:
    """What became of the checks of the clusters."""
    rows = [
        [_CHECKS.get(name, name), "passed" if check["passed"] else "failed"]
        for name, check in kmeans.get("checks", {}).items()
    ]
    return Table("checks", ["check", "result"], rows)
