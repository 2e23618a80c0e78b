"""What is measured: steps and whole months, each at some sizes, by some contenders."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import actions, contenders, equal, measure
from benchmarks.contenders import Command, Contender
from benchmarks.peers import CATEGORY_FILE

K = 12
ALL = (contenders.Ours(), contenders.SPARK, contenders.DUCKDB, contenders.POLARS)
_OURS = (contenders.Ours(),)


@dataclass(frozen=True)
class Sizes:
    """How large the scenarios are; as large as they are in results.md by default."""

    actions: int = 20_000_000
    worst_actions: int = 100_000_000
    users: int = 5_000_000
    categories: tuple[int, ...] = (1, 10, 30)
    growth_actions: tuple[int, ...] = (1_000_000, 10_000_000, 100_000_000, 300_000_000)
    growth_categories: tuple[int, ...] = (1, 3, 10, 30, 100)


QUICK = Sizes(100_000, 100_000, 20_000, (2,), (10_000, 100_000), (1, 3))


@dataclass(frozen=True)
class Case:
    """One thing that is measured."""

    scenario: str
    size: dict[str, Any]  # what tells it from the scenario's other cases
    contenders: Sequence[Contender]
    commands: Callable[[Contender, Path, int], list[Command]]  # of an output folder, and bytes of memory
    digest: Callable[[Path], equal.Digest]
    memory: int | None = field(default=None)  # its own bound, where it is not everyone's


class Data:
    """Where generated data is kept, so that it is made once."""

    def __init__(self, folder: Path):
        self.folder = folder

    def actions(self, shape: str, number: int) -> Path:
        """Raw actions and categories."""

        def make(folder: Path) -> None:
            actions.generate(folder, shape, number)

        return self._made(f"{shape}-{number}", make)

    def users(self, number: int) -> Path:
        """Grouped users of so many `social` actions, made by ours, whose output all contenders read."""
        raw = self.actions("social", number) / f"month={actions.MONTH}"

        def make(folder: Path) -> None:
            _run(contenders.Ours().group(raw, folder, 0))

        return self._made(f"social-{number}-users", make)

    def inputs(self, users: int) -> Path:
        """Clustering inputs of so many `social` users, who act on nothing but the 120 pages of one category."""

        def make(folder: Path) -> None:
            actions.generate(folder, "social", 4 * users, users, actions.PAGES_OF_WIDE, categories=0)
            category = folder / "categories" / f"{actions.WIDE}.json"
            _run(contenders.Ours().group(folder / f"month={actions.MONTH}", folder / "users", 0))
            _run(contenders.Ours().inputs(folder / "users", folder, [category], 0))
            shutil.copy(category, folder / actions.WIDE / CATEGORY_FILE)

        return self._made(f"kmeans-{users}", make) / actions.WIDE

    def categories(self, shape: str, number: int, wanted: int) -> list[Path]:
        """The first category files that belong to some raw actions."""
        return sorted((self.actions(shape, number) / "categories").glob("c*.json"))[:wanted]

    def _made(self, name: str, make: Callable[[Path], None]) -> Path:
        folder, unfinished = self.folder / name, self.folder / f"{name}-unfinished"
        if not folder.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished)
            unfinished.rename(folder)
        return folder


def cases(scenario: str, sizes: Sizes, data: Data) -> list[Case]:
    """The cases of a scenario; their data is made when their commands are asked for."""
    return SCENARIOS[scenario](scenario, sizes, data)


def _group_social(scenario: str, sizes: Sizes, data: Data) -> list[Case]:
    return [_group(scenario, "social", sizes.actions, data, ALL)]


def _group_worst(scenario: str, sizes: Sizes, data: Data) -> list[Case]:
    return [_group(scenario, "worst", sizes.worst_actions, data, ALL, memory=6 * 10**9)]


def _startup(scenario: str, sizes: Sizes, data: Data) -> list[Case]:  # noqa: ARG001
    return [_group(scenario, "social", 10, data, ALL)]


def _group_growth(scenario: str, sizes: Sizes, data: Data) -> list[Case]:
    return [_group(scenario, "social", number, data, _OURS) for number in sizes.growth_actions]


def _group(
    scenario: str, shape: str, number: int, data: Data, who: Sequence[Contender], memory: int | None = None
) -> Case:
    def commands(contender: Contender, out: Path, memory: int) -> list[Command]:
        return contender.group(data.actions(shape, number) / f"month={actions.MONTH}", out, memory)

    return Case(scenario, {"shape": shape, "actions": number}, who, commands, equal.grouped_users, memory)


def _inputs(scenario: str, sizes: Sizes, data: Data) -> list[Case]:
    return [
        _inputs_of(scenario, sizes.actions, number, data, (*ALL, contenders.OursSingly()))
        for number in sizes.categories
    ]


def _inputs_growth(scenario: str, sizes: Sizes, data: Data) -> list[Case]:
    return [_inputs_of(scenario, sizes.actions, number, data, _OURS) for number in sizes.growth_categories]


def _inputs_of(scenario: str, number: int, categories: int, data: Data, who: Sequence[Contender]) -> Case:
    def commands(contender: Contender, out: Path, memory: int) -> list[Command]:
        return contender.inputs(data.users(number), out, data.categories("social", number, categories), memory)

    return Case(scenario, {"actions": number, "categories": categories}, who, commands, _inputs_digest)


def _inputs_digest(out: Path) -> equal.Digest:
    return {folder.name: equal.clustering_inputs(folder) for folder in sorted(out.iterdir())}


def _kmeans(scenario: str, sizes: Sizes, data: Data) -> list[Case]:
    who = (contenders.Ours(), contenders.SPARK, contenders.SKLEARN_USERS, contenders.SKLEARN_PROFILES)
    return [_kmeans_of(scenario, sizes.users, data, who)]


def _kmeans_growth(scenario: str, sizes: Sizes, data: Data) -> list[Case]:
    return [_kmeans_of(scenario, users, data, _OURS) for users in (sizes.users // 10, sizes.users)]


def _kmeans_of(scenario: str, users: int, data: Data, who: Sequence[Contender]) -> Case:
    def commands(contender: Contender, out: Path, memory: int) -> list[Command]:
        return contender.kmeans(data.inputs(users), out, K, memory)

    def digest(out: Path) -> equal.Digest:
        return equal.clustering(data.inputs(users), out)

    return Case(scenario, {"users": users, "pages": actions.PAGES_OF_WIDE, "k": K}, who, commands, digest)


def _month(scenario: str, sizes: Sizes, data: Data) -> list[Case]:
    def case(categories: int) -> Case:
        def commands(contender: Contender, out: Path, memory: int) -> list[Command]:
            files = data.categories("social", sizes.actions, categories)
            raw = data.actions("social", sizes.actions) / f"month={actions.MONTH}"
            return contender.month(raw, out, files, K, memory)

        return Case(
            scenario, {"actions": sizes.actions, "categories": categories, "k": K}, ALL, commands, _month_digest
        )

    return [case(number) for number in sizes.categories]


def _month_digest(out: Path) -> equal.Digest:
    clusterings = [
        equal.clustering(folder, out / "kmeans" / folder.name) for folder in sorted((out / "inputs").iterdir())
    ]
    return {
        "users": equal.grouped_users(out / "users"),
        "inputs": _inputs_digest(out / "inputs"),
        "clusters": [{name: value for name, value in one.items() if name != "wssse"} for one in clusterings],
        "wssse": sum(one["wssse"] for one in clusterings),
    }


SCENARIOS: dict[str, Callable[[str, Sizes, Data], list[Case]]] = {
    "group-social": _group_social,
    "group-worst": _group_worst,
    "inputs": _inputs,
    "kmeans": _kmeans,
    "kmeans-growth": _kmeans_growth,
    "month": _month,
    "startup": _startup,
    "group-growth": _group_growth,
    "inputs-growth": _inputs_growth,
}


def run(commands: Sequence[Command], memory: int | None, timeout: float | None) -> dict[str, Any]:
    """Run a contender's commands one after another: seconds add up, and memory is that of the largest."""
    total: dict[str, Any] = {"seconds": 0.0, "cpu_seconds": 0.0, "peak_bytes": 0, "ended": "well", "parts": {}}
    for command in commands:
        measured = measure.run(command, memory, timeout)
        total["seconds"] += measured.seconds
        total["cpu_seconds"] += measured.cpu_seconds
        total["peak_bytes"] = max(total["peak_bytes"], measured.peak_bytes)
        total["limited"] = measured.limited
        total["parts"].update(_parts(measured.stdout))
        if measured.ended != "well":
            total["ended"] = measured.ended
            total["last_words"] = measured.last_words
            break
    return total


def _parts(stdout: str) -> dict[str, float]:
    """What a peer printed last: the seconds of the parts of its work."""
    lines = stdout.splitlines()
    try:
        parts: dict[str, float] = json.loads(lines[-1])["parts"]
    except (IndexError, ValueError, KeyError, TypeError):
        return {}
    return parts


def _run(commands: Sequence[Command]) -> None:
    made = run(commands, memory=None, timeout=None)
    if made["ended"] != "well":
        raise RuntimeError(f"the data could not be made: {made['last_words']}")
