"""Make the report of a category in a month: a page for people, in one HTML file that needs nothing else.

KMEANS is an output of kmeans, OUTPUT the folder to make: `report.html`. It says how many people there are, in which
segments, what each is into, how sure that is, and how it was made. With --segments, the output of follow_segments of
these clusters, segments have the names and colors that they have in all months, and it says what changed. With --inputs
and --grouped-users, what the clusters were made from, it says of the data what was read and refused.
"""

import time
from html.parser import HTMLParser
from typing import Any

import click
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs import kmeans as clustering
from spark_jobs import outputs, select_k, storage
from spark_jobs.audience_report import baselines
from spark_jobs.audience_report.content import Content, ReportInputs, content_of
from spark_jobs.audience_report.heat_map import MOST_PAGES
from spark_jobs.audience_report.page import render
from spark_jobs.audience_report.quality import Sources
from spark_jobs.clusters.clearness import Clearness, clearness_of, count_clear
from spark_jobs.clusters.published import SEGMENT_COMPARISONS
from spark_jobs.config import EngineConfig, ReportConfig
from spark_jobs.errors import InputError
from spark_jobs.options import config_options
from spark_jobs.outputs import Manifest, checks
from spark_jobs.outputs.checks import CheckResult
from spark_jobs.outputs.fingerprints import fingerprint
from spark_jobs.outputs.tables import read_batches, read_table
from spark_jobs.raw.rules import Month
from spark_jobs.reporting import Reporter, run_as_command
from spark_jobs.resources import Resources, ResourcesConfig
from spark_jobs.vectors.category_files import check_name

STEP = "audience_report"
CODE_VERSION = "3"  # raise it with every change of what comes out: partitions are then made again

REPORT = "report.html"

# Steps whose modules take half a second to import.
_FOLLOWED, _INPUTS, _GROUPED = "segments", "clustering_inputs", "grouped_users"

_MOST_READ = 1_000  # pages of the profiles, the most telling ones: what is shown is among them
_LOADED_FROM = {"src", "srcset", "href", "action", "data", "poster"}  # attributes that may name something else


def step_fingerprint(config: ReportConfig, month: str, category: str, kmeans: str, segments: str | None = None) -> str:
    """The fingerprint of a report, of that of the clusters, and of that of their followed segments, if it has them.

    That of the clusters depends on that of their choice of k.
    """
    inputs = [kmeans, *([] if segments is None else [segments])]
    return fingerprint(STEP, CODE_VERSION, {**config.fingerprinted(), "month": month, "category": category}, inputs)


@click.command(help=__doc__)
@click.argument("kmeans")
@click.argument("output")
@click.option("--month", required=True, metavar="YYYY-MM", help="The month that it is of.")
@click.option("--category", required=True, help="The category that it is of.")
@click.option("--k-selection", metavar="FOLDER", help="The output of select_k that k is from, if k was not given.")
@click.option("--segments", metavar="FOLDER", help="The output of follow_segments of these clusters.")
@click.option("--inputs", metavar="FOLDER", help="The clustering inputs that the clusters were made from.")
@click.option("--grouped-users", "grouped", metavar="FOLDER", help="The grouped users that these were made from.")
@config_options(EngineConfig, "engine")
@config_options(ResourcesConfig, "allowed")
def main(
    kmeans: str,
    output: str,
    month: str,
    category: str,
    k_selection: str | None,
    segments: str | None,
    inputs: str | None,
    grouped: str | None,
    engine: EngineConfig,
    allowed: ResourcesConfig,
) -> None:
    run(
        kmeans,
        output,
        k_selection,
        month,
        category,
        ReportConfig(),
        engine,
        allowed.resolve(),
        Reporter(),
        segments=segments,
        inputs=inputs,
        grouped=grouped,
    )


def run(
    kmeans: str,
    output: str,
    k_selection: str | None,
    month: str,
    category: str,
    config: ReportConfig,
    engine: EngineConfig,  # noqa: ARG001 # every job is given them; a page takes no engine
    resources: Resources,  # noqa: ARG001
    report: Reporter,
    segments: str | None = None,
    inputs: str | None = None,
    grouped: str | None = None,
) -> None:
    """Make a report; see the command."""
    started = time.monotonic()
    Month.parse(month)
    check_name(category)
    clusters = outputs.read_manifest(storage.absolute(kmeans), clustering.STEP)
    choice = None if k_selection is None else outputs.read_manifest(storage.absolute(k_selection), select_k.STEP)
    if choice is not None and choice["fingerprint"] not in clusters["inputs"]:
        raise InputError(f"{kmeans} has its k from another output of {select_k.STEP} than {k_selection}.")
    followed = None if segments is None else outputs.read_manifest(storage.absolute(segments), _FOLLOWED)
    if followed is not None and clusters["fingerprint"] not in followed["inputs"]:
        raise InputError(f"{segments} has the segments of other clusters than {kmeans}.")
    sources = [clusters["fingerprint"], *([] if followed is None else [followed["fingerprint"]])]
    with outputs.writing(
        STEP,
        CODE_VERSION,
        storage.absolute(output),
        report,
        config=config,
        inputs=sources,
        fingerprint=step_fingerprint(config, month, category, *sources),
        started=started,
    ) as made:
        if made.finished:
            return
        made_from = _made_from(clusters, inputs, grouped)
        content = _content(storage.absolute(kmeans), clusters, choice, month, category, segments, made_from)
        page = render(content).encode()
        with made.open_file(REPORT) as file:
            file.write(page)
        made.complete(
            rows={"segments": len(content.rows)},
            summary={
                "headline": content.headline,
                "users": content.people,
                "k": clusters["summary"]["k"],
                **({"shown": len(content.rows)} if content.rows else {}),
                "verdict": content.verdict,
                "private": content.private,
                "engine": "python",
                "bytes_in": clusters["summary"]["bytes_out"],
            },
            inspect=lambda: check_report(made.folder),
            message=content.headline,
        )


def _content(
    folder: str,
    clusters: Manifest,
    choice: Manifest | None,
    month: str,
    category: str,
    segments: str | None,
    made_from: Sources,
) -> Content:
    summary = outputs.read_json(folder, "summary.json")
    if "segments" not in summary:
        raise InputError(f"{folder} was made by an earlier version, which did not describe segments. Make it again.")
    followed, flows = (None, []) if segments is None else _followed(storage.absolute(segments))
    return content_of(
        ReportInputs(
            month=month,
            category=category,
            private=bool(clusters["summary"]["private"]),
            kmeans=clusters,
            summary=summary,
            profiles=_telling(read_table(folder, "profiles.parquet")).to_pylist(),
            k_selection=choice,
            followed=followed,
            flows=flows,
            sources=made_from,
            clearness=_clearness(folder, clusters),
            comparisons=_compared(folder, clusters),
        )
    )


def _clearness(folder: str, clusters: Manifest) -> dict[int, Clearness]:
    """How clearly people belong, by cluster; of those of which it can be said."""
    sizes = [int(cluster["users"]) for cluster in clusters["summary"]["clusters"]]
    if len(sizes) < 2:
        return {}
    batches = read_batches(folder, "assignments.parquet", ["cluster_id", "confidence"])
    clear = count_clear(
        ((batch["cluster_id"].to_numpy(), batch["confidence"].to_numpy()) for batch in batches), len(sizes)
    )
    least = int(clusters["config"].get("min_people", 10))
    found = {number: clearness_of(int(clear[number]), people, least) for number, people in enumerate(sizes)}
    return {number: clearness for number, clearness in found.items() if clearness is not None}


def _made_from(clusters: Manifest, inputs: str | None, grouped: str | None) -> Sources:
    """What clusters were made from.

    Raises:
        InputError: They were made from something else.
    """
    if inputs is None:
        return Sources()
    folder = storage.absolute(inputs)
    of_inputs = outputs.read_manifest(folder, _INPUTS)
    if of_inputs["fingerprint"] not in clusters["inputs"]:
        raise InputError(f"The clusters were not made from {inputs}. Give the clustering inputs that they are of.")
    pages = read_table(folder, "dimensions.parquet", ["dimension_id", "dimension_name", "users"]).to_pylist()
    of_users = None if grouped is None else outputs.read_manifest(storage.absolute(grouped), _GROUPED)
    if of_users is not None and of_users["fingerprint"] not in of_inputs["inputs"]:
        raise InputError(f"{inputs} was not made from {grouped}. Give the grouped users that it was made from.")
    return Sources(of_inputs, pages, of_users)


def _compared(folder: str, clusters: Manifest) -> list[dict[str, Any]]:
    """The rows of comparisons that are shown; none where code version 5 of kmeans or an earlier one made the output."""
    if SEGMENT_COMPARISONS.name not in [file["path"] for file in clusters["files"]]:
        return []
    return baselines.shown(read_table(folder, SEGMENT_COMPARISONS.name), clusters["summary"]["k"])


def _followed(folder: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is said of followed segments, and the rows of their flows."""
    followed = outputs.read_json(folder, "segments.json")
    if "history" not in followed:
        raise InputError(f"{folder} was made by an earlier version, which kept no months before. Make it again.")
    return followed, read_table(folder, "flows.parquet").to_pylist()


def _telling(profiles: pa.Table) -> pa.Table:
    """The rows of the pages that may be shown: those that set segments apart most, and those with the most people."""
    pages = profiles.group_by("dimension_id").aggregate([("z", "max"), ("people", "max")])
    if len(pages) <= _MOST_READ:
        return profiles
    order = [("dimension_id", "ascending")]
    telling = pages.sort_by([("z_max", "descending"), *order])["dimension_id"][:_MOST_READ]
    liked = pages.sort_by([("people_max", "descending"), *order])["dimension_id"][:MOST_PAGES]
    wanted = pa.concat_arrays([telling.combine_chunks(), liked.combine_chunks()])
    return profiles.filter(pc.is_in(profiles["dimension_id"], wanted))


def check_report(folder: str) -> dict[str, CheckResult]:
    """Read back a report."""
    page = storage.at(storage.join(folder, REPORT)).read_text(encoding="utf-8")
    return {"self_contained": self_contained(page)}


def self_contained(page: str) -> CheckResult:
    """A page needs nothing but itself: all that it refers to is in it."""
    found = _References()
    found.feed(page)
    found.close()
    outside = [name for name in found.names if not name.startswith(("#", "data:"))]
    return checks.result({"bytes": len(page.encode())}, [f"it refers to {name}" for name in outside])


class _References(HTMLParser):
    """What a page refers to, in its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 # of any element
        self.names += [value or "" for name, value in attrs if name.rpartition(":")[2] in _LOADED_FROM]


if __name__ == "__main__":
    run_as_command(main)
