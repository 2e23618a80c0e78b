"""Each command that a page shows exists, with the options that it is given there."""

import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest

from ami.__main__ import main as ami
from audience_explorer_dagster.cli import main as explorer

PROJECT = Path(__file__).parents[1]
PAGES = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"), *PROJECT.glob("*/README.md")]
GROUPS: dict[str, click.Command] = {"audience-explorer": explorer, "python -m ami": ami}
WORD = r"(?:'[^'\n]*'|\"[^\"\n]*\"|[^\s|;&<>()`'\"])+"  # up to where a shell would end a command
COMMAND = re.compile(rf"(?<![\w/.-])(audience-explorer|python -m [a-z_.]+)((?:[ \t]+{WORD})*)")


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """Programs and their arguments, from a page's blocks for a shell and from its text."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    lines = "\n".join([*blocks, *inline]).replace("\\\n", " ").splitlines()
    # Some say the same name of something else: an image, an application.
    found = [of for line in lines if not re.match(r"docker|aws", line) for of in COMMAND.findall(line)]
    return [(program, shlex.split(arguments, comments=True)) for program, arguments in found]


def unknown(program: str, arguments: list[str]) -> str | None:
    """What of a command does not exist."""
    command = GROUPS.get(program)
    if command is None:
        module = program.removeprefix("python -m ")
        return None if importlib.util.find_spec(module) else f"no module {module}"
    for argument in arguments:
        if argument.startswith("--"):
            known = {option for of in command.params for option in (*of.opts, *of.secondary_opts)} | {"--help"}
            if argument.partition("=")[0] not in known:
                return f"{command.name} has no {argument}"
        elif isinstance(command, click.Group) and re.fullmatch(r"[a-z][a-z0-9-]*", argument):
            within = command.get_command(click.Context(command), argument)
            if within is None:
                return f"{command.name} has no command {argument}"
            command = within
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_a_page_shows_commands_that_exist(page: Path) -> None:
    assert [wrong for command in commands(page) if (wrong := unknown(*command))] == []


def test_what_does_not_exist_is_found() -> None:
    assert unknown("audience-explorer", ["pipeline", "--mont", "2024-01"]) == "pipeline has no --mont"
    assert unknown("audience-explorer", ["ec2", "chek"]) == "ec2 has no command chek"
    assert unknown("python -m ami", ["biuld"]) is not None
    assert unknown("python -m spark_jobs.kmean", []) == "no module spark_jobs.kmean"
    assert unknown("audience-explorer", ["pipeline", "--month", "2024-01"]) is None


def test_pages_show_many_commands() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 100
