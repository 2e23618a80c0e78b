"""The page of tables: how well events were found, and whether segments kept their ids."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.following.measure import Score
from benchmarks.following.series import KINDS

Row = dict[str, Any]  # a `Measured`, as JSON has it

_WHO = {
    "stay": "20 to 80 %, and it is known who",
    "unknown": "20 to 80 %, and it is not known who",
    "nobody": "nobody: no two months have a member in common",
}


def line(rows: Sequence[Row]) -> str:
    """A series as progress."""
    errors = [f"{row['who']}: {error}" for row in rows for error in row["score"]["errors"]]
    return f"{rows[0]['seed']}: {'; '.join(errors) or 'all right'}"


def page(rows: Sequence[Row]) -> str:
    """All tables, as Markdown."""
    seeds = sorted({row["seed"] for row in rows})
    parts = [
        "# Segments followed from month to month",
        f"`python -m benchmarks.following --series {len(seeds)} --first {min(seeds, default=0)}`: {len(seeds)} series ×"
        " 12 months, one missing. Thresholds were set by the series of seeds 0 to 49, none of which is here.",
        "Months are generated people, clustered by this project's own k-means, not known segments with noise. k is what"
        " `k_selection` chooses in one of 5 series, for that takes most of the time; in others it is wrong by one in 2"
        " of 5 months, by chance. An event counts if it is of the right kind and reported in the month that shows it,"
        " or in the next observed one.",
        "## All events",
        _all(rows),
        "## By kind of event",
        "F1 of each kind, how many planted events were found, and false ones. A `return` or `change` is never planted.",
        _by_kind(rows),
        "## By how many people stay",
        "Segments with the same id as before, of stable segment-months; over all k.",
        _by_staying(rows),
    ]
    return "\n\n".join(parts) + "\n"


def _total(rows: Sequence[Row], wanted: Callable[[Row], bool]) -> Score:
    total = Score()
    for row in filter(wanted, rows):
        score = dict(row["score"])
        for name in ("right", "missed", "false"):
            score[name] = Counter(score[name])
        total.add(Score(**score))
    return total


def _all(rows: Sequence[Row]) -> str:
    lines = [
        "| k | who stays | series | planted events | F1 (aim ≥ 0.90) | stable segment-months"
        " | false events in 100 (≤ 1) | same id (≥ 0.95) |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for chosen in (False, True):
        for who, words in _WHO.items():
            count = sum(row["who"] == who and row["chosen"] == chosen for row in rows)
            if not count:
                continue
            score = _total(rows, lambda row, who=who, chosen=chosen: (row["who"], row["chosen"]) == (who, chosen))
            k = "chosen" if chosen else "off by one in 2 of 5 months"
            planted = score.right.total() + score.missed.total()
            lines.append(
                f"| {k} | {words} | {count} | {planted} | {score.f1:.3f} | {score.stable} | {score.false_in_100:.2f} |"
                f" {score.identity:.3f} |"
            )
    return "\n".join(lines)


def _by_kind(rows: Sequence[Row]) -> str:
    lines = [f"| event | {' | '.join(_WHO.values())} |", "|---|---|---|---|"]
    scores = {who: _total(rows, lambda row, who=who: row["who"] == who) for who in _WHO}
    for kind in (*KINDS, "return", "change"):
        cells = [_kind(score, kind) for score in scores.values()]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _kind(score: Score, kind: str) -> str:
    right, missed, false = score.right[kind], score.missed[kind], score.false[kind]
    counts = f"{right} of {right + missed}, {false} false"
    wrong = missed + false
    return f"{2 * right / (2 * right + wrong):.3f} ({counts})" if kind in KINDS and right + wrong else counts


def _by_staying(rows: Sequence[Row]) -> str:
    lines = ["| people who stay | series | known who: same id | not known who: same id |", "|--:|--:|--:|--:|"]
    for staying in sorted({row["staying"] for row in rows}):
        of_staying = [row for row in rows if row["staying"] == staying]
        cells = []
        for who in ("stay", "unknown") if staying else ("nobody", "unknown"):
            score = _total(of_staying, lambda row, who=who: row["who"] == who)
            cells.append(f"{score.identity:.3f} of {score.stable}" if score.stable else "")
        lines.append(f"| {staying:.0%} | {len({row['seed'] for row in of_staying})} | {' | '.join(cells)} |")
    return "\n".join(lines)
