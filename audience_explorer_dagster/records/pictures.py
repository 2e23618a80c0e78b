"""Small pictures for the asset's page, as Markdown with the PNG inside; each is a few kB."""

import base64
import io
import warnings
from typing import TYPE_CHECKING, Any

from audience_explorer_dagster.records import findings, people
from spark_jobs.clusters import published
from spark_jobs.terminal import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_CLUSTERS = 12
_COLOR = "#4f43dd"
_LEAST_SPAN = (-0.01, 0.05)  # of the predictions shown, so that noise looks like noise


def clusters(summary: dict[str, Any], min_people: int) -> str:
    """A bar a cluster, as long as it has people, with its name and how solid it is; the first dozen."""
    bars = _bars(summary, min_people)[:_MOST_CLUSTERS]
    figure, axes = _figure(height=0.4 + 0.42 * len(bars))
    places = range(len(bars))
    axes.barh(places, [length for length, _ in bars], color=_COLOR, height=0.34, align="edge")
    for place, (_, label) in zip(places, bars, strict=True):
        text = axes.text(0, place - 0.08, label, fontsize=7)
        text.set_in_layout(False)  # it may be longer than the longest bar
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)  # it would cross the texts, which begin there
    axes.set_ylim(len(bars), -0.5)
    return _markdown(figure, "the segments, their people, and how solid they are")


def _bars(summary: dict[str, Any], min_people: int) -> list[tuple[int, str]]:
    """The people of each segment, 0 for few, and its label."""
    bars = []
    for segment in summary.get("segments", ()):
        solidity = findings.solidity_of(segment, summary["k"])
        told = f"{findings.people_of(segment)} people{solidity and f', {solidity}'}"
        bars.append((segment["people"] or 0, f"{_plain(segment['name'])}: {told}"))
    if not bars:  # of code version 4 and before
        for cluster in summary["clusters"]:
            solidity = findings.solidity_of(cluster, summary["k"])
            users = f"{people.in_table(cluster['users'], min_people)} users{solidity and f', {solidity}'}"
            top = people.top_pages(cluster, min_people)[:3]
            pages = ", ".join(f"{_short(name)} {share:.0%}" for name, share in top)
            length = published.count(cluster["users"], min_people) or 0
            bars.append((length, f"{cluster['cluster_id']}: {users}. {pages}"))
    return bars


def tried_k(summary: dict[str, Any]) -> str:
    """The criterion's score over k, with the one chosen; none is, where there are no segments."""
    figure, axes = _figure(height=1.8)
    score = "wssse" if summary["criterion"] == "elbow" else summary["criterion"]
    points = [(row["k"], row[score]) for row in summary["tried"] if row[score] is not None]
    axes.plot([k for k, _ in points], [value for _, value in points], color=_COLOR, marker=".", linewidth=1)
    found = summary.get("verdict", findings.SEGMENTS) == findings.SEGMENTS
    if found:
        axes.axvline(summary["k"], color="gray", linewidth=0.8, linestyle="--")
    title = f"{score} by k"
    if score == "prediction":
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, _LEAST_SPAN[0]), max(high, _LEAST_SPAN[1]))
        axes.axhline(0, color="gray", linewidth=0.8)
        title += " (0: no better than popularity)"
    axes.set_title(f"{title}; {summary['k']} chosen" if found else f"{title}; no segments, none chosen", fontsize=8)
    axes.set_xlabel("k", fontsize=7)
    axes.locator_params(axis="x", integer=True)
    return _markdown(figure, "scores by k")


def _figure(height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, height), dpi=80, layout="tight")
    axes = figure.subplots()
    axes.tick_params(labelsize=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _markdown(figure: "Figure", alternative: str) -> str:
    from PIL import Image

    drawn = io.BytesIO()
    with warnings.catch_warnings():
        # Names may be in scripts that the font lacks, which then are boxes; the warning has them as they are.
        warnings.filterwarnings("ignore", r"(?s)Glyph .* missing from font")
        figure.savefig(drawn, format="png")
    small = io.BytesIO()
    # 16 colours are enough for bars and text, and a third of the bytes.
    Image.open(drawn).convert("RGB").quantize(16).save(small, format="png", optimize=True)
    return f"![{alternative}](data:image/png;base64,{base64.b64encode(small.getvalue()).decode()})"


def _short(name: str) -> str:
    return _plain(name if len(name) <= 22 else name[:21] + "…")


def _plain(text: str) -> str:
    return visible(text).replace("$", r"\$")  # it would start a formula
