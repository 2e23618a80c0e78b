"""How sure a report is: the verdict, the curve of what was tried, and whom segments were found from."""

from collections.abc import Mapping
from typing import Any

from spark_jobs.audience_report import curves
from spark_jobs.audience_report.cards import counted
from spark_jobs.audience_report.tables import Table
from spark_jobs.clusters import published
from spark_jobs.outputs import Manifest

_CLEARLY = 2.0  # times the evidence that is needed
_PREDICTION = "prediction"
_BY_SCORE = {
    _PREDICTION: "How well segments that are seen on half of the pages predict the other half; 0 is no better than"
    " popularity alone."
}
_AT_LEAST = {_PREDICTION: (0.0, 0.1)}  # what the scale has: in a smaller one, differences of nothing look like a cliff
_SCORES = {
    "prediction": _PREDICTION,
    "silhouette": "silhouette",
    "calinski_harabasz": "Calinski-Harabasz index",
    "elbow": "distance to the centers",
}


def verdict(summary: Mapping[str, Any], k_selection: Manifest | None, min_people: int, parts: bool) -> list[str]:
    """How sure it is, in plain words."""
    if k_selection is None:
        return [] if summary["verdict"] else ["Whether there are segments, and how many, was not checked: k was given."]
    if summary["verdict"] == "too_few":
        return []  # what is to be said is said first
    told = [_how_sure(summary["verdict"], k_selection["summary"])]
    if summary["verdict"] == "segments":
        told.append("How many there are is less sure than that there are some.")
    if parts:
        told.append("The number below is that of the groups that were found; some of them are parts of one segment.")
    told.append(f"Of all, {judged(k_selection, min_people)} to judge by.")
    return told


def _how_sure(verdict: str, chosen: Mapping[str, Any]) -> str:
    evidence, needed = chosen.get("evidence"), float(chosen.get("evidence_needed") or 0)
    if verdict == "segments":
        if evidence is None:
            return "There are segments."
        very, far = ("Very sure", "far more") if evidence >= _CLEARLY * needed else ("Sure", "more")
        return f"{very} that there are segments: what people like hangs together {far} than chance would do."
    if evidence is None:
        return "It takes more pages to see segments, or any number of them would leave one with too few people."
    if evidence < needed:
        return "No sign of segments: the pages hang together no more than chance could do."
    return "What people like hangs together a little, but what is popular says as much about it as segments would."


def judged(k_selection: Manifest, min_people: int) -> str:
    """How many people did enough, such as `about 10 did enough (8 or more likes or comments each)`."""
    judged = published.count(int(k_selection["summary"]["people_judged"]), min_people)
    least = int(k_selection["config"]["fit_min_actions"])
    often = f" ({least} or more likes or comments each)" if least > 1 else ""
    return f"{f'about {judged:,}' if judged is not None else f'fewer than {min_people}'} did enough{often}"


def statistics(chosen: Mapping[str, Any]) -> str:
    """The evidence in figures; empty where nothing was measured."""
    evidence, needed = chosen.get("evidence"), chosen.get("evidence_needed")
    if evidence is None:
        return ""
    return (
        f"The evidence that there are segments is {round(evidence, 1) + 0.0:.1f}, in standard errors; {needed:.1f} is"
        f" what at most 1 in {1 / chosen['false_alarm_rate']:.0f} audiences without segments reach."
    )


def found_from(learned: Mapping[str, Any], users: int, min_people: int) -> str:
    """Whom the segments were found from, if not everybody."""
    number = published.count(int(learned["users"]), min_people)
    if number is None or not learned["min_actions"] or learned["users"] >= users:
        return ""
    return (
        f"The segments were found from the {number:,} most active people ({learned['min_actions']} or more likes or"
        " comments); the others were put into the segment that they fit best."
    )


def curve_of(chosen: Mapping[str, Any]) -> "curves.Curve | None":
    """The curve of what was tried; None of fewer than two numbers of segments."""
    score = _score_of(chosen)
    points = [(row["k"], row[score]) for row in chosen["tried"] if row.get(score) is not None]
    if len(points) < 2:
        return None
    return curves.curve(points, int(chosen["k"]), _SCORES[chosen["criterion"]], _AT_LEAST.get(chosen["criterion"]))


def _score_of(chosen: Mapping[str, Any]) -> str:
    return "wssse" if chosen["criterion"] == "elbow" else str(chosen["criterion"])


def tried(chosen: Mapping[str, Any], min_people: int) -> Table:
    """The numbers of segments that were tried, with their scores."""
    scores = list(dict.fromkeys([_score_of(chosen), "silhouette"]))
    rows = [
        [
            row["k"],
            # Without the sign that -0.0 has.
            *(None if row.get(score) is None else round(row[score], 3) + 0.0 for score in scores),
            counted(published.count(int(row["smallest_segment"]), min_people), min_people),
        ]
        for row in chosen["tried"]
    ]
    return Table("number-of-segments", ["k", *scores, "smallest segment"], rows)


def curve_caption(curve: curves.Curve) -> str:
    """What the curve shows."""
    by = _BY_SCORE.get(curve.score, f"The {curve.score} by number of segments.")
    return f"{by} The filled dot is the number that was taken."
