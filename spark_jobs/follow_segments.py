"""Follow a category's segments from one month to the next.

CLUSTERS is an output of kmeans, INPUTS the output of make_clustering_inputs that it was made from, OUTPUT the folder
to make: `segments.json` (which segments there are, and what happened to them) and `flows.parquet` (how many people went
from which to which), and what the next month needs to go on from. With --previous, the output of this job for the month
before, or the last month there is, segments keep their ids; without, all are new. With --edits they have the names that
people gave them, and are one where people merged them.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
import pyarrow as pa

from spark_jobs import outputs, storage
from spark_jobs.clusters import clustering, published
from spark_jobs.config import EngineConfig, SegmentsConfig
from spark_jobs.errors import InputError
from spark_jobs.following import files
from spark_jobs.following.edited import edit_segments, reserved
from spark_jobs.following.edits import Edit, decisive, parse_edit, read_edits, unknown_segments
from spark_jobs.following.follow import Returned, begin, follow
from spark_jobs.following.state import State
from spark_jobs.following.tastes import People
from spark_jobs.options import config_options
from spark_jobs.outputs import Manifest, checks, read_back
from spark_jobs.outputs.checks import CheckResult
from spark_jobs.outputs.fingerprints import fingerprint
from spark_jobs.outputs.schemas import Inspection
from spark_jobs.outputs.tables import read_table
from spark_jobs.raw.rules import Month
from spark_jobs.reporting import Reporter, run_as_command
from spark_jobs.resources import Resources, ResourcesConfig
from spark_jobs.vectors import clustering_inputs
from spark_jobs.vectors.clustering_inputs import InputsMetadata

STEP = "segments"
CODE_VERSION = "4"  # raise it with every change of what comes out: partitions are then made again

LEARN = 6_000  # people, drawn where there are more, by whom segments are compared
_MIN_PEOPLE = 10  # where kmeans does not say


def step_fingerprint(
    config: SegmentsConfig, month: str, clusters: str, previous: str | None, edits: Sequence[Edit] = ()
) -> str:
    """The fingerprint of followed segments, of that of the clusters and of the segments of the month before.

    That one has the month's before it, so what is made again makes all that follows again, and nothing else. Of edits,
    those count that hold for the month.
    """
    said = decisive(edits, month)
    decides = {**config.fingerprinted(), "month": month, **({"edits": said} if said else {})}
    return fingerprint(STEP, CODE_VERSION, decides, [clusters, *([] if previous is None else [previous])])


@click.command(help=__doc__)
@click.argument("clusters")
@click.argument("inputs")
@click.argument("output")
@click.option("--month", required=True, metavar="YYYY-MM", help="The month of the clusters.")
@click.option("--previous", metavar="FOLDER", help="The output of this job for the month before.")
@click.option("--edits", "edits_file", metavar="FILE", help="What people said of the category's segments (YAML).")
@click.option("--edit", "more_edits", multiple=True, metavar="JSON", help="One more such edit; repeat it.")
@config_options(SegmentsConfig)
@config_options(EngineConfig, "engine")
@config_options(ResourcesConfig, "allowed")
def main(
    clusters: str,
    inputs: str,
    output: str,
    month: str,
    previous: str | None,
    edits_file: str | None,
    more_edits: tuple[str, ...],
    config: SegmentsConfig,
    engine: EngineConfig,
    allowed: ResourcesConfig,
) -> None:
    edits = (*(() if edits_file is None else read_edits(edits_file)), *map(parse_edit, more_edits))
    run(clusters, inputs, output, month, previous, edits, config, engine, allowed.resolve(), Reporter())


def run(
    clusters: str,
    inputs: str,
    output: str,
    month: str,
    previous: str | None,
    edits: Sequence[Edit],
    config: SegmentsConfig,
    engine: EngineConfig,
    resources: Resources,
    report: Reporter,
) -> None:
    """Follow segments; see the command. The work is the same on any engine: people are compared on a sample."""
    started = time.monotonic()
    Month.parse(month)
    sources = _sources(storage.absolute(clusters), storage.absolute(inputs), previous, month, engine.strict_schema)
    with outputs.writing(
        STEP,
        CODE_VERSION,
        storage.absolute(output),
        report,
        config=config,
        inputs=[each for each in sources.fingerprints if each is not None],
        fingerprint=step_fingerprint(config, month, *sources.fingerprints, edits),
        started=started,
    ) as made:
        if not made.finished:
            _make(made, sources, month, edits, config, engine, resources)


@dataclass(frozen=True)
class _Sources:
    """What segments are followed from: outputs, each with its manifest."""

    clusters: str
    made_of: Manifest
    inputs: InputsMetadata
    previous: str | None
    earlier: Manifest | None

    @property
    def fingerprints(self) -> tuple[str, str | None]:
        """Of the clusters, and of the segments before."""
        return self.made_of["fingerprint"], None if self.earlier is None else self.earlier["fingerprint"]


def _sources(clusters: str, inputs: str, previous: str | None, month: str, strict: bool) -> _Sources:
    """Read the manifests of what a month is followed from.

    Raises:
        InputError: They don't belong together.
    """
    made_of = outputs.read_manifest(clusters, "kmeans")
    metadata = clustering_inputs.read_metadata(inputs, strict)
    if metadata.fingerprint not in made_of["inputs"]:
        raise InputError(f"{clusters} was not made from {inputs}. Give the clustering inputs that it was made from.")
    if previous is None:
        return _Sources(clusters, made_of, metadata, None, None)
    previous = storage.absolute(previous)
    return _Sources(clusters, made_of, metadata, previous, _earlier(previous, month))


def _make(
    made: outputs.Output,
    sources: _Sources,
    month: str,
    edits: Sequence[Edit],
    config: SegmentsConfig,
    engine: EngineConfig,
    resources: Resources,
) -> None:
    """Follow the segments, and write all of the output."""
    k, metadata = sources.made_of["rows"]["clusters"], sources.inputs
    min_people = sources.made_of["config"].get("min_people", _MIN_PEOPLE)
    before, returned, history = _before(sources, k)
    people = _people(metadata, sources.made_of, sources.clusters, config, engine, resources)
    names = _names(sources.made_of, people, metadata.dimensions, k)
    state = _state(before, month, people, k, names, returned, edits, config)
    was = None if before is None else edit_segments(before, edits, None)
    now = edit_segments(state, edits, was)
    sizes = now.sizes(files.write_members(made, sources.clusters, state))
    files.write_state(made, state)
    since = None if before is None else before.month
    described = files.describe(now.state, sizes, since, min_people, history, now.how)
    waiting = unknown_segments(edits, month, now.into.keys())
    described["history"][-1] |= _of_all_pages(metadata, min_people)
    described |= {"edits": decisive(edits, month), "edits_waiting": waiting}
    made.write_json("segments.json", described)
    flows = (
        files.flows(None, None, now.state, sizes, min_people)
        if was is None or returned is None
        else files.flows(was.state, was.returned(returned), now.state, sizes, min_people)
    )
    made.write_table("flows.parquet", flows)
    happened = [event["what"] for event in described["events"]]
    made.complete(
        rows={"segments": len(now.state.living), "flows": flows.num_rows, "members": int(sizes.sum())},
        summary={**described, "users": metadata.users, "k": k, "engine": "python", "bytes_in": metadata.bytes},
        inspect=lambda: check_segments(made.folder, state, now.state, metadata.users),
        message=" ".join([f"{len(now.state.living)} segments.", *happened, *waiting]),
    )


def _state(
    before: State | None,
    month: str,
    people: People,
    k: int,
    names: list[str],
    returned: Returned | None,
    edits: Sequence[Edit],
    config: SegmentsConfig,
) -> State:
    """The segments after the month."""
    taken, kept = reserved(edits, month)
    if before is None:
        return begin(month, people, k, names, taken)
    return follow(before, month, people, k, names, returned, config.seed, taken, kept)


def _before(sources: _Sources, k: int) -> tuple[State | None, Returned | None, list[dict[str, Any]]]:
    """The segments of the month before, who of then is here again, and the history; nothing for the first month."""
    if sources.previous is None:
        return None, None, []
    before = files.read_state(sources.previous)
    returned = files.read_returned(sources.previous, len(before.groups), sources.clusters, k)
    return before, returned, files.read_history(sources.previous)


def _of_all_pages(metadata: InputsMetadata, min_people: int) -> dict[str, Any]:
    """How many people the month has on any page, for the reports of later months; as it is published."""
    users = metadata.month_users
    return {} if users is None else {"month_users": published.count(users, min_people)}


def _earlier(previous: str, month: str) -> Manifest:
    """The manifest of the segments to go on from.

    Raises:
        InputError: They are not of an earlier month.
    """
    manifest = outputs.read_manifest(previous, STEP)
    if manifest["summary"]["month"] >= month:
        raise InputError(
            f"{previous} has the segments of {manifest['summary']['month']}, which is not before {month}. Give those of"
            " the last month before it."
        )
    return manifest


def _people(
    metadata: InputsMetadata,
    made_of: Manifest,
    clusters: str,
    config: SegmentsConfig,
    engine: EngineConfig,
    resources: Resources,
) -> People:
    """Those whom the clusters were learned from, or some of them: what each visited, and the cluster."""
    k = made_of["rows"]["clusters"]
    clustering_inputs.check_memory(metadata, k, resources)
    at_least = made_of["summary"]["learned_from"]["min_actions"]
    drawn = clustering_inputs.sample(metadata, at_least, LEARN, 0, config.seed, engine.strict_schema)
    pages = tuple(metadata.dimensions["dimension_id"].to_pylist())
    if not k:
        return People(drawn.profiles[:0], np.zeros(0, int), pages)
    centers = np.array(read_table(clusters, "centers.parquet", ["center"])["center"].to_pylist())
    person = np.repeat(np.arange(len(drawn.fit_weight)), drawn.fit_weight)
    cluster = clustering.assign(drawn.profiles, centers)[0]
    return People((drawn.profiles > 0).astype(float)[person], cluster[person], pages)


def _names(made_of: Manifest, people: People, dimensions: pa.Table, k: int) -> list[str]:
    """(k,) what a new segment is called: as kmeans calls the cluster, or after the page that sets it apart most."""
    named = made_of["summary"].get("segments")
    if named:
        return [str(segment["name"]) for segment in named]
    likes, size = people.likes(k), np.bincount(people.group, minlength=k)[:, None]
    rest = (likes.sum(axis=0) - likes) / np.maximum(size.sum() - size, 1)
    pages = dimensions["dimension_name"].to_pylist()
    return [pages[page] for page in (likes / np.maximum(size, 1) - rest).argmax(axis=1)] if pages else ["Everybody"] * k


def check_segments(folder: str, state: State, published: State, users: int) -> dict[str, CheckResult]:
    """Read back followed segments, and compare them with the state and the users of the clusters."""
    flows, members = Inspection(files.FLOWS), Inspection(files.MEMBERS)
    list(read_back.parquet(folder, "flows.parquet", flows))
    groups = {
        group for batch in read_back.parquet(folder, "members.parquet", members) for group in batch[1].to_pylist()
    }
    return {
        "schema": checks.schema(flows, members),
        "every_user_once": _every_user_once(members.rows, users, groups, state),
        "segments_are_somewhere": _segments_are_somewhere(published),
    }


def _every_user_once(rows: int, users: int, groups: set[int], state: State) -> CheckResult:
    wrong = [] if rows == users else [f"members.parquet has {rows:,} users, the clusters {users:,}"]
    wrong += [f"group {group} has users, and no segments" for group in sorted(groups) if group >= len(state.groups)]
    return checks.result({"users": users}, wrong)


def _segments_are_somewhere(state: State) -> CheckResult:
    """Each living segment is in one group of people, and no other is; names and colors are given once."""
    placed = sorted(number for ids in state.groups for number in ids)
    living = sorted(segment.id for segment in state.living)
    wrong: list[str] = []
    if state.groups and placed != living:
        wrong.append(f"living are the segments {living}, and people are in {placed}")
    for what in ("name", "color"):
        values: list[Any] = [getattr(segment, what) for segment in state.living]
        wrong += [
            f"two segments have the {what} {value}" for value in sorted({v for v in values if values.count(v) > 1})
        ]
    return checks.result({"segments": len(living)}, wrong)


if __name__ == "__main__":
    run_as_command(main)
