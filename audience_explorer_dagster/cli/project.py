"""What the commands have in common: options, the project and its records, and how a person is told and asked."""

import fcntl
import json
import os
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from audience_explorer_dagster.cli.dagster_home import HOME, home_of, make_home
from spark_jobs import storage
from spark_jobs.errors import InputError, as_clause
from spark_jobs.terminal import as_table, visible_lines

if TYPE_CHECKING:
    import dagster as dg

    from audience_explorer_dagster.run_config import MonthRunConfig
    from audience_explorer_dagster.running.dry_run import DryRun, Planned
    from audience_explorer_dagster.running.pipeline import Outcome
    from audience_explorer_dagster.store import Store

ROOT = "AUDIENCE_EXPLORER_ROOT"
_LONGEST_REASON = 300  # characters: Dagster names all settings that there are
_LAST_LINES = 20  # of what was held back, which a failure shows

root_option = click.option(
    "--root",
    default=lambda: os.environ.get(ROOT, "data"),
    show_default=f"${ROOT}, or data",
    help="The folder or s3://bucket/prefix under which raw data, category files and outputs are.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


# --- telling and asking ----------------------------------------------------------------------------


def tell(message: str) -> None:
    """Tell a person, apart from what a program reads, and show what names in it hold."""
    click.echo(visible_lines(message), err=True)


def tell_table(table: str) -> None:
    """Tell a table, which `as_table` has made visible, and may have given styles."""
    click.echo(table, err=True)


def say(message: str) -> None:
    """Print an answer for a person, and show what names in it hold."""
    click.echo(visible_lines(message))


@contextmanager
def held_back() -> Iterator[list[str]]:
    """Hold back all that is printed, also by processes that are started; the last lines are in the list in the end."""
    last: list[str] = []
    with tempfile.TemporaryFile("w+", buffering=1, encoding="utf-8", errors="replace") as printed:
        sys.stdout.flush()
        sys.stderr.flush()
        kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}  # what other processes inherit
        try:
            for descriptor in kept:
                os.dup2(printed.fileno(), descriptor)
            with redirect_stdout(printed), redirect_stderr(printed):
                yield last
        finally:
            for descriptor, original in kept.items():
                os.dup2(original, descriptor)
                os.close(original)
            printed.seek(0)
            last += deque(printed, maxlen=_LAST_LINES)


def ask(question: str, yes: bool) -> None:
    """Go on only if a person agrees, or if `--yes` said so beforehand."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("Nothing is done without a terminal to ask at. If you are sure: --yes")
    click.confirm(question, abort=True, err=True)


@contextmanager
def errors_told() -> Iterator[None]:
    """Tell an error that is the input's in a line."""
    try:
        yield
    except InputError as error:
        raise click.UsageError(visible_lines(str(error))) from None


@contextmanager
def interrupts_told() -> Iterator[None]:
    """Tell an interrupt (SIGINT, SIGTERM) in a line, and end with 130."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        tell("Interrupted before it was done.")
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, before)


# --- the project -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Project:
    """The project as Dagster loads it, with the records."""

    definitions: "dg.Definitions"
    instance: "dg.DagsterInstance"
    store: "Store"

    def run(
        self,
        months: Sequence[str],
        categories: Sequence[str],
        config: "MonthRunConfig",
    ) -> "list[Outcome]":
        """Run the pipeline, with what is said by default: the last month that ended, all categories."""
        from audience_explorer_dagster.categories.known import check_categories, sync_categories
        from audience_explorer_dagster.cli.live import watching
        from audience_explorer_dagster.running.pipeline import Outcome, check_months, run_pipeline, targets_of

        wanted_months = check_months(months)
        _, refused = sync_categories(self.instance, self.store)
        wanted = check_categories(self.instance, self.store, categories)
        self._tell_of_unrecorded(wanted_months, wanted)
        with watching(len(targets_of(wanted_months, wanted, config))) as watch:
            outcomes = run_pipeline(
                self.definitions, self.instance, wanted_months, wanted, config, watch.announce, watch.listen
            )
        # Only who asks for all categories asks for files that can't be one.
        unfit = {} if categories else refused
        return [*outcomes, *(Outcome("category", name, "failed", error=why) for name, why in unfit.items())]

    def dry_run(self, months: Sequence[str], categories: Sequence[str], config: "MonthRunConfig") -> "DryRun":
        """What `run` would do, and why; nothing is launched or recorded."""
        from audience_explorer_dagster.partitions import Partition
        from audience_explorer_dagster.planning import KMEANS
        from audience_explorer_dagster.running.dry_run import dry_run
        from audience_explorer_dagster.running.pipeline import check_months

        wanted_months = check_months(months)
        plan = dry_run(self.instance, self.store, wanted_months, categories, config)
        named = {Partition.parse(target.partition).category for target in plan.targets if target.asset == KMEANS}
        self._tell_of_unrecorded(wanted_months, sorted(filter(None, named)))
        return plan

    def _tell_of_unrecorded(self, months: Sequence[str], categories: Sequence[str]) -> None:
        """Say if there are outputs of these partitions that are not on record, which would be computed again."""
        from audience_explorer_dagster.partitions import Partition
        from audience_explorer_dagster.records import adoption
        from audience_explorer_dagster.records.history import History
        from audience_explorer_dagster.running.inputs import needed_records

        partitions = [Partition(month, category) for month in months for category in categories]
        records = {
            asset: History(self.instance, self.store, asset, of_asset)
            for asset, of_asset in needed_records(partitions).items()
        }
        if why := adoption.what_is_not_on_record(records, self.store, self.instance.root_directory):
            tell(why)


@contextmanager
def open_project(root: str) -> Iterator[Project]:
    """Load the project for a root. Dagster takes seconds to import, so this is left to those who need it."""
    os.environ[ROOT] = storage.absolute(root)
    home = make_home(home_of(root))
    os.environ[HOME] = str(home)
    import dagster as dg

    from audience_explorer_dagster.definitions import defs
    from audience_explorer_dagster.partitions import CATEGORY
    from audience_explorer_dagster.running.in_this_process import fail_lost_runs
    from audience_explorer_dagster.store import Store

    with ExitStack() as opened:
        # Dagster makes its tables when an instance is opened and at their first use. Two processes that do so at the
        # same time leave two heads of the schema, and no process can open the home again.
        with (home / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with _records_errors_explained(home):
                instance = opened.enter_context(dg.DagsterInstance.get())
                instance.get_runs_count()
                instance.get_dynamic_partitions(CATEGORY)
                instance.all_instigator_state()
        fail_lost_runs(instance)
        yield Project(defs, instance, Store(root=os.environ[ROOT]))


@contextmanager
def _records_errors_explained(home: Path) -> Iterator[None]:
    """Say in one line why the records can't be opened: their settings are wrong, or the database is missing."""
    import sqlite3

    import dagster as dg
    import yaml
    from dagster._check import CheckError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (dg.DagsterError, CheckError, ImportError, SQLAlchemyError, sqlite3.Error, yaml.YAMLError) as error:
        why = as_clause(error)
        shown = why if len(why) <= _LONGEST_REASON else f"{why[:_LONGEST_REASON]}…"
        raise InputError(
            f"The records in {home} can't be opened: {shown}. Mend {home / 'dagster.yaml'}, or what it names, or name"
            f" another folder in {HOME}."
        ) from error


# --- what a pipeline would do ----------------------------------------------------------------------


def plan_as_table(plan: "DryRun") -> str:
    """What would be done, for a person."""
    columns: dict[str, Callable[[Planned], str]] = {
        "partition": lambda t: t.partition,
        "asset": lambda t: t.asset,
        "plan": lambda t: t.action,
        "why": lambda t: " ".join(t.why.split()),
    }
    counts, jobs = plan.counts(), plan.expected.jobs
    launched = f"{counts['launch']} to launch ({jobs} job{'s' * (jobs > 1)})" if jobs else "nothing to launch"
    impossible = f", {counts['impossible']} impossible" if counts["impossible"] else ""
    told = f"{as_table(columns, plan.targets)}\n\n{launched}, {counts['reuse']} to reuse{impossible}"
    return f"{told}\n{plan.expected}" if jobs else told


# --- what became of a pipeline ---------------------------------------------------------------------


def outcomes_as_json(outcomes: "Sequence[Outcome]") -> str:
    """The outcomes, for a program."""
    return json.dumps({**_counts(outcomes), "partitions": [outcome.as_json() for outcome in outcomes]}, indent=1)


def outcomes_as_table(outcomes: "Sequence[Outcome]", root: str) -> str:
    """The outcomes, for a person."""
    from audience_explorer_dagster.records.findings import with_verdict
    from audience_explorer_dagster.records.people import shown

    columns: dict[str, Callable[[Sequence[Outcome]], str]] = {
        "partition": _partitions,
        "asset": _assets,
        "status": lambda of: of[0].status if len(of) == 1 else f"{len(of)} {of[0].status}",
        "users": lambda of: "" if of[0].status == "failed" else shown(of[0].users),
        "k": lambda of: with_verdict(of[0].k, of[0].verdict),
        f"folder below {root}, or error": lambda of: (
            of[0].folder.removeprefix(root).lstrip("/") if of[0].folder else _why(of)
        ),
    }
    counts = ", ".join(f"{count} {status}" for status, count in _counts(outcomes).items())
    return f"\n{as_table(columns, _by_reason(outcomes))}\n{_standings(outcomes)}\n{counts}"


def _by_reason(outcomes: "Sequence[Outcome]") -> "list[list[Outcome]]":
    """The outcomes in order, those that failed for one reason together: one bad file fails all that is made of it."""
    together: dict[str, list[Outcome]] = {}
    for place, outcome in enumerate(outcomes):
        is_target = outcome.status == "failed" and not isinstance(outcome.partition, str)
        together.setdefault(f"failed: {outcome.error}" if is_target else str(place), []).append(outcome)
    return list(together.values())


def _partitions(outcomes: "Sequence[Outcome]") -> str:
    """A partition, or what several share, such as `2024-01, 5 categories`."""
    partitions = {outcome.partition for outcome in outcomes}
    if len(partitions) == 1:
        return str(outcomes[0].partition)
    months = {partition.month for partition in partitions if not isinstance(partition, str)}
    categories = {partition.category for partition in partitions if not isinstance(partition, str)} - {None}
    return ", ".join(
        _one_or_count(list(map(str, names)), what)
        for names, what in ((months, "months"), (categories, "categories"))
        if names
    )


def _assets(outcomes: "Sequence[Outcome]") -> str:
    return _one_or_count(list(dict.fromkeys(outcome.asset for outcome in outcomes)), "assets")


def _one_or_count(names: Sequence[str], what: str) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} {what}"


def _why(outcomes: "Sequence[Outcome]") -> str:
    return " ".join((outcomes[0].error or "").split())


def _standings(outcomes: "Sequence[Outcome]") -> str:
    """The k-means outputs that stand beside the current ones, and why: a line for each reason."""
    partitions: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.standing and outcome.standing.startswith("beside"):
            partitions.setdefault(outcome.standing, []).append(str(outcome.partition))
    return "".join(f"\n{', '.join(names)}: {standing}\n" for standing, names in partitions.items())


def failures_as_mail(outcomes: "Sequence[Outcome]", last_lines: Sequence[str]) -> str:
    """What failed and why, and what was logged last, for a person who saw nothing else of it."""
    columns: dict[str, Callable[[Sequence[Outcome]], str]] = {"partition": _partitions, "asset": _assets, "why": _why}
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    others = "; the others are done" if len(failed) < len(outcomes) else ""
    told = f"{len(failed)} of {len(outcomes)} failed{others}.\n\n{as_table(columns, _by_reason(failed))}"
    return f"{told}\n\nWhat was logged last:\n{visible_lines(''.join(last_lines).rstrip())}" if last_lines else told


def exit_code(outcomes: "Sequence[Outcome]") -> int:
    """0 if all is done, 1 if something failed, 130 if it was interrupted."""
    from audience_explorer_dagster.running.pipeline import INTERRUPTED

    if any(outcome.error == INTERRUPTED for outcome in outcomes):
        return 130
    return int(any(outcome.status == "failed" for outcome in outcomes))


def _counts(outcomes: "Sequence[Outcome]") -> dict[str, int]:
    return {status: sum(o.status == status for o in outcomes) for status in ("launched", "reused", "failed")}
