"""Starts a sandbox, and lives until Ctrl-C or until a command that it runs has ended."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from acceptance.sandbox import NotPossible, Sandbox

_PREFIX = "explorer"  # of the root, in the bucket
# The longest wait at a time: Python's handlers run in the main thread, and a signal that another thread of the sandbox
# happens to take does not wake that one.
_LOOK_SECONDS = 1
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "audience-explorer"


@click.command()
@click.option(
    "--light", is_flag=True, help="Let instances be processes on this machine's own root. Needs no root rights."
)
@click.option(
    "--image-cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=_CACHE,
    show_default=True,
    help="Where built images are kept; without --light.",
)
@click.option(
    "--bring",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A root on this machine, whose raw actions and category files are put into the sandbox's.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def main(light: bool, image_cache: Path, bring: Path | None, command: tuple[str, ...]) -> None:
    """AWS on this machine, for Audience Explorer without an account.

    Prints what to set to use it, as `export` lines, and plays AWS until Ctrl-C; or runs a COMMAND with that set, and
    ends with it:

    python -m acceptance.sandbox --light -- dagster dev
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left of the machines then, either
    with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
        try:
            sandbox = Sandbox(Path(folder), isolated=not light, cache=image_cache)
        except NotPossible as error:
            raise click.ClickException(f"{error} (--light)") from error
        with sandbox:
            _say(f"Instances print to {folder}/instances/<id>/console.log, which goes with the sandbox.")
            try:
                _say(f"Instances run from {sandbox.image}.")
            except LookupError as error:
                _say(str(error))
            if bring:
                bring_root(sandbox, bring)
            # Records of what is in the sandbox are worth nothing without it.
            home = Path(folder) / "dagster_home"
            home.mkdir()
            sys.exit(_live({**settings(sandbox), "DAGSTER_HOME": str(home)}, command))


def bring_root(sandbox: Sandbox, root: Path, *months: str) -> None:
    """Put category files, and raw actions of some months or of all, from a local root into the sandbox's."""
    raw = [root / "raw" / f"month={month}" for month in months] or [root / "raw"]
    for folder in (root / "categories", *raw):
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            key = f"{_PREFIX}/{file.relative_to(root).as_posix()}"
            sandbox.client("s3").upload_file(str(file), sandbox.bucket, key)


def settings(sandbox: Sandbox) -> dict[str, str]:
    """The variables that make Audience Explorer use a sandbox for its data and its jobs."""
    return {
        **sandbox.environment,
        "AUDIENCE_EXPLORER_ROOT": f"s3://{sandbox.bucket}/{_PREFIX}",
        "AUDIENCE_EXPLORER_LAUNCHER": "ec2",
        "AUDIENCE_EXPLORER_EC2_INSTANCE_PROFILE": sandbox.instance_profile,
        "AUDIENCE_EXPLORER_EC2_BUILDER_PROFILE": sandbox.instance_profile,
        "AUDIENCE_EXPLORER_EC2_SUBNETS": ",".join(sandbox.subnets),
        "AUDIENCE_EXPLORER_EC2_SECURITY_GROUPS": sandbox.security_group,
    }


def _live(variables: dict[str, str], command: tuple[str, ...]) -> int:
    """Wait for the end, of the command or by a signal; the exit code."""
    try:
        if command:
            return _run(variables, command)
        for name, value in variables.items():
            click.echo(f"export {name}={shlex.quote(value)}")
        click.echo()
        _say("Use it from another terminal with these variables set. It ends with Ctrl-C.")
        while True:
            time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        _say("Ending the instances.")
        return 0


def _run(variables: dict[str, str], command: tuple[str, ...]) -> int:
    with subprocess.Popen(command, env={**os.environ, **variables}) as process:
        try:
            return _exit_code(process)
        except KeyboardInterrupt:
            process.terminate()  # Ctrl-C reached it as well; a signal to this process alone did not
            return _exit_code(process)


def _exit_code(process: "subprocess.Popen[bytes]") -> int:
    """Wait for the end of a process."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(_LOOK_SECONDS)


def _say(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    main()
