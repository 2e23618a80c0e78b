"""Outputs of kmeans and k_selection in their published form, made from numbers: what a report is made from."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spark_jobs.clusters import action_mix, published
from spark_jobs.config import ClusteringInputsConfig, KMeansConfig, KSelectionConfig

MIN_PEOPLE = 10

_FIRST = ("Espresso", "Harbor", "Latte", "Kenya", "Office", "Drip", "Velvet", "Morning", "Copper", "Slow", "Night")
_SECOND = (
    "Society",
    "Weekly",
    "Lessons",
    "Offers",
    "Club",
    "Growers",
    "Letters",
    "Reviews",
    "Deals",
    "Season",
    "Hacks",
)


def page_names(pages: int) -> list[str]:
    """Names of pages, all different."""
    every = [f"{first} {second}" for second in _SECOND for first in _FIRST]
    return [every[page] if page < len(every) else f"Page {page}" for page in range(pages)]


def make_kmeans(
    folder: Path,
    k: int = 4,
    pages: int = 18,
    users: int = 10_944,
    verdict: str | None = "segments",
    names: Sequence[str] | None = None,
    fingerprint: str = "f" * 32,
    config: dict[str, Any] | None = None,
    private: bool = False,
) -> str:
    """An output of kmeans whose people of a segment are on some of the pages more than the others."""
    draw = random.Random(f"{k} {pages} {users}")
    page_of = list(names) if names is not None else page_names(pages)
    sizes = _sizes(users, k)

    def liked(cluster: int, page: int) -> float:
        own = page % k == cluster and page < pages - 3  # nobody is into the last ones more than others
        return draw.uniform(0.02, 0.3) + 0.5 * own

    on = [[int(size * liked(cluster, page)) for page in range(len(page_of))] for cluster, size in enumerate(sizes)]
    rows = [_row(cluster, page, name, on, sizes, k) for cluster in range(k) for page, name in enumerate(page_of)]
    segments = [_segment(cluster, rows, sizes, users, draw) for cluster in range(k)] if users else []
    summary: dict[str, Any] = {
        "k": k if users else 0,
        "requested_k": k,
        "verdict": verdict,
        "engine": "numpy 2.4.6",
        "converged": True,
        "learned_from": {"users": users // 3, "min_actions": 8, "wssse": 1.0},
        "segments": segments,
        "actions": _actions(users, 0.55) if users else None,
    }
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    pq.write_table(pa.Table.from_pylist(rows if users else [], published.SEGMENT_PROFILE), folder / "profiles.parquet")
    against = _comparisons(rows, on, sizes) if users else []
    pq.write_table(pa.Table.from_pylist(against, published.SEGMENT_COMPARISON), folder / "comparisons.parquet")
    (folder / "data.json").write_text(
        "".join(json.dumps({"cluster_id": cluster, "user_ids": [f"user-{cluster}"]}) + "\n" for cluster in range(k))
    )
    _write_assignments(folder, sizes if users else [])
    manifest = {
        "step": "kmeans",
        "fingerprint": fingerprint,
        "inputs": ["a" * 32, "b" * 32],
        "files": [{"path": file.name, "bytes": file.stat().st_size} for file in sorted(folder.iterdir())],
        "config": {**KMeansConfig().model_dump(mode="json"), **(config or {})},
        "summary": {
            **summary,
            "users": users,
            "private": private,
            "bytes_out": 1_000,
            "clustering_inputs": ClusteringInputsConfig().model_dump(mode="json"),
            "clusters": [{"cluster_id": number, "users": size} for number, size in enumerate(sizes if users else [])],
        },
        "checks": {name: {"passed": True, "found": {}, "why": ""} for name in ("schema", "every_user_once")},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return str(folder)


def list_again(folder: Path) -> None:
    """Let the manifest of an output that was changed by hand list its files as they are now."""
    manifest = json.loads((folder / "manifest.json").read_text())
    names = [file["path"] for file in manifest["files"]]
    manifest["files"] = [{"path": name, "bytes": (folder / name).stat().st_size} for name in names]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _write_assignments(folder: Path, sizes: Sequence[int]) -> None:
    """Of the people of a cluster, all clearly belong but 1 in 2 + its number."""
    rows = {
        "cluster_id": [number for number, size in enumerate(sizes) for _ in range(size)],
        "confidence": [
            0.01 if n % (2 + number) == 0 else 0.4 for number, size in enumerate(sizes) for n in range(size)
        ],
    }
    schema = pa.schema([("cluster_id", pa.int32()), ("confidence", pa.float64())])
    pq.write_table(pa.table(rows, schema), folder / "assignments.parquet")


def make_k_selection(folder: Path, k: int = 4, users: int = 10_944, verdict: str = "segments") -> str:
    """An output of k_selection that chose k."""
    tried = [
        {
            "k": tried,
            "wssse": 300.0 / tried,
            "silhouette": None if tried == 1 else 0.5 - 0.03 * abs(tried - k),
            "calinski_harabasz": None,
            "prediction": 0.32 - 0.008 * abs(tried - k) - 0.3 * max(0, 1 - (tried - 1) / max(1, k - 1)),
            "smallest_segment": users // (2 * tried),
        }
        for tried in range(1, 13)
    ]
    summary = {
        "verdict": verdict,
        "k": k,
        "why": f"{users} people",
        "criterion": "prediction",
        "evidence": {"segments": 36.7, "none": 0.6}.get(verdict),
        "evidence_needed": 3.5,
        "false_alarm_rate": 0.01,
        "people": users // 3,
        "people_judged": users // 3,
        "tried": [] if verdict == "too_few" else tried,
    }
    folder.mkdir(parents=True)
    (folder / "k.json").write_text(json.dumps(summary))
    manifest = {
        "step": "k_selection",
        "fingerprint": "b" * 32,
        "inputs": ["a" * 32],
        "files": [{"path": "k.json", "bytes": (folder / "k.json").stat().st_size}],
        "config": KSelectionConfig().model_dump(mode="json"),
        "summary": {**summary, "users": users},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return str(folder)


def _actions(people: int, likes: float) -> dict[str, Any]:
    """A mix of actions in which so much are page likes; hardly anybody comments on pages."""
    parts = {
        "page_like": likes,
        "page_comment": 0.0,
        "post_like": 0.75 * (1 - likes),
        "post_comment": 0.25 * (1 - likes),
    }
    doing = {action: people // 2 if part else 5 for action, part in parts.items()}
    millionths = {action: round(people * part * action_mix.UNIT) for action, part in parts.items()}
    return action_mix.publish(action_mix.Mix(people, doing, millionths), MIN_PEOPLE)


def _sizes(users: int, k: int) -> list[int]:
    weights = [1 / (2 + cluster) for cluster in range(k)]
    sizes = [int(users * weight / sum(weights)) for weight in weights]
    sizes[0] += users - sum(sizes)
    return sizes


def _row(cluster: int, page: int, name: str, on: list[list[int]], sizes: list[int], k: int) -> dict[str, Any]:
    people, size = on[cluster][page], sizes[cluster]
    rest, others = sum(row[page] for row in on) - people, sum(sizes) - size
    lift = (people / max(1, size)) / max(1e-9, rest / max(1, others)) if k > 1 and rest else None
    spread = 1 + 2 / max(1, people) ** 0.5
    return {
        "cluster_id": cluster,
        "dimension_id": f"page{page}",
        "dimension_name": name,
        "people": published.count(people, MIN_PEOPLE),
        "share": published.share(people, size, MIN_PEOPLE),
        "rest_people": published.count(rest, MIN_PEOPLE),
        "rest_share": published.share(rest, others, MIN_PEOPLE),
        "month_share": None,
        "lift": None if lift is None else float(f"{lift:.2g}"),
        "lift_low": None if lift is None else float(f"{lift / spread:.2g}"),
        "lift_high": None if lift is None else float(f"{lift * spread:.2g}"),
        "z": None if lift is None else round((lift - 1) * people**0.5, 1),
        "distinctive": bool(lift is not None and lift / spread > 1.2 and people >= MIN_PEOPLE),
    }


def _comparisons(rows: list[dict[str, Any]], on: list[list[int]], sizes: list[int]) -> list[dict[str, Any]]:
    """Each segment against everybody and each other one, by its pages that enough people are on."""
    k, everybody = len(sizes), [sum(of_page) for of_page in zip(*on, strict=True)]
    said = [row for row in rows if k > 1 and row["people"] is not None]
    return [
        _comparison(row, other, on[other] if other is not None else everybody, sizes)
        for cluster in range(k)
        for other in [None, *(other for other in range(k) if other != cluster)]
        for row in said
        if row["cluster_id"] == cluster
    ]


def _comparison(row: dict[str, Any], other: int | None, on: list[int], sizes: list[int]) -> dict[str, Any]:
    people, size = on[int(row["dimension_id"].removeprefix("page"))], sum(sizes) if other is None else sizes[other]
    share = published.share(people, size, MIN_PEOPLE)
    lift = row["share"] / share if share else None
    return {
        **{name: row[name] for name in ("cluster_id", "dimension_id", "dimension_name", "people", "share")},
        "baseline": "everybody" if other is None else "segment",
        "baseline_cluster_id": other,
        "baseline_people": published.count(people, MIN_PEOPLE),
        "baseline_share": share,
        **{
            name: None if lift is None else published.ratio(times * lift)
            for name, times in (("lift", 1), ("lift_low", 0.9), ("lift_high", 1.1))
        },
        "z": None if lift is None else published.z_score((lift - 1) * 10),
        "distinctive": lift is not None and lift > 1.25,
    }


def _segment(
    cluster: int, rows: list[dict[str, Any]], sizes: list[int], users: int, draw: random.Random
) -> dict[str, Any]:
    own = sorted(
        (row for row in rows if row["cluster_id"] == cluster and row["distinctive"]), key=lambda row: -row["z"]
    )
    names = [row["dimension_name"] for row in own[:2]]
    stability = (0.97, 0.92, 0.7, 0.5)[cluster % 4]
    return {
        "cluster_id": cluster,
        "name": "Everybody" if len(sizes) == 1 else " & ".join(names) or f"Others {cluster}",
        "people": published.count(sizes[cluster], MIN_PEOPLE),
        "share": published.share(sizes[cluster], users, MIN_PEOPLE),
        "stability": stability,
        "solidity": "solid" if stability > 0.75 else "fair" if stability > 0.6 else "doubtful",
        "activity": {"quartile_1": 2, "median": 5, "quartile_3": draw.randint(9, 20)},
        "actions": _actions(sizes[cluster], (0.72, 0.5, 0.3)[cluster % 3]),
        "gender": {"0": 0.12, "f": 0.48, "m": 0.4},
        "distinctive": [
            {
                **{name: row[name] for name in ("dimension_id", "dimension_name", "people", "share")},
                "rest_share": row["rest_share"],
                "lift": row["lift"],
                "low": row["lift_low"],
                "high": row["lift_high"],
            }
            for row in own[:8]
        ],
        "typical": [row["dimension_name"] for row in own[:4]],
    }
