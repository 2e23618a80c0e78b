"""Rounds of kills: some commands that are killed, one that is left alone, and then what must be so."""

import fcntl
import json
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import psutil

from acceptance.backfill import is_alive, processes_of
from acceptance.conftest import PROJECT
from acceptance.torture import kills, outputs
from acceptance.torture.audience import MONTHS, TinyExplorer, make_audience

VICTIMS = ("command", "command", "command", "job", "job", "worker", "all", "all")
MOST_SECONDS = 2000  # of a command that is left alone, on a machine that is busy with much else
_MOST_KILLS = 8  # in a round


@dataclass
class Round:
    """What a round did, and what was wrong in the end."""

    name: str
    killed: Counter[tuple[str, str]] = field(default_factory=Counter)  # by victim and stage
    missed: list[kills.Kill] = field(default_factory=list)  # whose moment did not come before all was over
    violations: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0

    def line(self) -> str:
        """The round in a line."""
        who = [f"killed {victim} in {stage}" for victim, stage in self.killed.elements()]
        whom = ", ".join([self.name, *who, *(f"too late for {kill}" for kill in self.missed)])
        figures = ", ".join(f"{count} {name}" for name, count in self.figures.items())
        verdict = "BROKEN" if self.violations else "ok"
        return f"{whom}; {figures}; {self.seconds:.0f} s: {verdict}"


@dataclass(frozen=True)
class Undisturbed:
    """What comes out if nobody is killed, and how long that takes."""

    audience: Path
    records: Path  # a DAGSTER_HOME that has its tables
    results: dict[str, str]
    seconds: float


def run_undisturbed(folder: Path) -> Undisturbed:
    """Make the audience, and have its results once."""
    audience = folder / "audience"
    make_audience(audience)
    explorer = TinyExplorer(folder / "undisturbed", audience)
    explorer.command("audience-explorer", "home")
    explorer.command("audience-explorer", "categories", "sync")
    records = Path(shutil.copytree(explorer.home, folder / "records"))
    began = time.monotonic()
    explorer.command(*pipeline())
    seconds = time.monotonic() - began
    return Undisturbed(audience, records, outputs.results(explorer.root), seconds)


def pipeline(*arguments: str) -> list[str]:
    """The command line of a pipeline of all months."""
    months = [word for month in MONTHS for word in ("--month", month)]
    return ["audience-explorer", "pipeline", "--json", *months, *arguments]


def kill_round(folder: Path, undisturbed: Undisturbed, seed: str, most_kills: int = _MOST_KILLS) -> Round:
    """Kill commands of one root at random moments, then run one to its end."""
    chance = random.Random(seed)
    done, began = Round(seed), time.monotonic()
    # Now and then the first command is killed while it makes the tables.
    records = undisturbed.records if chance.random() < 0.8 else None
    explorer = TinyExplorer(folder, undisturbed.audience, records)
    with outputs.watched(explorer) as watcher:
        for number in range(chance.randint(1, most_kills)):
            kill = kills.draw(chance, VICTIMS, undisturbed.seconds)
            stage = _killed(explorer, folder / f"command-{number}.log", kill)
            if stage is None:
                done.missed.append(kill)
                break  # it is all done by now
            done.killed[kill.victim, stage] += 1
        done.figures["outputs kept"] = sum(outputs.finished(explorer.root).values())
        on_record = computed_on_record(explorer)
        last = explorer.command(*pipeline(), ok=False)
        if last.returncode:
            done.violations.append(
                f"the command that was left alone failed: {last.stdout[-3000:]}{last.stderr[-3000:]}"
            )
    done.violations += watcher.violations
    done.violations += differences(explorer, undisturbed)
    done.violations += _made_again(explorer, on_record) + going_on(explorer) + left_behind(explorer)
    done.figures["seen whole"] = watcher.outputs
    done.figures["unfinished"] = outputs.unfinished(explorer.root)
    done.figures["made again"] = sum(n - 1 for name, n in outputs.finished(explorer.root).items() if _is_once(name))
    done.seconds = time.monotonic() - began
    return done


def _killed(explorer: TinyExplorer, log: Path, kill: kills.Kill) -> str | None:
    """Run a command, and carry out a kill; the stage that it hit, or None if the command ended before."""
    with log.open("wb") as out:
        command = psutil.Popen(
            pipeline(),
            cwd=PROJECT,
            env=explorer.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=out,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + MOST_SECONDS
        victims = kills.victims_of(explorer, command)
        stage = kills.carry_out(kill, log, lambda: command.poll() is not None, victims, deadline)
        if kill.victim in ("job", "worker") or stage is None:
            with suppress(subprocess.TimeoutExpired):
                command.wait(timeout=MOST_SECONDS)  # it says what failed
        return stage
    finally:
        kills.end(command)


def _is_once(name: str) -> bool:
    return name.startswith(outputs.ONCE)


def differences(explorer: TinyExplorer, undisturbed: Undisturbed) -> list[str]:
    """The files that are not those of an undisturbed pipeline."""
    found, wanted = outputs.results(explorer.root), undisturbed.results
    names = [name for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name)]
    return [f"not as undisturbed: {', '.join(names)}"] if names else []


def computed_on_record(explorer: TinyExplorer) -> Counter[str]:
    """How often each partition of what is made once was computed, as the records have it."""
    computed: Counter[str] = Counter()
    with dg.DagsterInstance.from_config(str(explorer.home)) as instance:
        for asset in outputs.ONCE:
            for record in instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records:
                event = record.asset_materialization
                assert event is not None
                computed[f"{asset} {event.partition}"] += not event.metadata["reused"].value
    return computed


def _made_again(explorer: TinyExplorer, before: Counter[str]) -> list[str]:
    """What was on record when the last command began, and was computed all the same."""
    after = computed_on_record(explorer)
    again = [name for name, times in before.items() if times and after[name] != times]
    return [f"computed again, though on record: {', '.join(again)}"] if again else []


def going_on(explorer: TinyExplorer) -> list[str]:
    """Runs that are not over, though their commands are."""
    with dg.DagsterInstance.from_config(str(explorer.home)) as instance:
        return [f"run {run.run_id} is {run.status.value}" for run in instance.get_runs() if not run.is_finished]


def left_behind(explorer: TinyExplorer) -> list[str]:
    """Processes, temporary files, drafts and locks that are left, which must be none."""
    _, alive = psutil.wait_procs(list(processes_of(explorer)), timeout=120)
    processes = [f"process {process}" for process in alive if is_alive(process)]
    temporary = [f"temporary {path.name}" for path in explorer.temporary.iterdir()]
    drafts = [
        f"draft {path}"
        for path in (*explorer.root.rglob(".*"), *explorer.home.glob(".*.*"))
        if path.is_file() and not (path.parent / "_unfinished").exists() and not path.name.endswith(".lock")
    ]
    locks = [f"lock {file}" for file in explorer.home.glob(".*lock") if _is_locked(file)]
    return [f"left behind: {found}" for found in (*processes, *temporary, *drafts, *locks)]


def _is_locked(file: Path) -> bool:
    with file.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def as_table(rounds: Sequence[Round]) -> str:
    """What was killed, how often, in which stage; and what all rounds come to."""
    killed: Counter[tuple[str, str]] = sum((done.killed for done in rounds), Counter())
    figures: Counter[str] = sum((done.figures for done in rounds), Counter())
    broken = [done.name for done in rounds if done.violations]
    victims = sorted({victim for victim, _ in killed})
    stages = sorted({stage for _, stage in killed}, key=lambda stage: [*kills.STAGES, stage].index(stage))
    rows = [["stage", *victims, "all of them"]]
    for stage in stages:
        counts = [killed[victim, stage] for victim in victims]
        rows.append([stage, *map(str, counts), str(sum(counts))])
    rows.append(["", *(str(sum(killed[v, s] for s in stages)) for v in victims), str(killed.total())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    counted = json.dumps(dict(figures))
    verdict = f"broken: {', '.join(broken)}" if broken else "lost: nothing"
    return "\n".join([*lines, "", f"{len(rounds)} rounds, {killed.total()} kills; {counted}", verdict])
