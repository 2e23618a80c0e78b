"""`audience-explorer export`: the people of segments, for the systems that act on them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from audience_explorer_dagster.cli.completion import complete_category, complete_month
from audience_explorer_dagster.cli.project import errors_told, root_option, tell
from spark_jobs import storage
from spark_jobs.errors import InputError
from spark_jobs.raw.months import list_months

if TYPE_CHECKING:
    import pyarrow as pa

    from spark_jobs.segments import Segments

_FORMATS = (".csv", ".parquet")


@dataclass(frozen=True)
class _Found:
    """A segment of a month that is asked for."""

    month: str
    cluster_id: int
    name: str
    people: int  # that are exported of it


@click.command()
@click.option("--category", required=True, metavar="NAME", shell_complete=complete_category, help="The category.")
@click.option(
    "--segment",
    "wanted",
    multiple=True,
    required=True,
    metavar="NAME",
    help="A segment's name, or its cluster_id; repeat it.",
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
    months: tuple[str, ...],
    min_confidence: float,
    output: str | None,
    root: str,
    as_json: bool,
) -> None:
    """Export the people of segments: their ids, for the systems that act on them.

    A row is a person: `user_id`, `month`, `cluster_id`, `segment`, `confidence`. Who is in such segments in several
    months has one row, of the newest of them. The ids are of people: keep the file as you keep the raw data.

    \b
    audience-explorer export --category coffee --segment 0 --min-confidence 0.2 --output espresso.csv
    """
    if output is not None and not output.endswith(_FORMATS):
        raise click.UsageError(f"--output {output}: its name must end with {' or '.join(_FORMATS)}.")
    with errors_told():
        found, rows = _people(root, category, months or (_newest_month(root, category),), wanted, min_confidence)
        if output is not None:
            _write(rows, output)
    if as_json:
        document: dict[str, Any] = {"category": category, "people": rows.num_rows, "file": output}
        document["segments"] = [asdict(segment) for segment in found]
        click.echo(json.dumps(document if output else {**document, "rows": rows.to_pylist()}, indent=1))
        return
    for segment in found:
        tell(f"{segment.month}: {segment.cluster_id} {segment.name}: {segment.people:,} people")
    if output is None:
        click.echo(_as_csv(rows), nl=False)
    else:
        tell(f"{rows.num_rows:,} people are in {output}")


def _newest_month(root: str, category: str) -> str:
    """The newest month of which there are segments."""
    outputs = storage.join(storage.absolute(root), "kmeans")
    for month in reversed(list_months(outputs)):
        if storage.at(storage.join(outputs, f"month={month}", f"category={category}", "current.json")).exists():
            return month
    raise InputError(f"There are no segments of {category} in {outputs}.")


def _people(
    root: str, category: str, months: Sequence[str], wanted: Sequence[str], min_confidence: float
) -> tuple[list[_Found], "pa.Table"]:
    """The segments that are asked for, and their people, a row each.

    Raises:
        InputError: No month has such a segment.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from spark_jobs.segments import load_segments

    found, tables, offered = [], [], []
    for month in sorted(set(months), reverse=True):
        segments = load_segments(root, month, category, columns=["user_id", "cluster_id", "confidence"])
        offered += [f"{month}: {number} {name}" for number, name in _names(segments)]
        for number, name in _chosen(segments, wanted):
            members = segments.members.filter(
                (pc.field("cluster_id") == number) & (pc.field("confidence") >= min_confidence)
            )
            found.append(_Found(month, number, name, members.num_rows))
            tables.append(
                members.append_column("month", pa.repeat(month, members.num_rows)).append_column(
                    "segment", pa.repeat(name, members.num_rows)
                )
            )
    missing = [name for name in wanted if not any(name in (str(f.cluster_id), f.name) for f in found)]
    if missing:
        listed = "".join(f"\n  {line}" for line in offered)
        raise InputError(f"There is no segment {', '.join(missing)} of {category}. There are:{listed}")
    # The newest month comes first, so the first row of a person is of the newest.
    first = pa.concat_tables(tables).group_by("user_id", use_threads=False)
    columns = ["month", "cluster_id", "segment", "confidence"]
    people = first.aggregate([(column, "first") for column in columns])
    return found, people.rename_columns(["user_id", *columns]).sort_by("user_id")


def _names(segments: "Segments") -> Iterator[tuple[int, str]]:
    """The ids and names of the segments; outputs of before there were names have none."""
    for cluster in segments.clusters.to_pylist():
        yield cluster["cluster_id"], cluster["name"] or ""


def _chosen(segments: "Segments", wanted: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The segments with these names or ids. A name comes before an id, should one be like the other."""
    named = {name: number for number, name in _names(segments)}
    numbered = {str(number): number for number in named.values()}
    chosen = {number for text in wanted if (number := named.get(text, numbered.get(text))) is not None}
    return ((number, name) for number, name in _names(segments) if number in chosen)


def _write(rows: "pa.Table", output: str) -> None:
    import pyarrow.parquet as pq

    with storage.new_file(output) as file:
        if output.endswith(".csv"):
            file.write(_as_csv(rows))
        else:
            pq.write_table(rows, file, compression="zstd")


def _as_csv(rows: "pa.Table") -> bytes:
    import pyarrow as pa
    from pyarrow import csv

    written = pa.BufferOutputStream()
    csv.write_csv(rows, written)
    content: bytes = written.getvalue().to_pybytes()
    return content
