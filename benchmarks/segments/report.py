"""The page of tables: what was found by design, where there was nothing to find, in real months, and the aims."""

import platform
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.segments.designs import DESIGNS, Design
from benchmarks.segments.peers import PEERS

Row = dict[str, Any]

MIN_PEOPLE, MIN_SHARE = 10, 0.02  # of `min_segment`


def line(row: Row) -> str:
    """One row as progress."""
    ours = row["ours"]
    aris = [f"{name} {row[f'ari_{name}']:.2f}" for name in ("ours", "ours_true_k", "em") if f"ari_{name}" in row]
    others = [f"{name} {found['k']}" for name, found in row.get("peers", {}).items()]
    true = f" of {row['true_k']}" if "true_k" in row else ""
    found = f"{ours['verdict']} k {ours['k']}{true} in {ours['seconds']:.1f} s"
    return " | ".join([f"{row['kind']} {row['name']} #{row['seed']}", found, *aris, *others])


def page(content: Row) -> str:
    """All tables, as Markdown."""
    rows = content["rows"]
    parts = [
        "# Segments that are really there",
        f"`python -m benchmarks.segments`, {len(rows)} sets in {content['seconds'] / 60:.1f} minutes "
        f"({platform.machine()}, Python {platform.python_version()}, seeds 0 to {content['seeds'] - 1}).",
        "## Aims",
        _aims(rows),
        "## Structured designs",
        _structured(rows),
        "## Sets without structure",
        _false_structure(rows),
        "## Last.fm, 2011-05",
        _lastfm(rows),
        "## ansible, by month",
        _ansible(rows),
        "## Cost at a given k",
        _costs(rows),
        "## Seconds a set",
        _seconds(rows),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


# --- aims


def _aims(rows: list[Row]) -> str:
    structured, nulls = [row for row in rows if row.get("true_k", 1) > 1], _nulls(rows)
    exact, near = _share(structured, _exact(_ours)), _share(structured, _within_one)
    false = _share(nulls, _claims(_ours))
    ratios = {design.name: _ratio(_of(rows, design), "em") for design in DESIGNS if _pareto(design)}
    strict = {name: _ratio(_of(rows, name), "em_log1p") for name in ratios}
    false_met = false <= 0.05 and len(nulls) >= 200
    lines = [
        ("exact k, structured designs", "≥ 85 %", _percent(exact), exact >= 0.85),
        ("within one", "≥ 95 %", _percent(near), near >= 0.95),
        ("false structure", "≤ 5 % of ≥ 200", f"{_percent(false)} of {len(nulls)}", false_met),
        ("ARI ÷ EM's, the lowest of any Pareto design", "≥ 0.95", *_lowest(ratios)),
        ("the same, EM on log1p counts (bursts)", "no aim", _lowest(strict)[0], None),
        ("Last.fm: smallest and largest segment", "2 to 50 %", *_lastfm_aim(rows)),
        ("cost at a given k ÷ scikit-learn's best of 3 × the inits, the highest", "≤ 1", *_cost_aim(rows)),
        ("ansible months whose segments pass `min_segment`, or are none", "all", *_ansible_aim(rows)),
    ]
    return table(
        ("what", "aim", "found", "met"),
        [(what, aim, found, {True: "yes", False: "no", None: ""}[met]) for what, aim, found, met in lines],
    )


def _lowest(ratios: dict[str, float]) -> tuple[str, bool | None]:
    known = {name: ratio for name, ratio in ratios.items() if not np.isnan(ratio)}
    if not known:
        return "not run", None
    name = min(known, key=lambda each: known[each])
    return f"{known[name]:.3f} ({name})", known[name] >= 0.95


def _lastfm_aim(rows: list[Row]) -> tuple[str, bool | None]:
    for row in rows:
        if row["kind"] == "real" and "Last.fm" in row["name"]:
            shares = np.array(row["ours"]["sizes"]) / row["people"]
            found = f"{_percent(shares.min())} to {_percent(shares.max())}"
            return found, bool(len(shares) > 1 and shares.min() >= MIN_SHARE and shares.max() <= 0.5)
    return "not run", None


def _ansible_aim(rows: list[Row]) -> tuple[str, bool | None]:
    months = [row for row in rows if row["kind"] == "real" and "ansible" in row["name"]]
    good = [row for row in months if row["ours"]["k"] == 1 or _passes(row)]
    return (f"{len(good)} of {len(months)}", len(good) == len(months)) if months else ("not run", None)


def _cost_aim(rows: list[Row]) -> tuple[str, bool | None]:
    ratios = [_cost_ratio(cost) for row in rows for cost in row.get("costs", ())]
    return (f"{max(ratios):.5f}", max(ratios) <= 1 + 1e-9) if ratios else ("not run", None)


def _cost_ratio(cost: Row) -> float:
    """1 where both are 0: as many clusters as profiles."""
    return float(cost["cost"] / cost["sklearn"]) if cost["sklearn"] > 1e-9 else 1.0


def _passes(row: Row) -> bool:
    return bool(min(row["ours"]["sizes"]) >= max(MIN_PEOPLE, MIN_SHARE * row["people"]))


# --- tables


def _structured(rows: list[Row]) -> str:
    """A row a design, and one of all."""
    seen = [(design, _of(rows, design)) for design in DESIGNS if design.structured]
    lines = [_design_line(design.name, str(design.k), found) for design, found in seen if found]
    everything = [row for _, found in seen for row in found]
    if len(lines) > 1:
        lines.append(_design_line("**all**", "", everything))
    draws = max((sum(1 for row in found if row["peers"]) for _, found in seen), default=0)
    text = "Exact k and within one: shares of the draws. ARI: of the users with at least 5 actions, by the k that ours \
chose, and given the true k, as EM is. EM: a mixture of multinomials on the counts, and where there are bursts on\
 log(1 + count). Ratio: ours \
÷ EM on the counts."
    if draws:
        text += f" The peers' columns are their shares of exact k, on seeds 0 to {draws - 1}."
    names = [peer.name for peer in PEERS] if draws else []
    head = ("design", "k", "exact k", "within 1", "ARI ours", "at true k", "ARI EM", "EM log1p", "ratio", *names)
    return text + "\n\n" + table(head, lines)


def _design_line(name: str, k: str, found: list[Row]) -> tuple[str, ...]:
    aris = [_number(_mean(found, f"ari_{what}")) for what in ("ours", "ours_true_k", "em", "em_log1p")]
    shares = [_percent(_share(found, _exact(_ours))), _percent(_share(found, _within_one))]
    return (name, k, *shares, *aris, _number(_ratio(found, "em")), *_of_peers(found, _exact))


def _false_structure(rows: list[Row]) -> str:
    """A row a kind of null, and one of all."""
    groups: dict[str, list[Row]] = {}
    for row in _nulls(rows):
        name = row["name"] if row["kind"] == "design" else "shuffled " + _source(row["name"])
        groups.setdefault(name, []).append(row)
    lines = [_null_line(name, found) for name, found in groups.items()]
    lines.append(_null_line("**all**", _nulls(rows)))
    peers = any(row["peers"] for row in _nulls(rows))
    head = ("sets", "how many", "busy users", "segments found", "too few", *([p.name for p in PEERS] if peers else []))
    text = "Shares in which segments are claimed, and in which ours says that there are too few people to tell."
    if peers:
        text += " The peers saw fewer of the sets; predecessor, silhouette and nselectboot cannot say 1."
    return text + "\n\n" + table(head, lines)


def _null_line(name: str, found: list[Row]) -> tuple[str, ...]:
    busy = [row["busy"] for row in found]
    people = f"{min(busy):,} to {max(busy):,}" if busy else "–"
    few = _share(found, lambda row: row["ours"]["verdict"] == "too_few")
    claimed = _percent(_share(found, _claims(_ours)))
    return (name, str(len(found)), people, claimed, _percent(few), *_of_peers(found, _claims))


def _source(name: str) -> str:
    """Months of few people are one row of the table."""
    small = name.startswith("ansible") or (name.startswith("Last.fm") and "2011-05" not in name)
    return name.rsplit(" ", 1)[0] + (" by month" if small else " " + name.rsplit(" ", 1)[1])


def _lastfm(rows: list[Row]) -> str:
    for row in rows:
        if row["kind"] == "real" and "Last.fm" in row["name"]:
            ours, pages = row["ours"], row.get("distinctive", [])
            text = f"`{ours['verdict']}`, k = {ours['k']}, {row['people']:,} listeners, {ours['seconds']:.1f} s. "
            text += "The most distinctive artists are by log-odds with a Dirichlet prior, on who listens."
            shares = [_percent(size / row["people"]) for size in ours["sizes"]]
            lines = [(share, ", ".join(names)) for share, names in zip(shares, pages, strict=False)]
            return text + "\n\n" + table(("listeners", "most distinctive artists"), lines)
    return "Not run."


def _ansible(rows: list[Row]) -> str:
    months = [row for row in rows if row["kind"] == "real" and "ansible" in row["name"]]
    lines = []
    for row in months:
        category, month = row["name"].split()[1:]
        sizes = ", ".join(str(size) for size in row["ours"]["sizes"])
        facts = (str(row["people"]), str(row["busy"]), row["ours"]["verdict"], str(row["ours"]["k"]))
        lines.append((category, month, *facts, sizes))
    head = ("category", "month", "users", "with 5 actions", "verdict", "k", "sizes")
    return table(head, lines) if lines else "Not run."


def _costs(rows: list[Row]) -> str:
    """A row a source of data."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name = _source(row["name"]) if row["kind"] == "real" else "designs"
        groups.setdefault(name, []).extend(row.get("costs", ()))
    lines = []
    for name, costs in groups.items():
        if costs:
            ratios = np.array([_cost_ratio(cost) for cost in costs])
            above = f"{int((ratios > 1 + 1e-9).sum())} of {len(costs)}"
            seconds = [np.mean([cost[what] for cost in costs]) for what in ("seconds", "sklearn_seconds")]
            lines.append((name, above, f"{ratios.mean():.5f}", f"{ratios.max():.5f}", *(f"{s:.3f}" for s in seconds)))
    text = "k-means by default at each of some k, beside scikit-learn's best of three times as many inits on the same \
weighted profiles."
    head = ("data", "above scikit-learn", "mean ratio", "highest ratio", "seconds", "scikit-learn's")
    return text + "\n\n" + table(head, lines) if lines else "Not run."


def _seconds(rows: list[Row]) -> str:
    """Mean and longest, in one process of one thread."""
    of = {"ours": [row["ours"]["seconds"] for row in rows]}
    of |= {name: [row[f"{name}_seconds"] for row in rows if f"{name}_seconds" in row] for name in ("em", "em_log1p")}
    for peer in PEERS:
        of[peer.name] = [row["peers"][peer.name]["seconds"] for row in rows if peer.name in row.get("peers", {})]
    lines = [(name, f"{np.mean(times):.2f}", f"{max(times):.1f}") for name, times in of.items() if times]
    return table(("what", "mean", "longest"), lines)


# --- counting

Chosen = Callable[[Row], int | None]


def _ours(row: Row) -> int | None:
    return int(row["ours"]["k"])


def _peer(name: str) -> Chosen:
    return lambda row: row["peers"].get(name, {}).get("k")


def _exact(chosen: Chosen) -> Callable[[Row], bool | None]:
    return lambda row: None if chosen(row) is None else chosen(row) == row["true_k"]


def _claims(chosen: Chosen) -> Callable[[Row], bool | None]:
    return lambda row: None if (k := chosen(row)) is None else k > 1


def _within_one(row: Row) -> bool:
    return bool(abs(row["ours"]["k"] - row["true_k"]) <= 1)


def _of_peers(found: list[Row], what: Callable[[Chosen], Callable[[Row], bool | None]]) -> Iterable[str]:
    if not any(row["peers"] for row in found):
        return []
    return [_percent(_share(found, what(_peer(peer.name)))) for peer in PEERS]


def _share(rows: list[Row], of: Callable[[Row], bool | None]) -> float:
    """Of the rows that can say."""
    known = [answer for row in rows if (answer := of(row)) is not None]
    return float(np.mean(known)) if known else float("nan")


def _mean(rows: list[Row], name: str) -> float:
    known = [row[name] for row in rows if name in row]
    return float(np.mean(known)) if known else float("nan")


def _ratio(rows: list[Row], mixture: str) -> float:
    """Mean ARI of ours ÷ the mixture's."""
    return _mean(rows, "ari_ours") / _mean(rows, f"ari_{mixture}")


def _of(rows: list[Row], design: Design | str) -> list[Row]:
    name = design if isinstance(design, str) else design.name
    return [row for row in rows if row["kind"] == "design" and row["name"] == name]


def _nulls(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.get("true_k") == 1]


def _pareto(design: Design) -> bool:
    return design.structured and design.activity == "pareto"


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.0f} %" if share in (0, 1) else f"{100 * share:.1f} %"


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
