"""What was measured: kept in a JSON file as it comes, and shown as a Markdown page."""

import itertools
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks import contenders
from benchmarks.scenarios import Case

Row = dict[str, Any]  # of a scenario, a size and a contender: its runs, and the digest of its output

_PACKAGES = ("pyspark", "duckdb", "polars", "scikit-learn", "numpy", "scipy", "pyarrow")


class Results:
    """The results file: what is measured is added to what is there, so that long runs can be split and resumed."""

    def __init__(self, file: Path):
        self.file = file
        self.content: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"rows": []}
        self.content["machine"] = _machine()
        self.content["versions"] = _versions()

    @property
    def rows(self) -> list[Row]:
        rows: list[Row] = self.content["rows"]
        return rows

    def row(self, case: Case, contender: str) -> Row:
        """The row of a case and a contender, new if there is none."""
        of = {"scenario": case.scenario, "size": case.size, "contender": contender}
        for row in self.rows:
            if {name: row[name] for name in of} == of:
                return row
        row = {**of, "runs": [], "digest": None}
        self.rows.append(row)
        return row

    def forget(self, scenario: str) -> None:
        """Leave out what was measured of a scenario."""
        self.content["rows"] = [row for row in self.rows if row["scenario"] != scenario]

    def save(self) -> None:
        """Write the file, and the page beside it."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(self.content, indent=1) + "\n")
        unfinished.replace(self.file)
        self.file.with_suffix(".md").write_text(page(self.content))


def now() -> dict[str, Any]:
    """When something is measured, of which commit, and how busy the machine is with other things."""
    at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"at": at, "commit": _commit(), "load": round(os.getloadavg()[0], 2)}


def equal_to_ours(row: Row, rows: list[Row]) -> bool | None:
    """Whether a row's output equals ours, but for what a clustering costs; None where one of them has none."""
    ours = _of(rows, row["scenario"], row["size"], contenders.OURS)
    if ours is None or ours["digest"] is None or row["digest"] is None:
        return None
    one, other = ({name: value for name, value in of["digest"].items() if name != "wssse"} for of in (row, ours))
    return one == other


# --- the page --------------------------------------------------------------------------------------


def page(content: dict[str, Any]) -> str:
    """All results as Markdown."""
    machine, rows = content["machine"], content["rows"]
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    lines = [
        "# Benchmarks",
        "",
        f"{machine['cores']} cores ({machine['processor']}), {machine['memory_bytes'] / 2**30:.0f} GiB,"
        f" {machine['platform']}. {versions}.",
        "",
        "Made by `make bench`; how it is measured is in `benchmarks/README.md`. Seconds are the median of the runs,"
        " with the least and the most; × is how many times ours' median.",
        "",
        "| what | aim | measured | met |",
        "|---|---|---|---|",
        *(f"| {what} | {aim} | {found} | {'yes' if met else '**no**'} |" for what, aim, found, met in aims(rows)),
    ]
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        lines += ["", f"## {scenario}", ""]
        lines += [
            "| size | contender | seconds | × | CPU seconds | peak memory, GB | parts, seconds | wssse | output |"
        ]
        lines += ["|---|---|--:|--:|--:|--:|---|--:|---|"]
        lines += [_line(row, rows) for row in rows if row["scenario"] == scenario and row["runs"]]
    return "\n".join(lines) + "\n"


def _line(row: Row, rows: list[Row]) -> str:
    runs, size = row["runs"], ", ".join(f"{_number(value)} {name}" for name, value in row["size"].items())
    cells = [size.replace("social shape, ", "").replace("worst shape, ", ""), row["contender"]]
    if runs[-1]["ended"] != "well":
        after = f"{runs[-1]['ended']} after {runs[-1]['seconds']:,.0f} s"
        return f"| {' | '.join([*cells, after, '', '', f'{_peak(row):.2f}', '', '', ''])} |"
    seconds = [run["seconds"] for run in runs]
    spread = f" ({min(seconds):,.1f}–{max(seconds):,.1f})" if len(runs) > 1 else ""
    ours = _seconds(_of(rows, row["scenario"], row["size"], contenders.OURS))
    parts = ", ".join(f"{name} {median(run['parts'][name] for run in runs):,.1f}" for name in runs[0]["parts"])
    wssse = (row["digest"] or {}).get("wssse")
    same = {True: "equal", False: "**differs**", None: "unchecked"}[equal_to_ours(row, rows)]
    cells += [
        f"{median(seconds):,.1f}{spread}",
        f"{median(seconds) / ours:.2f}" if ours else "",
        f"{median(run['cpu_seconds'] for run in runs):,.1f}",
        f"{_peak(row):.2f}" + ("" if all(run["limited"] for run in runs) else ", unbounded"),
        parts,
        f"{wssse:.6g}" if wssse is not None else "",
        same,
    ]
    return f"| {' | '.join(cells)} |"


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _peak(row: Row) -> float:
    return float(max(run["peak_bytes"] for run in row["runs"]) / 1e9)


# --- the aims --------------------------------------------------------------------------------------

Aim = tuple[str, str, str, bool]  # what, how much, what was measured, whether it is met


def aims(rows: list[Row]) -> list[Aim]:
    """What this project aims for, at the sizes that were measured."""
    return [aim for find in _AIMS for aim in find(rows)]


def _group_social(rows: list[Row]) -> Iterator[Aim]:
    for size, of in _cases(rows, "group-social"):
        what = f"group by user, {size['actions']:,} `social` actions"
        yield from _faster(what, 4, of, contenders.SPARK.name)
        yield from _faster(what, 1, of, contenders.DUCKDB.name, contenders.POLARS.name)


def _group_worst(rows: list[Row]) -> Iterator[Aim]:
    for size, of in _cases(rows, "group-worst"):
        what = f"group by user, {size['actions']:,} `worst` actions in 6 GB"
        yield what, "finishes", of[contenders.OURS]["runs"][-1]["ended"], contenders.OURS in _timed(of)
        yield from _faster(what, 1, of, contenders.DUCKDB.name)


def _inputs(rows: list[Row]) -> Iterator[Aim]:
    for size, of in _cases(rows, "inputs"):
        if size["categories"] > 1:
            what = f"inputs of {size['categories']} categories"
            yield from _faster(what, 5, of, contenders.OursSingly.name)


def _kmeans(rows: list[Row]) -> Iterator[Aim]:
    spark = contenders.SPARK.name
    for size, of in _cases(rows, "kmeans"):
        what = f"k-means, {size['users']:,} users × {size['pages']} pages"
        seconds = _timed(of)
        if spark in seconds and contenders.OURS in seconds:
            ratio = seconds[spark] / seconds[contenders.OURS]
            making = median(run["parts"]["vectors"] for run in of[spark]["runs"])
            without = (seconds[spark] - making) / seconds[contenders.OURS]
            yield (
                what,
                f"≥ 20 × {spark}'s one init",
                f"{ratio:.1f} × ({without:.1f} × without making vectors)",
                ratio >= 20,
            )
            ours, theirs = ((of[name]["digest"] or {}).get("wssse") for name in (contenders.OURS, spark))
            if ours is not None and theirs is not None:
                yield what, f"wssse no higher than {spark}'s", f"{ours:.6g}, {theirs:.6g}", ours <= theirs
        yield from _faster(what, 2, of, contenders.SKLEARN_USERS.name)


def _kmeans_growth(rows: list[Row]) -> Iterator[Aim]:
    found = [(size["users"], _timed(of)) for size, of in _cases(rows, "kmeans-growth")]
    for (few, before), (many, after) in itertools.pairwise(found):
        if contenders.OURS in before and contenders.OURS in after:
            ratio = after[contenders.OURS] / before[contenders.OURS]
            yield f"k-means, {few:,} → {many:,} users", "≤ 3 × the time", f"{ratio:.2f} ×", ratio <= 3


def _month(rows: list[Row]) -> Iterator[Aim]:
    for size, of in _cases(rows, "month"):
        what = f"whole month, {size['actions']:,} actions, {size['categories']} categories"
        yield from _faster(what, 5, of, contenders.SPARK.name)
        yield from _faster(what, 1.5, of, contenders.DUCKDB.name, contenders.POLARS.name)


def _startup(rows: list[Row]) -> Iterator[Aim]:
    for _, of in _cases(rows, "startup"):
        seconds = _timed(of).get(contenders.OURS)
        if seconds is not None:
            yield "a job of 10 actions, from start to end", "≤ 4 s", f"{seconds:.1f} s", seconds <= 4


_AIMS = (_group_social, _group_worst, _inputs, _kmeans, _kmeans_growth, _month, _startup)


def _faster(what: str, times: float, of: dict[str, Row], *others: str) -> Iterator[Aim]:
    """The aim to be so many times as fast as the best of some others."""
    seconds = _timed(of)
    ran = {name: seconds[name] for name in others if name in seconds}
    if contenders.OURS not in seconds or not ran:
        return
    best = min(ran, key=lambda name: ran[name])
    ratio = ran[best] / seconds[contenders.OURS]
    yield what, f"≥ {times} × {' or '.join(others)}", f"{ratio:.2f} × {best}", ratio >= times


def _cases(rows: list[Row], scenario: str) -> Iterator[tuple[dict[str, Any], dict[str, Row]]]:
    """The sizes of a scenario of which ours was measured, each with its rows by contender."""
    for row in rows:
        if row["scenario"] == scenario and row["contender"] == contenders.OURS and row["runs"]:
            same = [other for other in rows if (other["scenario"], other["size"]) == (scenario, row["size"])]
            yield row["size"], {other["contender"]: other for other in same}


def _timed(of: dict[str, Row]) -> dict[str, float]:
    """The medians of the contenders that ended well."""
    seconds = {name: _seconds(row) for name, row in of.items()}
    return {name: value for name, value in seconds.items() if value is not None}


def _seconds(row: Row | None) -> float | None:
    if row is None or not row["runs"] or row["runs"][-1]["ended"] != "well":
        return None
    return float(median(run["seconds"] for run in row["runs"]))


def _of(rows: list[Row], scenario: str, size: dict[str, Any], contender: str) -> Row | None:
    return next(
        (row for row in rows if (row["scenario"], row["size"], row["contender"]) == (scenario, size, contender)), None
    )


# --- where it was measured -------------------------------------------------------------------------


def _machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": models[0] if models else platform.machine(),
        "memory_bytes": psutil.virtual_memory().total,
        "platform": platform.platform(),
    }


def _versions() -> dict[str, str]:
    versions = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> str:
    told = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    done = subprocess.run(told, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
