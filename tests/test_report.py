"""The page of a report: what it says first, what it never says, and that it needs nothing else."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from spark_jobs import make_report, outputs
from spark_jobs.audience_report import curves
from spark_jobs.config import EngineConfig, ReportConfig
from spark_jobs.errors import InputError
from spark_jobs.reporting import Reporter
from spark_jobs.resources import ResourcesConfig
from tests.published_segments import list_again, make_k_selection, make_kmeans

EVIL = [
    '<script>alert("x")</script>',
    "'\"><img src=https://evil.example/x>",
    "{{ 7 * 7 }}",
    "=HYPERLINK(1)",
    "Ünï – 猫",
]


def make(folder: Path, k_selection: bool = True, **kmeans: Any) -> str:
    """The page of a made-up output of kmeans."""
    clusters = make_kmeans(folder / "kmeans", **kmeans)
    asked = {name: kmeans[name] for name in ("k", "users", "verdict") if name in kmeans}
    choice = make_k_selection(folder / "k", **asked) if k_selection else None
    run(clusters, str(folder / "report"), choice)
    return (folder / "report" / "report.html").read_text(encoding="utf-8")


def run(kmeans: str, output: str, k_selection: str | None = None, month: str = "2024-03") -> None:
    make_report.run(
        kmeans,
        output,
        k_selection,
        month,
        "coffee",
        ReportConfig(),
        EngineConfig(),
        ResourcesConfig().resolve(),
        Reporter(),
    )


class Page(HTMLParser):
    """A page's elements, and its text without scripts and styles."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open not in ("script", "style"):
            self.text += data

    @property
    def csv(self) -> dict[str, str]:
        """The tables that are offered, by name."""
        return {
            str(attributes["download"]): unquote(str(attributes["href"]).partition(",")[2])
            for _, attributes in self.elements
            if "download" in attributes
        }


def test_a_report_first_says_how_many_people_in_which_segments_into_what(tmp_path: Path) -> None:
    page = Page(make(tmp_path))
    summary = json.loads((tmp_path / "kmeans" / "summary.json").read_text())
    told = [page.text.index("Four segments among 10,940 people")]
    told.append(page.text.index("How large they are"))
    told += [page.text.index(segment["name"], told[1]) for segment in summary["segments"]]
    assert told == sorted(told)
    sections = (
        "What each segment is like",
        "Pages by segment",
        "How sure it is",
        "Using it",
        "Data",
        "Making it again",
    )
    for section in sections:
        told.append(page.text.index(section, told[-1]))
    assert "audience-explorer pipeline --month 2024-03 --category coffee" in page.text


@pytest.mark.parametrize(
    ("verdict", "users", "says"),
    [
        ("none", 5_000, "No segments: 5,000 people are one audience"),
        ("too_few", 37, "Too few active people to tell segments: 40 in all"),
        ("too_few", 0, "Nobody"),
        ("too_few", 9, "Fewer than 10 people"),
    ],
)
def test_without_segments_a_report_says_so_first_and_draws_none(
    tmp_path: Path, verdict: str, users: int, says: str
) -> None:
    page = Page(make(tmp_path, k=1, users=users, verdict=verdict))
    (heading,) = re.findall(r"<h1>(.*?)</h1>", (tmp_path / "report" / "report.html").read_text())
    assert heading == says
    drawn = {attributes.get("class", "") for _, attributes in page.elements}
    assert not [name for name in drawn if name and name.split()[0] in ("card", "heat", "whole")]


def test_of_fewer_than_ten_people_a_report_says_nothing_but_that(tmp_path: Path) -> None:
    page = Page(make(tmp_path, k=1, users=7, verdict="too_few"))
    assert set(page.csv) == {"data-quality.csv", "checks.csv", "parameters.csv"}
    assert page.csv["data-quality.csv"].splitlines() == ["what,value", "people,<10", "computed by,numpy 2.4.6"]


def test_no_exact_figure_of_the_outputs_is_in_a_report(tmp_path: Path) -> None:
    html = make(tmp_path, users=10_944)
    clusters = outputs.read_manifest(str(tmp_path / "kmeans"), "kmeans")["summary"]
    chosen = outputs.read_manifest(str(tmp_path / "k"), "k_selection")["summary"]
    exact = {clusters["users"], clusters["learned_from"]["users"], chosen["people"], chosen["people_judged"]}
    exact |= {row["smallest_segment"] for row in chosen["tried"]}
    plain = unquote(html).replace(",", "")
    assert not [figure for figure in exact if figure % 10 and re.search(rf"\b{figure}\b", plain)]
    assert "user-0" not in html, "nor any user"


def test_a_report_refers_to_nothing_outside_itself(tmp_path: Path) -> None:
    html = make(tmp_path, k=5, names=EVIL)
    page = Page(html)
    allowed = ("#", "data:")
    for _, attributes in page.elements:
        for name in ("src", "href", "action", "srcset", "data"):
            assert str(attributes.get(name, "#")).startswith(allowed)
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    (policy,) = (a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert not re.search(r"fetch|XMLHttp|import|eval|innerHTML|http", script)


def test_page_names_are_text_whatever_they_are(tmp_path: Path) -> None:
    page = Page(make(tmp_path, k=5, names=EVIL))
    for name in EVIL:
        assert name in page.text
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert "img" not in {tag for tag, _ in page.elements}
    assert "'=HYPERLINK(1)" in page.csv["pages-by-segment.csv"], "a spreadsheet must not compute it"


@pytest.mark.parametrize(("k", "pages", "most"), [(12, 40, 300_000), (50, 200, 1_000_000)])
def test_a_report_stays_small(tmp_path: Path, k: int, pages: int, most: int) -> None:
    html = make(tmp_path, k=k, pages=pages, users=3_000_000, k_selection=False)
    assert len(html.encode()) <= most
    assert len(re.findall(r"<tr><th scope=\"row\">[^<]*</th><td class=\"all\">", html)) == min(pages, 40)


def test_every_segment_has_its_most_telling_page_in_the_heat_map(tmp_path: Path) -> None:
    html = make(tmp_path, k=12, pages=200, users=300_000)
    heat = html[html.index('id="heat"') :]
    for segment in json.loads((tmp_path / "kmeans" / "summary.json").read_text())["segments"]:
        assert f'<th scope="row">{segment["distinctive"][0]["dimension_name"]}</th>' in heat


def test_a_given_k_is_not_called_a_finding_and_is_in_the_command(tmp_path: Path) -> None:
    config = {"k": 6, "label": "six", "seed": 7}
    page = Page(make(tmp_path, k=6, verdict=None, k_selection=False, config=config))
    assert "Six groups among 10,940 people" in page.text
    assert "Somebody set the number to six. Whether there really are six was not checked." in page.text
    assert "audience-explorer pipeline --month 2024-03 --category coffee --k 6 --seed 7\n" in page.text + "\n"
    assert "label" not in page.text, "the same output may have several"


def test_a_report_says_in_plain_words_how_sure_it_is_and_has_figures_for_statisticians(tmp_path: Path) -> None:
    sure = make(tmp_path / "segments")
    assert "Very sure that there are segments" in sure
    assert "Of all, about 3,650 did enough (8 or more likes or comments each) to judge by." in sure
    (hidden,) = re.findall(r"<details><summary>For statisticians</summary>(.*?)</details>", sure, re.DOTALL)
    assert "36.7, in standard errors" in hidden
    assert sure.count("standard errors") == 1
    none = make(tmp_path / "none", k=1, users=5_000, verdict="none")
    assert "No sign of segments: the pages hang together no more than chance could do." in none
    few = make(tmp_path / "few", k=1, users=37, verdict="too_few")
    assert "40 people, of whom about 10 did enough (8 or more likes or comments each) to judge by." in few
    assert 'id="verdict"' not in few


def test_a_report_says_how_to_get_the_people_of_a_segment(tmp_path: Path) -> None:
    page = Page(make(tmp_path / "segments"))
    command = "audience-explorer export --category coffee --month 2024-03 --cluster 0 --output people.csv"
    assert command in page.text
    assert "segments rename" not in page.text, "nothing is followed, so there is no name to give"
    assert 'id="using"' not in make(tmp_path / "none", k=1, users=5_000, verdict="none")


def test_of_few_people_a_report_shows_no_percentages(tmp_path: Path) -> None:
    few = Page(make(tmp_path / "few", k=1, users=150, verdict="too_few"))
    assert few.csv["pages.csv"].splitlines()[0] == "page,people"
    assert "They mostly" not in few.text
    many = Page(make(tmp_path / "many", k=1, users=5_000, verdict="none"))
    assert many.csv["pages.csv"].splitlines()[0] == "page,people,share"
    assert "They mostly" in many.text


def test_codes_of_gender_are_called_codes(tmp_path: Path) -> None:
    assert "f: 48%, m: 40%, not known: 12%" in Page(make(tmp_path / "letters")).text
    clusters = make_kmeans(tmp_path / "kmeans")
    summary = Path(clusters, "summary.json")
    summary.write_text(summary.read_text().replace('"f": 0.48', '"1": 0.48').replace('"m": 0.4', '"2": 0.4'))
    run(clusters, str(tmp_path / "report"))
    html = (tmp_path / "report" / "report.html").read_text()
    assert "code 1: 48%, code 2: 40%, not known: 12% (the codes are those of your data)" in html


def test_differences_of_nothing_do_not_look_like_a_cliff() -> None:
    values = [(1, -2.48e-07), (2, -0.0004), (3, -0.0051)]
    drawn = curves.curve(values, 1, "prediction", (0.0, 0.1))
    heights = [point.y for point in drawn.points]
    assert max(heights) - min(heights) < 0.1 * (drawn.bottom - drawn.grid[-1][0])
    assert drawn.grid[-1][1] == "0.1"


def test_a_private_category_is_called_so(tmp_path: Path) -> None:
    assert "marked private" in make(tmp_path / "private", private=True)
    assert "marked private" not in make(tmp_path / "open")


def test_every_table_of_a_report_is_there_as_csv(tmp_path: Path) -> None:
    html = make(tmp_path)
    page = Page(html)
    assert set(page.csv) == {
        *("segments.csv", "distinctive-pages.csv", "gender.csv", "pages-by-segment.csv", "number-of-segments.csv"),
        *("actions.csv", "data-quality.csv", "checks.csv", "parameters.csv", "comparisons.csv"),
    }
    header, *rows = page.csv["segments.csv"].splitlines()
    assert header.startswith("cluster_id,name,people,share,solidity,stability")
    assert len(rows) == 4


def test_the_fingerprint_of_a_report_follows_the_clusters_the_month_and_the_category(tmp_path: Path) -> None:
    of = make_report.step_fingerprint
    found = [
        of(ReportConfig(), "2024-03", "coffee", "a"),
        of(ReportConfig(), "2024-03", "coffee", "b"),
        of(ReportConfig(), "2024-04", "coffee", "a"),
        of(ReportConfig(), "2024-03", "tea", "a"),
    ]
    assert len(set(found)) == 4
    make(tmp_path)
    manifest = outputs.read_manifest(str(tmp_path / "report"), "audience_report")
    assert manifest["fingerprint"] == of(ReportConfig(), "2024-03", "coffee", "f" * 32)
    assert manifest["checks"]["self_contained"]["passed"]


def test_the_same_clusters_give_the_same_bytes(tmp_path: Path) -> None:
    assert make(tmp_path / "one") == make(tmp_path / "other")


def test_clusters_of_an_earlier_version_are_refused_by_name(tmp_path: Path) -> None:
    clusters = make_kmeans(tmp_path / "kmeans")
    summary = json.loads(Path(clusters, "summary.json").read_text())
    del summary["segments"]
    Path(clusters, "summary.json").write_text(json.dumps(summary))
    list_again(Path(clusters))
    with pytest.raises(InputError, match="made by an earlier version"):
        run(clusters, str(tmp_path / "report"))


def test_a_choice_of_k_that_the_clusters_were_not_made_from_is_refused(tmp_path: Path) -> None:
    clusters = make_kmeans(tmp_path / "kmeans")
    choice = make_k_selection(tmp_path / "k")
    manifest = Path(choice, "manifest.json")
    manifest.write_text(manifest.read_text().replace("b" * 32, "c" * 32))
    with pytest.raises(InputError, match="from another output of k_selection"):
        run(clusters, str(tmp_path / "report"), choice)


def test_a_page_that_refers_to_something_else_fails_its_check() -> None:
    for page in ('<img src="https://example.com/x">', '<a href="/home">', '<use xlink:href="x.svg#y">'):
        assert not make_report.self_contained(page).passed
    assert make_report.self_contained('<a href="#a"><a href="data:text/csv,x">').passed
