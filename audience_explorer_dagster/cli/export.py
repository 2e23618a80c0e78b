"""`audience-explorer export`: the people of segments, for the systems that act on them."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import click

from audience_explorer_dagster.cli.completion import complete_category, complete_month
from audience_explorer_dagster.cli.labelled import Variant, find_labelled
from audience_explorer_dagster.cli.project import errors_told, open_project, root_option, tell
from spark_jobs import storage
from spark_jobs.errors import InputError
from spark_jobs.raw.months import list_months
from spark_jobs.terminal import visible_lines

if TYPE_CHECKING:
    import pyarrow as pa

    from audience_explorer_dagster.cli.followed import Followed
    from spark_jobs.segments import Segments

_FORMATS = (".csv", ".parquet")


@dataclass(frozen=True)
class _Offered:
    """A segment of a month that can be asked for."""

    segment_id: int | None  # None where nobody followed it
    name: str
    clusters: tuple[int, ...]
    others: tuple[str, ...] = ()  # the names of those that it shares its clusters with

    def __str__(self) -> str:
        number = f"cluster {self.clusters[0]}" if self.segment_id is None else self.segment_id
        return f"{number} {self.name}"


@dataclass(frozen=True)
class _Found:
    """A cluster of a month that is asked for, by itself or as one of a segment."""

    month: str
    cluster_id: int
    name: str
    people: int  # that are exported of it
    segment_id: int | None


@dataclass(frozen=True)
class _Month:
    """What the clusters of a month have of what is asked for."""

    offers: list[str]  # a line a segment that can be asked for
    known: set[str | int]  # what it has of the names of segments and the numbers of clusters
    reasons: dict[str, str]  # why it has no segment that there was once
    found: list[_Found] = field(default_factory=list)
    members: list["pa.Table"] = field(default_factory=list)  # the people of each of `found`


@click.command()
@click.option("--category", required=True, metavar="NAME", shell_complete=complete_category, help="The category.")
@click.option(
    "--segment",
    "wanted",
    multiple=True,
    metavar="NAME",
    help="A segment's name or id, as in `segments ls` and the report; repeat it.",
)
@click.option(
    "--cluster",
    "clusters",
    multiple=True,
    metavar="N",
    type=click.IntRange(min=0),
    help="A cluster's number, which is another every month, for what is not followed; repeat it.",
)
@click.option(
    "--month",
    "months",
    multiple=True,
    metavar="YYYY-MM",
    shell_complete=complete_month,
    help="A month; repeat it.  [default: the newest that has segments]",
)
@click.option(
    "--label",
    metavar="NAME",
    help="Of the clusters with this label or folder, as `runs` lists them, not of the current ones.",
)
@click.option(
    "--min-confidence",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Leave out who belongs to the segment less clearly: 0 is halfway to another one, 1 at its center.",
)
@click.option(
    "--output",
    metavar="FILE",
    help="Where to: a path or s3:// address that ends with .csv or .parquet.  [default: CSV to standard output]",
)
@root_option
@click.option(
    "--json", "as_json", is_flag=True, help="JSON on standard output: what was found, and the rows if no file."
)
def export(
    category: str,
    wanted: tuple[str, ...],
    clusters: tuple[int, ...],
    months: tuple[str, ...],
    label: str | None,
    min_confidence: float,
    output: str | None,
    root: str,
    as_json: bool,
) -> None:
    """Export the people of segments: their ids, for the systems that act on them.

    A row is a person: `user_id`, `month`, `cluster_id`, `segment`, `confidence`, `segment_id`. Who is in such segments
    in several months has one row, of the newest of them. The ids are of people: keep the file as you keep the raw data.

    \b
    audience-explorer export --category coffee --segment 1 --min-confidence 0.2 --output espresso.csv
    """
    if not wanted and not clusters:
        raise click.UsageError("Name what to export: --segment, or --cluster.")
    if output is not None and not output.endswith(_FORMATS):
        raise click.UsageError(f"--output {output}: its name must end with {' or '.join(_FORMATS)}.")
    with errors_told():
        variants = _variants(root, category, label, months)
        found, rows = _people(root, category, variants, wanted, clusters, min_confidence)
        if output is not None:
            _write(rows, output)
    if as_json:
        document: dict[str, Any] = {"category": category, "people": rows.num_rows, "file": output}
        document |= {"label": label} if label is not None else {}
        document["segments"] = [asdict(segment) for segment in found]
        click.echo(json.dumps(document if output else {**document, "rows": rows.to_pylist()}, indent=1))
        return
    people: Counter[str] = Counter()
    for part in found:
        people[f"{part.month}: {_Offered(part.segment_id, part.name, (part.cluster_id,))}"] += part.people
    for line, count in people.items():
        tell(f"{line}: {count:,} people")
    tell("These counts are exact; those of the report are rounded.")
    if output is None:
        _print(rows)
    else:
        tell(f"{rows.num_rows:,} people are in {output}")


def _variants(root: str, category: str, label: str | None, months: Sequence[str]) -> list[Variant]:
    """What is exported from: the current output of each month, or that with a label."""
    if label is None:
        return [Variant(month) for month in sorted(set(months)) or [_newest_month(root, category)]]
    with open_project(root) as project:
        return find_labelled(project, category, label, months)


def _newest_month(root: str, category: str) -> str:
    """The newest month of which there are segments."""
    outputs = storage.join(storage.absolute(root), "kmeans")
    for month in reversed(list_months(outputs)):
        if storage.at(storage.join(outputs, f"month={month}", f"category={category}", "current.json")).exists():
            return month
    raise InputError(f"There are no segments of {category} in {outputs}.")


def _people(
    root: str,
    category: str,
    variants: Sequence[Variant],
    wanted: Sequence[str],
    clusters: Sequence[int],
    min_confidence: float,
) -> tuple[list[_Found], "pa.Table"]:
    """The clusters that are asked for, and their people, a row each.

    Raises:
        InputError: No month has such a segment or cluster.
    """
    newest_first = sorted(variants, key=lambda variant: variant.month, reverse=True)
    months = [_look(root, category, variant, wanted, clusters, min_confidence) for variant in newest_first]
    known = {name for month in months for name in month.known}
    reasons: dict[str, str] = {}
    for month in months:
        reasons |= {name: why for name, why in month.reasons.items() if name not in reasons}
    if missing := [name for name in wanted if name not in known]:
        raise InputError(_no_segment(missing, reasons, category, [offer for month in months for offer in month.offers]))
    if unknown := [str(number) for number in clusters if number not in known]:
        raise InputError(
            f"There is no cluster {', '.join(unknown)} of {category} in {', '.join(v.month for v in variants)}."
        )
    for why in reasons.values():  # of what another month has
        tell(why)
    found = [one for month in months for one in month.found]
    return found, _first_rows([members for month in months for members in month.members])


def _look(
    root: str,
    category: str,
    variant: Variant,
    wanted: Sequence[str],
    clusters: Sequence[int],
    min_confidence: float,
) -> _Month:
    """Look for what is asked for in the clusters of a month."""
    from spark_jobs.segments import load_segments

    month = variant.month
    columns = ["user_id", "cluster_id", "confidence"]
    segments = load_segments(root, month, category, folder=variant.folder, columns=columns)
    followed = _followed(root, variant, category, segments)
    by_cluster = _unfollowed(segments)
    offers = list(by_cluster.values()) if followed is None else _living(followed)
    of_segments = {text: offer for text in wanted if (offer := _find(offers, text)) and offer.clusters}
    of_clusters = {number: _owner(offers, by_cluster[number]) for number in clusters if number in by_cluster}
    for offer in of_segments.values():
        if offer.others:
            others = _in_words(offer.others)
            tell(f"{month}: {_in_words([offer.name])} is in one cluster with {others}: all of it is exported.")
    whys = {text: _why_not(followed, text) for text in wanted if text not in of_segments}
    made = _Month(
        offers=[f"{month}: {offer}" for offer in offers],
        known={*of_segments, *of_clusters},
        reasons={text: why for text, why in whys.items() if why},
    )
    of_clusters |= {number: offer for offer in of_segments.values() for number in offer.clusters}
    for number, offer in sorted(of_clusters.items()):
        members = _members(segments, month, number, offer, min_confidence)
        made.found.append(_Found(month, number, offer.name, members.num_rows, offer.segment_id))
        made.members.append(members)
    return made


def _members(segments: "Segments", month: str, number: int, offer: _Offered, min_confidence: float) -> "pa.Table":
    """The people of a cluster, with the month and the segment that it is exported as."""
    import pyarrow as pa
    import pyarrow.compute as pc

    members = segments.members.filter((pc.field("cluster_id") == number) & (pc.field("confidence") >= min_confidence))
    for column, value in {"month": month, "segment": offer.name, "segment_id": offer.segment_id}.items():
        kind = pa.int32() if column == "segment_id" else pa.string()
        members = members.append_column(column, pa.repeat(pa.scalar(value, kind), members.num_rows))
    return members


def _first_rows(tables: Sequence["pa.Table"]) -> "pa.Table":
    """A row a person, the first of theirs: the newest, where the newest month comes first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = ["month", "cluster_id", "segment", "confidence", "segment_id"]
    # A segment that nobody follows has no id, which is a first value, too.
    options = pc.ScalarAggregateOptions(skip_nulls=False)
    by_person = pa.concat_tables(tables).group_by("user_id", use_threads=False)
    people = by_person.aggregate([(name, "first", options) for name in names])
    return people.rename_columns(["user_id", *names]).sort_by("user_id")


def _followed(root: str, variant: Variant, category: str, segments: "Segments") -> "Followed | None":
    """The followed segments of these clusters; None if those of the month are of others, or there are none."""
    from audience_explorer_dagster.cli.followed import ASSET, read_followed, read_output
    from audience_explorer_dagster.store import Store
    from spark_jobs.outputs import read_manifest

    if variant.followed is not None:
        return read_output(variant.followed)
    followed = read_followed(Store(root=root), category, variant.month)
    if followed is None:
        return None
    made_from = read_manifest(followed.folder, ASSET)["inputs"]
    return followed if read_manifest(segments.folder, "kmeans")["fingerprint"] in made_from else None


def _living(followed: "Followed") -> list[_Offered]:
    names = {row["segment_id"]: row["name"] for row in followed.rows}
    return [
        _Offered(
            row["segment_id"],
            row["name"],
            tuple(row["cluster_ids"]),
            tuple(names[number] for number in row["shares_them_with"]),
        )
        for row in followed.living
    ]


def _unfollowed(segments: "Segments") -> dict[int, _Offered]:
    """The clusters by number, with k-means' names; outputs of before there were names have none."""
    return {
        cluster["cluster_id"]: _Offered(None, cluster["name"] or "", (cluster["cluster_id"],))
        for cluster in segments.clusters.to_pylist()
    }


def _find(offers: Sequence[_Offered], text: str) -> _Offered | None:
    """The segment with this name or id. A name comes before an id, should one be like the other."""
    named = [offer for offer in offers if offer.name == text]
    numbered = [offer for offer in offers if str(offer.segment_id) == text]
    return next(iter(named + numbered), None)


def _owner(offers: Sequence[_Offered], cluster: _Offered) -> _Offered:
    """The segment that a cluster belongs to; the cluster itself where that is none, or several."""
    owners = [offer for offer in offers if {*cluster.clusters} & {*offer.clusters}]
    return owners[0] if len(owners) == 1 else cluster


def _why_not(followed: "Followed | None", text: str) -> str | None:
    """Why a segment that there was once can't be exported; None if there never was one."""
    rows = [] if followed is None else followed.rows
    named = [row for row in rows if row["name"] == text] or [row for row in rows if str(row["segment_id"]) == text]
    if followed is None or not named:
        return None
    segment = named[0]
    name = _in_words([segment["name"]])
    if segment["ended"] is None:
        return f"{name} lives on, but {followed.month} shows nobody of it. Export another month."
    number, ended = segment["segment_id"], segment["ended"]
    for event in reversed(followed.events):
        if event["month"] < ended:
            break
        became = [row["name"] for row in rows if row["segment_id"] in event["after"]]
        if became and number in event["before"] and number not in event["after"]:
            verb = "was merged into" if event["kind"] == "merge" else "became"
            return f"{name} {verb} {_in_words(became)} in {event['month']}. Export that, or an earlier month."
    return f"{name} ended in {ended}. Export an earlier month."


def _no_segment(missing: Sequence[str], reasons: dict[str, str], category: str, offered: Sequence[str]) -> str:
    if whys := [reasons[name] for name in missing if name in reasons]:
        return " ".join(whys)
    way_out = " The number of a cluster is given as --cluster." if any(map(str.isdecimal, missing)) else ""
    listed = "".join(f"\n  {line}" for line in offered)
    return f"There is no segment {', '.join(missing)} of {category}.{way_out} There are:{listed}"


def _in_words(names: Sequence[str]) -> str:
    return " and ".join(f"“{name}”" for name in names)


def _write(rows: "pa.Table", output: str) -> None:
    import pyarrow.parquet as pq

    with storage.new_file(output) as file:
        if output.endswith(".csv"):
            file.write(_as_csv(rows))
        else:
            pq.write_table(rows, file, compression="zstd")


def _print(rows: "pa.Table") -> None:
    """Print the people. A program gets all as it is; a terminal would obey what ids and names hold."""
    content = _as_csv(rows)
    click.echo(visible_lines(content.decode()) if sys.stdout.isatty() else content, nl=False)


def _as_csv(rows: "pa.Table") -> bytes:
    import pyarrow as pa
    from pyarrow import csv

    from spark_jobs.audience_report.tables import without_formula

    # Names of segments are for people, who open CSV in spreadsheets. Ids are for programs, and stay as they are.
    names = rows["segment"].combine_chunks().dictionary_encode()
    shown = pa.array([without_formula(name) for name in names.dictionary.to_pylist()], pa.string())
    place = rows.schema.get_field_index("segment")
    written = pa.BufferOutputStream()
    csv.write_csv(rows.set_column(place, "segment", shown.take(names.indices)), written)
    content: bytes = written.getvalue().to_pybytes()
    return content
