"""Measure this project beside Spark with MLlib, DuckDB and Polars with scikit-learn, on the same generated actions.

    python -m benchmarks --quick
    python -m benchmarks --only group-social --only month --actions 20000000

Each run is added to the results file as soon as it is done, and what is there already is not measured again, so a long
run can be stopped and resumed, or split by --only and --contender. A page of all results is written beside that file.
"""

import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from benchmarks import results, scenarios
from benchmarks.contenders import OURS, Contender
from benchmarks.equal import NotSound

_DEFAULT = scenarios.Sizes()


@click.command(help=__doc__)
@click.option("--only", multiple=True, type=click.Choice(list(scenarios.SCENARIOS)), help="These scenarios; repeat it.")
@click.option("--contender", "wanted", multiple=True, help="Those whose name begins so; repeat it.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Runs of each.")
@click.option("--quick", is_flag=True, help="Tiny sizes and one run of each: shows that it works, not how fast it is.")
@click.option("--again", is_flag=True, help="Forget what was measured of these scenarios before.")
@click.option("--memory", type=float, default=12, show_default=True, help="GB (10^9 bytes) that a run may take.")
@click.option("--timeout", type=float, default=3600, show_default=True, help="Seconds that a run may take.")
@click.option("--actions", type=int, help=f"[default: {_DEFAULT.actions:,}]")
@click.option("--worst-actions", type=int, help=f"[default: {_DEFAULT.worst_actions:,}]")
@click.option("--users", type=int, help=f"Users to cluster.  [default: {_DEFAULT.users:,}]")
@click.option("--categories", type=int, multiple=True, help=f"Repeat it.  [default: {_DEFAULT.categories}]")
@click.option("--growth-actions", type=int, multiple=True, help=f"Repeat it.  [default: {_DEFAULT.growth_actions}]")
@click.option(
    "--growth-categories", type=int, multiple=True, help=f"Repeat it.  [default: {_DEFAULT.growth_categories}]"
)
@click.option(
    "--data", type=click.Path(path_type=Path), default=Path("build/bench"), show_default=True, help="Generated data."
)
@click.option(
    "--results", "file", type=click.Path(path_type=Path), default=Path(__file__).with_name("results.json"),
    help="[default: benchmarks/results.json]",
)  # fmt: skip
def main(
    only: tuple[str, ...],
    wanted: tuple[str, ...],
    repeats: int,
    quick: bool,
    again: bool,
    memory: float,
    timeout: float,
    data: Path,
    file: Path,
    **sizes: Any,
) -> None:
    given = {name: value for name, value in sizes.items() if value}
    chosen = replace(scenarios.QUICK if quick else _DEFAULT, **given)
    found = results.Results(file)
    bench = Bench(found, data.absolute(), wanted, 1 if quick else repeats, int(memory * 1e9), timeout)
    for scenario in only or scenarios.SCENARIOS:
        if again:
            found.forget(scenario)
        for case in scenarios.cases(scenario, chosen, scenarios.Data(data.absolute())):
            bench.measure(case)
    click.echo(f"{file}, {file.with_suffix('.md')}")
    if bench.wrong:
        click.echo("\n".join(bench.wrong), err=True)
        sys.exit(1)


class Bench:
    """Runs cases, and notes what went wrong."""

    def __init__(
        self, found: results.Results, data: Path, wanted: tuple[str, ...], repeats: int, memory: int, timeout: float
    ):
        self.wrong: list[str] = []
        self._results = found
        self._data = data
        self._wanted = wanted
        self._repeats = repeats
        self._memory = memory
        self._timeout = timeout

    def measure(self, case: scenarios.Case) -> None:
        """Run all contenders in turn, as often as is wanted; one that did not end well is not run again."""
        contenders = [one for one in case.contenders if one.name.startswith(self._wanted or "")]
        for number in range(self._repeats):
            turn = number % len(contenders) if contenders else 0
            for contender in [*contenders[turn:], *contenders[:turn]]:
                row = self._results.row(case, contender.name)
                done = Counter(run["ended"] for run in row["runs"])
                if done["well"] > number or done.total() > done["well"]:
                    continue
                if missing := contender.missing():
                    click.echo(f"{case.scenario}: {contender.name} is left out, for it needs {missing}", err=True)
                    continue
                self._run(case, contender, row)
                self._results.save()
        for row in self._results.rows:
            same = (row["scenario"], row["size"]) == (case.scenario, case.size)
            if same and results.equal_to_ours(row, self._results.rows) is False:
                self.wrong.append(f"{case.scenario} {case.size}: the output of {row['contender']} differs from ours")

    def _run(self, case: scenarios.Case, contender: Contender, row: results.Row) -> None:
        memory = case.memory or self._memory
        out = self._data / "out"
        self._clean(out)
        commands = case.commands(contender, out, memory)
        run = {**results.now(), **scenarios.run(commands, memory, self._timeout)}
        row["runs"].append(run)
        name = f"{case.scenario} {case.size}: {contender.name}"
        click.echo(f"{name}: {run['ended']}, {run['seconds']:.1f} s, {run['peak_bytes'] / 1e9:.2f} GB", err=True)
        if run["ended"] == "well" and row["digest"] is None:
            try:
                row["digest"] = case.digest(out)
            except NotSound as error:
                self.wrong.append(f"{name}: {error}")
        elif run["ended"] == "failed" or (run["ended"] != "well" and contender.name == OURS):
            self.wrong.append(f"{name} {run['ended']}: {run['last_words']}")
        self._clean(out)

    @staticmethod
    def _clean(out: Path) -> None:
        for folder in (out, out.with_name(f"{out.name}-scratch")):
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
