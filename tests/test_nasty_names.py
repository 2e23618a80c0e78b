"""Names that are other people's, and what must never be told: through all that renders, runs or keeps them."""

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import dagster as dg
import pytest

from audience_explorer_dagster.launchers.ec2.start import user_data
from audience_explorer_dagster.launchers.launch_store import LaunchTags
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.records import markdown, metadata
from audience_explorer_dagster.store import Store
from spark_jobs.audience_report import page
from spark_jobs.config import KMeansConfig
from spark_jobs.raw.rules import Month
from spark_jobs.terminal import visible
from spark_jobs.vectors.category_files import BadCategory, check_name
from tests.project import Project

NASTY = [
    "../../etc/passwd",
    "a/../../b",
    "/etc/passwd",
    "..",
    "a\x00b",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned #",
    "' || touch pwned || '",
    '" && touch pwned && "',
    "a\ntouch pwned\n",
    "'; DROP TABLE runs; --",
    '<script>alert("x")</script>',
    "'\"><img src=https://evil.example/x onerror=alert(1)>",
    "![x](https://evil.example/x.png)",
    "[x](javascript:alert(1))",
    "**bold** _it_ `code` <https://evil.example> | a | &lt;",
    "{{ 7 * 7 }}{% raw %}",
    "%s%n{0}${HOME}",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnp.exe",
    "a,run=other,label=x",
    "month=2024-01|tea",
    "*?[a-z]",
    " ",
]


@pytest.mark.parametrize("name", NASTY)
def test_no_partition_key_label_or_file_can_be_called_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadCategory):
        check_name(name)
    with pytest.raises(ValueError, match="is not a label"):
        KMeansConfig(k=2, label=name)
    with pytest.raises(Exception, match=r".+"):
        Month.parse(name)
    with pytest.raises(BadCategory):
        Store(root=str(tmp_path)).edits_file(name)


@pytest.mark.parametrize("name", [name for name in NASTY if "\x00" not in name])
def test_a_shell_takes_a_launchs_place_for_one_word(name: str, tmp_path: Path) -> None:
    script = user_data(name, f"s3://b/{name}").replace("exec audience-explorer-boot", "printf '%s|%s'  \"$AWS_REGION\"")
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{name}|s3://b/{name}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NASTY)
def test_markdown_shows_it_as_it_is(name: str) -> None:
    shown = markdown.as_text(name)
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]<>&|~#!]", shown), "what is left unescaped is markup"
    assert re.sub(r"\\([\\`*_\[\]<>&|~#!])", r"\1", shown) == visible(name)


def test_what_happened_to_segments_is_shown_with_the_names_of_pages_as_they_are() -> None:
    event = {"what": "“![x](https://evil.example/x.png)” is new"}
    summary = {"segments": [], "events": [event], "since": None, "users": 20, "k": 1}
    shown = metadata._followed(summary, 10)["what_happened"].value
    assert shown == r"- “\!\[x\](https://evil.example/x.png)” is new"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.text = next((value or "" for name, value in attrs if name == "title"), self.text)


@pytest.mark.parametrize("name", NASTY)
def test_a_page_shows_it_as_it_is(name: str) -> None:
    rendered = page._environment().from_string('<p title="{{ name }}">{{ name }}</p>').render(name=name)
    tags = Tags()
    tags.feed(rendered)
    assert tags.found == ["p"]
    assert tags.text == name


@pytest.mark.parametrize("name", NASTY)
def test_a_folder_of_s3_that_is_called_so_is_no_launch_with_other_tags(name: str) -> None:
    found = LaunchTags.parse(f"launch={name},pipeline=p,run=r,label=l")
    assert found is None or (found.launch, found.run) == (name, "r")


def test_a_key_of_two_parts_is_a_category_only_if_it_may_be_one() -> None:
    assert Partition.parse("tea|2024-01").category == "tea"


# --- what is never told

SECRET, PASSWORD = "fake-secret-0123456789", "fake-password-0123456789"
PEOPLE = [f"person-{number:03}@example.org" for number in range(24)]


def test_no_credentials_and_nobody_are_in_what_dagster_keeps_of_a_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRET)
    monkeypatch.setenv("AUDIENCE_EXPLORER_POSTGRES", f"postgresql+psycopg2://user:{PASSWORD}@host/database")
    rows = [
        {"user_id": person, "page_id": f"tea-{1 + place % 2}", "action": "page_like", "count": 20}
        for place, person in enumerate(PEOPLE)
    ]
    rows += [{"user_id": PEOPLE[0], "page_id": "tea-1", "action": "no such action"}, {"user_id": PEOPLE[1]}]
    raw = project.root / "raw" / "month=2024-01" / "actions.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows))

    outcomes = project.pipeline(["2024-01"], ["tea"], grouped_users={"max_reject_ratio": 0.5})
    assert {outcome.status for outcome in outcomes.values()} == {"launched"}
    failed = project.pipeline(["2024-01"], ["tea"], grouped_users={"max_reject_ratio": 0.0})
    assert "failed" in {outcome.status for outcome in failed.values()}

    kept = "\n".join(everything_kept(project.instance)) + "".join(capfd.readouterr())
    kept += "".join(str(outcome.error) for outcome in failed.values())
    assert "rejected" in kept
    assert [secret for secret in (SECRET, PASSWORD, *PEOPLE) if secret in kept] == []
    # Only outputs that are of people name people.
    naming = {
        file.relative_to(project.root).parts[0]
        for file in project.root.rglob("*")
        if file.is_file() and file.suffix in (".json", ".html", ".csv") and PEOPLE[0] in file.read_text()
    }
    assert naming <= {"kmeans"}, "data.json"


def everything_kept(instance: dg.DagsterInstance) -> list[str]:
    """All that Dagster has in its records of runs, in any form."""
    runs = instance.get_runs()
    return [
        *(str(run) for run in runs),
        *(dg.serialize_value(entry) for run in runs for entry in instance.all_logs(run.run_id)),
    ]
