"""The command line: what it refuses, what it says, and its exit codes."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError
from click.testing import CliRunner, Result

from audience_explorer_dagster import definitions as loaded
from audience_explorer_dagster import partitions
from audience_explorer_dagster.cli import main
from audience_explorer_dagster.cli import project as shared
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.run_config import MonthRunConfig
from audience_explorer_dagster.running.pipeline import Outcome
from spark_jobs.config import KSelectionConfig
from tests.project import Project

pytestmark = pytest.mark.filterwarnings("ignore")


def run(project: Project, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--root", str(project.root)])


@pytest.fixture(autouse=True)
def home(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", project.instance.root_directory)
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", str(project.root))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--month", "2024-1"], "'2024-1' is no partition|2024-1 is no partition"),
        (["--month", "January"], "'January' is no month; one is named YYYY-MM"),
        (["--month", "2001-01"], "2001-01 is no partition: they go from 2018-01"),
        (["--month", "2999-01"], "the last month that ended"),
        (["--month", "2024-01", "--category", "nope"], "There is no category 'nope'.*Known: coffee, games, tea"),
        (["--k", "0"], "greater than or equal to 1"),
        (["--params", "x,1,1"], r"allowed are kmeans\|\|"),
        (["--scaling", "min"], "'min' is not a step of scaling; allowed are max, none, log1p"),
        (["--scaling", "l2,log1p"], "log1p is not the first step of 'l2,log1p'.*write it first"),
        (["--label", "a b"], "is not a label"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_is_allowed(project: Project, arguments: list[str], says: str) -> None:
    result = run(project, "pipeline", *arguments)
    assert result.exit_code == 2
    assert re.search(says, " ".join(result.output.split())), result.output


def test_a_failure_has_exit_code_1_and_says_why_in_json(project: Project) -> None:
    result = run(project, "pipeline", "--month", "2024-05", "--json")
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert (said["launched"], said["reused"], said["failed"]) == (0, 0, 16)
    assert "There is no raw data in" in said["partitions"][0]["error"]


def test_what_fails_for_one_reason_is_one_line_of_the_table() -> None:
    tea, coffee = Partition("2024-01", "tea"), Partition("2024-01", "coffee")

    def failed(asset: str, partition: Partition | str, why: str) -> Outcome:
        return Outcome(asset, partition, "failed", error=why)

    outcomes = [
        failed("grouped_users", Partition("2024-01"), "bad.csv can't be read"),
        *(failed(asset, of, "no grouped users") for of in (tea, coffee) for asset in ("clustering_inputs", "kmeans")),
        failed("kmeans", Partition("2024-02", "tea"), "too few"),
        failed("kmeans", Partition("2024-03", "tea"), "too few"),
        failed("category", "x|y", "can't be one"),
        failed("category", "p|q", "can't be one"),
    ]
    lines = [re.sub(" {2,}", "; ", line) for line in shared.outcomes_as_table(outcomes, "/root").splitlines()[2:]]
    assert lines == [
        "2024-01; grouped_users; failed; bad.csv can't be read",
        "2024-01, 2 categories; 2 assets; 4 failed; no grouped users",
        "2 months, tea; kmeans; 2 failed; too few",
        "x|y; category; failed; can't be one",
        "p|q; category; failed; can't be one",
        "",
        "0 launched, 0 reused, 9 failed",
    ]


def test_a_root_without_categories_says_where_to_put_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["pipeline", "--month", "2024-01", "--root", str(tmp_path / "empty")])
    assert result.exit_code == 2
    assert "There is no category file in" in result.output


def test_sync_adds_new_categories_and_refuses_bad_names(project: Project) -> None:
    project.write_category("water", "water-1")
    result = run(project, "categories", "sync")
    assert (result.exit_code, result.stdout) == (0, "added: water\n")
    project.write_category("pi|pe", "p")
    result = run(project, "categories", "sync")
    assert result.exit_code == 1
    assert "'pi|pe' can't be a category's name" in result.stderr
    assert project.instance.get_dynamic_partitions("category") == ["coffee", "games", "tea", "water"]


@pytest.mark.parametrize("group", [[], ["ec2"], ["launch"], ["categories"]])
def test_help_lists_each_command_with_its_whole_first_sentence(group: list[str]) -> None:
    listed = CliRunner().invoke(main, [*group, "--help"], terminal_width=80).output.partition("Commands:\n")[2]
    assert listed
    assert "..." not in listed


def test_help_tells_every_option() -> None:
    said = CliRunner().invoke(main, ["pipeline", "--help"]).output
    for option in ("--month", "--k ", "--params", "--n-init", "--seed", "--label", "--scaling", "--engine", "--force"):
        assert option in said
    for option in ("--criterion", "--k-max", "--min-segment ", "--min-segment-share", "--fit-min-actions"):
        assert len(re.findall(rf"^  {option}", said, re.MULTILINE)) == 1, "also where two steps have it"


def test_fit_min_actions_is_that_of_both_steps_that_learn(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[MonthRunConfig] = []

    def keep(_project: object, _months: object, _categories: object, config: MonthRunConfig) -> list[Outcome]:
        asked.append(config)
        return []

    monkeypatch.setattr(shared.Project, "run", keep)
    options = ("--fit-min-actions", "3", "--min-segment", "20", "--min-segment-share", "0.1", "--k-max", "6")
    run(project, "pipeline", *options, "--n-init", "2", "--seed", "9")
    (config,) = asked
    assert (config.kmeans.fit_min_actions, config.k_selection.fit_min_actions) == (3, 3)
    of_choice = config.k_selection
    assert (of_choice.min_segment, of_choice.min_segment_share, of_choice.k_max) == (20, 0.1, 6)
    assert (config.kmeans.n_init, config.kmeans.seed) == (2, 9)
    assert (of_choice.n_init, of_choice.seed) == (KSelectionConfig().n_init, KSelectionConfig().seed)


def test_what_is_not_given_is_left_to_the_deployment(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[MonthRunConfig] = []
    monkeypatch.setattr(shared.Project, "run", lambda _p, _m, _c, config: asked.append(config) or [])
    run(project, "pipeline", "--n-init", "2", "--promote")
    (config,) = asked
    assert config.model_fields_set == {
        *("resources", "grouped_users", "clustering_inputs", "k_selection", "kmeans", "promote")
    }
    assert config.kmeans.model_fields_set == {"n_init"}
    assert not config.k_selection.model_fields_set


def test_the_table_says_what_stands_beside_and_why(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded, "defs", project.definitions)
    arguments = ("pipeline", "--month", "2024-01", "--category", "tea")
    assert "beside" not in run(project, *arguments).stdout
    tweaked = run(project, *arguments, "--k", "1", "--label", "one").stdout
    assert re.search(
        r"\ntea\|2024-01: beside \S+: label one; k 1 \(the deployment's own: not given\)\n\n3 launched", tweaked
    )


def test_where_no_segments_were_found_the_table_says_so_beside_k_and_so_does_the_json(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded, "defs", project.definitions)
    arguments = ("pipeline", "--month", "2024-01", "--category", "tea")
    assert (
        len(re.findall(r"(?:k_selection|kmeans) +launched +10 +1 \(too few people\) ", run(project, *arguments).stdout))
        == 2
    )
    said = json.loads(run(project, *arguments, "--json").stdout)
    assert {outcome["asset"]: outcome["verdict"] for outcome in said["partitions"]} == {
        "grouped_users": None,
        "clustering_inputs": None,
        "k_selection": "too_few",
        "kmeans": "too_few",
        "segments": None,
        "audience_report": "too_few",
    }


def test_where_segments_were_found_the_table_has_k_alone() -> None:
    outcomes = [Outcome("kmeans", "tea|2024-01", "launched", "/root/x", users=90, k=4, verdict="segments")]
    assert re.search(r"kmeans +launched +90 +4 +x\n", shared.outcomes_as_table(outcomes, "/root"))


def test_who_asks_for_all_categories_is_told_of_a_file_that_cannot_be_one(project: Project) -> None:
    project.write_category("pi|pe", "p")
    result = run(project, "pipeline", "--month", "2024-05", "--json")
    assert {p["partition"]: p["error"] for p in json.loads(result.stdout)["partitions"]}["pi|pe"].startswith(
        "'pi|pe' can't"
    )


def test_a_relative_home_is_below_the_current_folder(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", "here")
    assert run(project, "categories", "sync").exit_code == 0
    assert (tmp_path / "here" / "dagster.yaml").exists()


def test_the_demo_mixes_its_data_with_nobodys(project: Project) -> None:
    result = run(project, "demo")
    assert result.exit_code == 2
    assert "holds raw data that is not the demo's" in result.output


def test_quiet_prints_nothing_if_all_is_done(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded, "defs", project.definitions)
    arguments = ("pipeline", "--month", "2024-01", "--category", "tea", "--force")
    talkative, quiet = run(project, *arguments), run(project, *arguments, "--quiet")
    assert (talkative.exit_code, quiet.exit_code) == (0, 0)
    assert "kmeans tea|2024-01 starts" in talkative.stderr
    assert "6 launched" in talkative.stdout
    assert (quiet.stdout, quiet.stderr) == ("", "")


def test_quiet_tells_what_failed_and_why_and_what_was_logged_last(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded, "defs", project.definitions)
    (project.root / "raw" / "month=2024-01" / "actions.jsonl").write_text("no JSON\n")
    result = run(project, "pipeline", "--month", "2024-01", "--month", "2024-02", "--category", "tea", "--quiet")
    assert result.exit_code == 1
    assert result.stdout == ""
    told, logged = result.stderr.split("What was logged last:")
    assert told.startswith("6 of 12 failed")
    assert re.search(r"\n2024-01 +grouped_users +.*actions.jsonl", told)
    assert re.search(r"\ntea\|2024-01 +5 assets +not run, because group_by_user 2024-01 failed\n", told)
    assert "2024-02 " not in told
    assert "kmeans tea|2024-02 starts" in logged


def test_what_is_held_back_is_that_of_other_processes_too(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), shared.held_back() as last:  # noqa: PT012
        print("ours")
        subprocess.run("echo theirs; seq 30; echo worse >&2", shell=True, check=True)  # noqa: S602  # no outside text
        raise ZeroDivisionError
    assert len(last) == 20
    assert last[-2:] == ["30\n", "worse\n"]
    assert capfd.readouterr() == ("", "")
    subprocess.run(["echo", "after"], check=True)
    assert capfd.readouterr() == ("after\n", "")


@pytest.mark.parametrize("option", ["--json", "--dry-run"])
def test_what_prints_nothing_shows_nothing(project: Project, option: str) -> None:
    result = run(project, "pipeline", "--quiet", option)
    assert result.exit_code == 2
    assert f"{option} does not go with it" in result.stderr


def test_a_dry_run_says_what_would_be_done_and_why_and_leaves_no_trace(project: Project) -> None:
    project.pipeline(["2024-01"], ["tea"], kmeans={"k": 2})
    project.write_category("bread", "tea-1")  # which is no partition yet
    project.write_category("pi|pe", "p")
    before = (project.instance.get_runs_count(), sorted(project.root.rglob("*")))

    def dry_run(*arguments: str) -> str:
        result = run(project, "pipeline", "--month", "2024-01", "--dry-run", *arguments)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    unchanged = dry_run("--category", "tea", "--k", "2")
    assert unchanged.endswith("\n\nnothing to launch, 5 to reuse\n")
    assert re.search(r"tea\|2024-01 +kmeans +reuse +as recorded \d{4}-\d\d-\d\d \d\d:\d\d UTC\n", unchanged)
    changed = dry_run("--category", "tea", "--k", "3")
    assert re.search(r"tea\|2024-01 +kmeans +launch +k 2 → 3\n", changed)
    assert re.search(
        r"\n\n3 to launch \(3 jobs\), 2 to reuse\nexpected: 1 launch; \d+ s, if one job runs after another\n$", changed
    )

    said = json.loads(dry_run("--k", "2", "--json"))
    assert (said["launch"], said["reuse"], said["impossible"]) == (12, 5, 1)
    assert (said["expected"]["launches"], said["expected"]["jobs"], said["expected"]["dollars"]) == (1, 10, None)
    by_name = {f"{target['asset']} {target['partition']}": target for target in said["partitions"]}
    assert by_name["kmeans bread|2024-01"]["why"] == "never made"
    assert by_name["clustering_inputs bread|2024-01"]["job"] == "make_clustering_inputs 2024-01"
    assert by_name["category pi|pe"]["action"] == "impossible"
    assert by_name["kmeans tea|2024-01"]["folder"].startswith(str(project.root))
    assert re.search(r"\n2024-05 +grouped_users +impossible +There is no raw data", dry_run("--month", "2024-05"))

    assert (project.instance.get_runs_count(), sorted(project.root.rglob("*"))) == before
    assert "bread" not in project.instance.get_dynamic_partitions("category")


def test_a_dry_run_of_what_was_never_made_does_not_guess_how_long_it_takes(project: Project) -> None:
    said = run(project, "pipeline", "--month", "2024-01", "--dry-run").stdout
    assert said.endswith("expected: 1 launch; nothing like it is on record, so how long it takes is not known\n")


@pytest.mark.parametrize(
    ("arguments", "months"),
    [
        (("--from", "2024-01", "--to", "2024-03"), ["2024-01", "2024-02", "2024-03"]),
        (("--from", "2024-01", "--to", "2024-01"), ["2024-01"]),
        (("--month", "2023-05", "--from", "2024-01", "--to", "2024-02"), ["2023-05", "2024-01", "2024-02"]),
    ],
)
def test_a_range_is_all_its_months(project: Project, arguments: tuple[str, ...], months: list[str]) -> None:
    result = run(project, "pipeline", *arguments, "--category", "tea", "--dry-run", "--json")
    planned = json.loads(result.stdout)["partitions"]
    assert sorted({target["partition"] for target in planned if target["asset"] == "grouped_users"}) == months


def test_a_range_without_an_end_goes_to_the_last_month_that_ended(project: Project) -> None:
    *_, last = partitions.months.get_partition_keys()
    result = run(project, "pipeline", "--from", last, "--category", "tea", "--dry-run", "--json")
    assert {target["partition"] for target in json.loads(result.stdout)["partitions"]} == {last, f"tea|{last}"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--from", "2024-03", "--to", "2024-01"), "2024-03 comes after 2024-01"),
        (("--to", "2024-01"), "its beginning is --from"),
        (("--from", "January"), "'January' is no month"),
    ],
)
def test_a_range_that_holds_no_month_is_refused(project: Project, arguments: tuple[str, ...], says: str) -> None:
    result = run(project, "pipeline", *arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("pipeline", "--month"), ["2024-01", "2024-02"]),
        (("pipeline", "--from"), ["2024-01", "2024-02"]),
        (("runs", "--category"), ["coffee", "games", "tea"]),
        (("compare", "a", "b", "--category"), ["coffee", "games", "tea"]),
        (("categories", "show"), ["coffee", "games", "tea"]),
    ],
)
def test_a_shell_completes_months_and_categories(
    project: Project, words: tuple[str, ...], offered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def complete(begun: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", " ".join(["audience-explorer", *words, begun]))
        monkeypatch.setenv("COMP_CWORD", str(len(words) + 1))
        result = CliRunner().invoke(
            main, env={"_AUDIENCE_EXPLORER_COMPLETE": "bash_complete"}, prog_name="audience-explorer"
        )
        return [line.split(",", 1)[1] for line in result.stdout.splitlines() if line]

    assert complete("") == offered
    assert complete(offered[-1][:-1])[-1:] == offered[-1:]
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", str(project.root / "nowhere"))
    assert complete("") == []


def test_an_interrupt_before_anything_runs_is_told_too(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared.Project, "run", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    result = run(project, "pipeline", "--quiet")
    assert (result.exit_code, result.stderr) == (130, "Interrupted before it was done.\n")


def test_an_s3_that_does_not_answer_is_told_in_a_line(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise EndpointConnectionError(endpoint_url="http://nowhere")

    monkeypatch.setattr(shared.Project, "run", fail)
    result = run(project, "pipeline")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == 'Error: AWS: Could not connect to the endpoint URL: "http://nowhere"\n'
