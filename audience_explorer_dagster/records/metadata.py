"""What a materialization shows of itself, made from its manifest; and what a failed run shows.

Figures of people are published ones: `records.people` says how.
"""

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import dagster as dg

from audience_explorer_dagster import planning, settings
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import Target
from audience_explorer_dagster.records import findings, markdown, people, pictures
from audience_explorer_dagster.records.column_schemas import table_schema
from audience_explorer_dagster.records.history import FINGERPRINT, FOLDER, INPUTS, ROOT, Record, located
from audience_explorer_dagster.store import Store
from spark_jobs import make_report, storage
from spark_jobs.clusters.action_mix import in_short
from spark_jobs.json_texts import parse_json
from spark_jobs.outputs import MANIFEST

REUSED = "reused"
CHECKS = "checks"
FAILED = "failed"
LAUNCH = "launch/"  # what begins the names of facts about where an output was computed, and what that cost

REPORT = "report"
OPEN_REPORT = "open_report"

# And of no later record of the same output.
_OF_THAT_RECORD = ("label", "promoted", "standing", "adopted", REPORT, OPEN_REPORT)

# What people come to a partition's page for, and what only machines read. The UI shows metadata in a record's order.
_FIRST = (
    findings.VERDICT,
    "headline",
    "finding",
    "how_sure",
    "what_to_do",
    "what_happened",
    "segments",
    "picture",
    REPORT,
    OPEN_REPORT,
    "standing",
    "label",
    "tweaks",
)
_LAST = (
    people.MIN_PEOPLE,
    "bytes_in",
    "bytes_out",
    FOLDER,
    ROOT,
    "config",
    "code_version",
    FINGERPRINT,
    INPUTS,
    CHECKS,
)

_OF_FIRST_RECORD = ("computed_by_run", "computed_at")
_WITHOUT_PEOPLE = (
    *_OF_FIRST_RECORD,
    *("k", "requested_k", findings.VERDICT, "clustering_inputs"),
    *("config", "code_version", FINGERPRINT, INPUTS),
)

_SCORES = ("k", "prediction", "smallest_segment", "wssse", "silhouette", "calinski_harabasz")


def of_computed(
    asset: str, folder: str, store: Store, manifest: dict[str, Any], launch: dict[str, Any]
) -> dict[str, Any]:
    """The metadata of an output that was just made, where `launch` says."""
    summary, config = manifest["summary"], manifest["config"]
    min_people = people.min_people_of(config)
    first = findings.as_metadata(asset, manifest, min_people)
    details: dict[str, Any] = {
        planning.GROUPED_USERS: _grouped_users,
        planning.CLUSTERING_INPUTS: _clustering_inputs,
        planning.K_SELECTION: _k_selection,
        planning.KMEANS: _kmeans,
        planning.SEGMENTS: _followed,
        planning.AUDIENCE_REPORT: _report,
    }[asset](summary, min_people)
    checks = people.checks(asset, manifest.get("checks", {}), min_people, findings.why_none(first))
    return {
        **first,
        **details,
        people.MIN_PEOPLE: min_people,
        "duration_seconds": float(summary["seconds"]),
        "engine": summary["engine"],
        "bytes_in": summary["bytes_in"],
        "bytes_out": summary["bytes_out"],
        **located(folder, store),
        "config": dg.MetadataValue.json(config),
        "code_version": manifest["code_version"],
        FINGERPRINT: manifest["fingerprint"],
        INPUTS: dg.MetadataValue.json(manifest["inputs"]),
        CHECKS: dg.MetadataValue.json(checks),
        REUSED: False,
        **{f"{LAUNCH}{name}": value for name, value in launch.items()},
    }


def in_reading_order(details: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata in the order in which a person reads a partition's page."""
    first = [name for name in _FIRST if name in details]
    last = [name for name in details if name.startswith(LAUNCH)] + [name for name in _LAST if name in details]
    rest = [name for name in details if name not in first and name not in last]
    return {name: details[name] for name in (*first, *rest, *last)}


def of_reused(record: Record, store: Store, label: str | None) -> dict[str, Any]:
    """The metadata of a materialization that points at an earlier one's output, under a label of its own."""
    first = {
        # What no run recorded, `adopt` did.
        **({"computed_by_run": dg.MetadataValue.dagster_run(record.run_id)} if record.run_id else {}),
        "computed_at": _time(record),
    }
    # A record that is itself a reuse knows when its output was made.
    kept = {
        name: value
        for name, value in _published(record, store).items()
        if name not in _OF_THAT_RECORD and not name.startswith(LAUNCH)
    }
    return {
        **kept,
        **located(record.folder, store),
        **{key: record.metadata.get(key, value) for key, value in first.items()},
        **({"label": label} if label else {}),
        REUSED: True,
    }


def _published(record: Record, store: Store) -> Mapping[str, Any]:
    """The metadata of an earlier record; made anew, where that is of a version that recorded exact figures of people.

    Where its manifest is gone or lacks something, only what says nothing of people is left of it.
    """
    if people.is_published(record.metadata):
        return record.metadata
    asset, _, _ = store.place(record.folder).partition("/")
    try:
        text = storage.at(storage.join(record.folder, MANIFEST)).read_text(encoding="utf-8")
        anew = of_computed(asset, record.folder, store, parse_json(text), {})
    except (OSError, ValueError, KeyError):
        return {name: record.metadata[name] for name in _WITHOUT_PEOPLE if name in record.metadata}
    # When and by which run it was computed, if it is a reuse itself, only the record knows.
    return {**anew, **{name: record.metadata[name] for name in _OF_FIRST_RECORD if name in record.metadata}}


def _time(record: Record) -> dg.MetadataValue:
    return dg.MetadataValue.timestamp(record.recorded_at)


def _row_count(rows: int | str) -> dict[str, int]:
    """What Dagster shows as the rows of a table with a row a person, or a row for some."""
    return {"dagster/row_count": rows} if isinstance(rows, int) else {}


def _grouped_users(summary: dict[str, Any], min_people: int) -> dict[str, Any]:
    users = people.everybody(summary["users"], min_people)
    return {
        "users": users,
        "pages": people.figure(summary["pages"], min_people),  # of each person, so it counts people
        "rows": summary["rows"],
        "actions": summary["actions"],
        "rejected_rows": summary["rejected"],
        "rejects": _table(["reason", "rows"], list(summary["rejects"].items())),
        "raw_files": summary["raw_files"],
        **_row_count(users),
    }


def _clustering_inputs(summary: dict[str, Any], min_people: int) -> dict[str, Any]:
    users = people.everybody(summary["users"], min_people)
    profiles = people.figure(summary["profiles"], min_people)  # each of which somebody has
    return {
        "users": users,
        **_fit_users(summary.get("fit_users"), min_people),  # code version 1 has none
        "profiles": profiles,
        "dimensions": summary["dimensions"],
        # On how many pages a few people are says something of them.
        **({"dimensions_in_use": summary["dimensions_in_use"]} if isinstance(users, int) else {}),
        "entries": people.figure(summary["entries"], min_people),  # a person and a page each
        "scaling": summary["scaling"],
        **_row_count(profiles),
    }


def _fit_users(users: int | None, min_people: int) -> dict[str, int | str]:
    return {} if users is None else {"fit_users": people.figure(users, min_people)}


def _k_selection(summary: dict[str, Any], min_people: int) -> dict[str, Any]:
    evidence = summary.get("evidence")
    known = [score for score in _SCORES if all(score in row for row in summary["tried"])]  # code version 2 has fewer
    rows = [[_shown(score, row[score], min_people) for score in known] for row in summary["tried"]]
    return {
        **({"picture": dg.MetadataValue.md(pictures.tried_k(summary))} if summary["tried"] else {}),
        "k": summary["k"],
        "criterion": summary["criterion"],
        **({"evidence": float(evidence)} if evidence is not None else {}),
        "users": people.everybody(summary["users"], min_people),
        **_fit_users(summary.get("people"), min_people),
        "profiles": people.figure(summary["profiles"], min_people),
        **({"tried": _table(known, rows)} if rows else {}),
    }


def _kmeans(summary: dict[str, Any], min_people: int) -> dict[str, Any]:
    clusters = summary["clusters"]
    users = people.everybody(summary["users"], min_people)
    solidity = findings.counted(findings.solidity_of(cluster, summary["k"]) for cluster in clusters)
    return {
        **({"picture": dg.MetadataValue.md(pictures.clusters(summary, min_people))} if clusters else {}),
        "users": users,
        **_fit_users(summary.get("learned_from", {}).get("users"), min_people),
        "profiles": people.figure(summary["profiles"], min_people),
        "k": summary["k"],
        "requested_k": summary["requested_k"],
        **(_scores(summary) if isinstance(users, int) else {}),  # scores of few people would say something of them
        "iterations": summary["iterations"],
        "converged": summary["converged"],
        **({"label": summary["label"]} if summary["label"] else {}),
        "sizes": dg.MetadataValue.text(people.sizes([cluster["users"] for cluster in clusters], min_people)),
        **({"solidity": solidity} if solidity else {}),
        **_segments(summary, min_people),
        "clustering_inputs": dg.MetadataValue.json(summary["clustering_inputs"]),
        **_row_count(users),
    }


def _scores(summary: dict[str, Any]) -> dict[str, float]:
    silhouette = summary["scores"]["silhouette"]
    return {
        "wssse": float(summary["wssse"]),
        **({"silhouette": float(silhouette)} if silhouette is not None else {}),
    }


def _followed(summary: dict[str, Any], min_people: int) -> dict[str, Any]:
    living = [segment for segment in summary["segments"] if segment["ended"] is None]
    since = f"since {summary['since']}" if summary["since"] else "this is the first month that is followed"
    happened = [f"- {markdown.as_text(event['what'])}" for event in summary["events"]] or [
        f"Nothing that these months can show, {since}."
    ]
    rows = [
        [
            segment["segment_id"],
            segment["name"],
            findings.people_of(segment),
            "" if segment["share"] is None else f"{segment['share']:.0%}",
            segment["born"],
            segment["last_seen"],
            ", ".join(map(str, segment["cluster_ids"])) or "none",
        ]
        for segment in living
    ]
    columns = ["segment_id", "name", "people", "share", "born", "last_seen", "cluster_ids"]
    return {
        "what_happened": dg.MetadataValue.md("\n".join(happened)),
        "segments": _table(columns, rows),
        **({"followed_from": summary["since"]} if summary["since"] else {}),
        "living": len(living),
        "events": len(summary["events"]),
        "users": people.everybody(summary["users"], min_people),
        "k": summary["k"],
    }


def _report(summary: dict[str, Any], min_people: int) -> dict[str, Any]:
    few = people.figure(0, min_people) if summary["k"] else 0  # without a cluster, there is nobody
    return {
        **({findings.VERDICT: summary["verdict"]} if summary["verdict"] else {}),
        "headline": summary["headline"],
        "users": few if summary["users"] is None else summary["users"],  # rounded, as it is in the page
        "k": summary["k"],
        # Fewer than k where a segment has several clusters; reports of an earlier version do not say.
        **({"shown": summary["shown"]} if "shown" in summary else {}),
        "private": summary["private"],
    }


def link_to_report(
    folder: str, partition: Partition, label: str | None, is_current: bool
) -> dict[str, dg.MetadataValue]:
    """Where a report is, and the command that opens it.

    A record stays, and a link by which a browser may read S3 expires: so the record has AWS's own page of the object,
    for who may log in there, and the command makes a link when it is asked for one. Browsers follow no link from the UI
    to a file. Where a server shows reports, the record of a current one has its page there.
    """
    page = storage.join(folder, make_report.REPORT)
    option = f" --label {label}" if label else ""
    command = f"audience-explorer report --month {partition.month} --category {partition.category}{option} --open"
    served = settings.read().reports_url.rstrip("/") if is_current else ""
    link = dg.MetadataValue.url(f"{served}/{partition.category}/{partition.month}") if served else _page_of(page)
    return {REPORT: link, OPEN_REPORT: dg.MetadataValue.text(command)}


def _page_of(location: str) -> dg.MetadataValue:
    bucket, _, key = location.removeprefix("s3://").partition("/")
    if not location.startswith("s3://") or os.environ.get("AWS_ENDPOINT_URL"):
        return dg.MetadataValue.path(location)
    return dg.MetadataValue.url(f"https://{_console()}/s3/object/{bucket}?prefix={quote(key)}")


def _console() -> str:
    """The host of AWS's console, which each partition has for itself."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    hosts = {"cn-": "console.amazonaws.cn", "us-gov-": "console.amazonaws-us-gov.com"}
    return next((host for prefix, host in hosts.items() if region.startswith(prefix)), "console.aws.amazon.com")


def _segments(summary: dict[str, Any], min_people: int) -> dict[str, dg.MetadataValue]:
    """A row a segment, in figures that may be published; of code version 4 and before, a row a cluster."""
    k = summary["k"]
    if "segments" not in summary:
        clusters = [
            [
                cluster["cluster_id"],
                people.in_table(cluster["users"], min_people),
                findings.solidity_of(cluster, k) or "not known",
                ", ".join(f"{name} {share:.0%}" for name, share in people.top_pages(cluster, min_people)),
            ]
            for cluster in summary["clusters"]
        ]
        return {"clusters": _table(["cluster_id", "users", "solidity", "top_pages"], clusters)}
    rows = [
        [
            segment["cluster_id"],
            segment["name"],
            findings.people_of(segment),
            "" if segment["share"] is None else f"{segment['share']:.0%}",
            findings.solidity_of(segment, k) or "not known",
            ", ".join(_into(page) for page in segment["distinctive"]) or "nothing in particular",
            in_short(segment.get("actions")),  # code version 5 has none
        ]
        for segment in summary["segments"]
    ]
    return {"segments": _table(["cluster_id", "name", "people", "share", "solidity", "into", "actions"], rows)}


def _into(page: dict[str, Any]) -> str:
    """A page that sets a segment apart, with how many times likelier its people are to like it."""
    lift = f"at least {page['low']:g}" if page["lift"] is None else f"{page['lift']:g}"
    return f"{page['dimension_name']} ({lift}×)"


def _table(columns: list[str], rows: list[Any]) -> dg.MetadataValue:
    """A small table; all its columns are shown as text."""
    schema = table_schema(columns)
    records = [dg.TableRecord({c: str(v) for c, v in zip(columns, row, strict=True)}) for row in rows]
    return dg.MetadataValue.table(records, schema)


def _shown(name: str, score: float | None, min_people: int) -> str:
    if name == "smallest_segment":
        return people.in_table(int(score or 0), min_people)
    return "not defined" if score is None else f"{score:.6g}"


def of_failures(failed: Mapping[Target, str]) -> dict[str, Any]:
    """The metadata of a step's failure: which targets failed, and why."""
    return {FAILED: dg.MetadataValue.json({str(target): why for target, why in failed.items()})}


def failed_targets(failure: dg.DagsterEvent) -> dict[Target, str] | None:
    """Which targets a step's failure names, and why they failed (see `of_failures`); None if it has another reason."""
    data = failure.step_failure_data.user_failure_data
    if data is None or FAILED not in data.metadata:
        return None
    failed: Any = data.metadata[FAILED].value
    return {Target.parse(name): why for name, why in failed.items()}
