"""`python -m acceptance.torture rounds --minutes 10 --seed 1`: kills, and pipelines at the same time, until time is up.

It ends with 1 if anything was lost, half or left behind; each round says how to repeat it alone.
"""

import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from acceptance.torture import at_once, services
from acceptance.torture.audience import months_from
from acceptance.torture.long_run import long_run
from acceptance.torture.rounds import Round, Undisturbed, as_table, kill_round, run_undisturbed

KINDS: dict[str, Callable[[Path, Undisturbed, str], Round]] = {
    "kills": kill_round,
    "services": services.kill_services,
    "two-commands": at_once.two_commands,
    "two-orchestrators": at_once.two_orchestrators,
    "two-orchestrators-on-s3": at_once.two_orchestrators_on_s3,
    "promotion-in-between": at_once.promotion_in_between,
}


@click.group()
def main() -> None:
    """Kills what can be killed, at random moments, and checks that nothing is lost."""


@main.command()
@click.option("--minutes", type=float, help="For how long.  [default: for --rounds]")
@click.option("--rounds", "count", type=int, help="How many rounds.  [default: as many as --minutes allow]")
@click.option("--seed", help="Of the random choices.  [default: another one each time]")
@click.option("--kind", "kinds", type=click.Choice(list(KINDS)), multiple=True, help="Of rounds.  [default: all]")
@click.option("--only", type=int, help="Repeat this round, and no other.")
def rounds(
    minutes: float | None, count: int | None, seed: str | None, kinds: tuple[str, ...], only: int | None
) -> None:
    """Rounds of kills, and of commands at the same time."""
    seed = seed or secrets.token_hex(4)
    wanted = list(kinds or KINDS)
    deadline = time.monotonic() + 60 * (minutes or 10) if count is None and only is None else None
    done: list[Round] = []
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        undisturbed = run_undisturbed(folder)
        click.echo(f"seed {seed}; undisturbed it takes {undisturbed.seconds:.0f} s")
        number = only or 1
        while only is None or number == only:
            if (deadline is not None and time.monotonic() > deadline) or (count is not None and number > count):
                break
            kind = wanted[(number - 1) % len(wanted)]
            done.append(_round(folder / f"round-{number}", kind, undisturbed, f"{kind} {seed}/{number}"))
            number += 1
    except KeyboardInterrupt:
        click.echo("interrupted")
    click.echo(f"\n{as_table(done)}")
    if broken := [one for one in done if one.violations]:
        click.echo(f"What broken rounds left is in {folder}.")
        for one in broken:
            click.echo(f"To repeat {one.name}: {_command_of(one.name, kinds)}")
        sys.exit(1)
    shutil.rmtree(folder)


@main.command("long-run")
@click.option("--months", default=24, show_default=True, help="How many, one after another.")
@click.option("--categories", default=20, show_default=True, help="How many.")
def long_run_command(months: int, categories: int) -> None:
    """Months that land on a live deployment: what its services have after each, and what they leave behind."""
    names = [f"category-{number:02}" for number in range(1, categories + 1)]
    table, violations = long_run(months_from("2022-01", months), names)
    click.echo(f"\n{table}")
    for violation in violations:
        click.echo(violation)
    sys.exit(bool(violations))


def _round(folder: Path, kind: str, undisturbed: Undisturbed, name: str) -> Round:
    """Do a round, report it, and keep what it left if it is broken."""
    one = KINDS[kind](folder, undisturbed, name)
    click.echo(one.line())
    for violation in one.violations:
        click.echo(f"    {violation}")
    if not one.violations:
        shutil.rmtree(folder)
    return one


def _command_of(name: str, kinds: tuple[str, ...]) -> str:
    seed, number = name.split()[1].split("/")
    chosen = "".join(f" --kind {kind}" for kind in kinds)
    return f"python -m acceptance.torture rounds --seed {seed}{chosen} --only {number}"


if __name__ == "__main__":
    main()
