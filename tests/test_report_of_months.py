"""The report of followed segments: names and colors that stay, what changed, sizes over months, and who went where."""

import json
import re
from collections.abc import Mapping, Sequence
from html import unescape
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from spark_jobs import make_report, outputs
from spark_jobs.audience_report.page import COLORS
from spark_jobs.config import EngineConfig, ReportConfig
from spark_jobs.errors import InputError
from spark_jobs.following import files
from spark_jobs.following.follow import Returned
from spark_jobs.following.state import Event, Segment, State
from spark_jobs.reporting import Reporter
from spark_jobs.resources import ResourcesConfig
from tests.published_segments import make_kmeans
from tests.test_report import Page

TEMPLATES = Path(make_report.__file__).parent / "audience_report" / "templates"


def segment(number: int, name: str, color: int | None = None, **differs: Any) -> Segment:
    known: dict[str, Any] = {
        "born": "2024-01",
        "seen": "2024-03",
        "ended": None,
        "share": 0.2,
        "likes": {},
        "everybody": {},
    }
    return Segment(**{**known, "id": number, "name": name, "color": number if color is None else color, **differs})


def state(month: str, segments: Sequence[Segment], groups: Sequence[Sequence[int]], **more: Any) -> State:
    """The segments after a month; a cluster a group, unless it is said of which group each is."""
    of_cluster = more.pop("group_of_cluster", tuple(range(len(groups))))
    return State(month, tuple(segments), tuple(map(tuple, groups)), of_cluster, more.pop("events", ()), **more)


def follow(
    folder: Path,
    states: Sequence[tuple[State, Sequence[int]]],
    moved: Sequence[Sequence[int]] | None = None,
    edited: Mapping[int, Sequence[str]] = MappingProxyType({}),
) -> str:
    """The output of follow_segments after some months, each with the people of its groups; figures are published."""
    history: list[dict[str, Any]] = []
    described: dict[str, Any] = {}
    for place, (of_month, sizes) in enumerate(states):
        since = states[place - 1][0].month if place else None
        described = files.describe(of_month, np.array(sizes), since, 10, history, edited)
        history = described["history"]
    (now, sizes), before, returned = states[-1], None, None
    if moved is not None:
        before, were = states[-2]
        of_clusters = np.zeros((len(were), len(now.group_of_cluster)), np.int64)
        of_clusters[:, [now.group_of_cluster.index(group) for group in range(len(now.groups))]] = moved
        returned = Returned(of_clusters, np.array(were), np.array(sizes))
    folder.mkdir(parents=True)
    (folder / "segments.json").write_text(json.dumps(described))
    pq.write_table(files.flows(before, returned, now, np.array(sizes), 10), folder / "flows.parquet")
    manifest = {
        "step": "segments",
        "fingerprint": "e" * 32,
        "inputs": ["f" * 32, "d" * 32],
        "files": [],
        "summary": described,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return str(folder)


def make(folder: Path, segments: str | None, **kmeans: Any) -> str:
    """The page of made-up clusters whose segments are followed."""
    clusters = make_kmeans(folder / "kmeans", **kmeans)
    run(clusters, str(folder / "report"), segments)
    return (folder / "report" / "report.html").read_text(encoding="utf-8")


def run(kmeans: str, output: str, segments: str | None) -> None:
    resources = ResourcesConfig().resolve()
    config = ReportConfig()
    make_report.run(
        kmeans, output, None, "2024-03", "coffee", config, EngineConfig(), resources, Reporter(), segments=segments
    )


def section(html: str, name: str) -> str:
    (found,) = re.findall(rf'<section id="{name}".*?</section>', html, re.DOTALL)
    return str(found)


def text(html: str) -> str:
    return re.sub(r"\s+", " ", Page(html).text)


FILTER, ESPRESSO, CHAINS, OFFICE = (
    segment(1, "Filter", 5),
    segment(2, "Espresso", 3),
    segment(3, "Chains", 14),
    segment(4, "Office", 0),
)
FOUR = (FILTER, ESPRESSO, CHAINS, OFFICE)
FEBRUARY = (state("2024-02", FOUR, [[1], [2], [3], [4]]), (4_004, 3_003, 2_002, 1_001))


def test_segments_have_the_names_and_colors_that_they_have_in_all_months(tmp_path: Path) -> None:
    march = state("2024-03", FOUR, [[2], [1], [4], [3]])
    html = make(tmp_path, follow(tmp_path / "segments", [FEBRUARY, (march, (4_000, 3_000, 2_000, 1_000))]))
    expected = [(2, "Espresso", 3), (1, "Filter", 5), (4, "Office", 0), (3, "Chains", 14 % COLORS)]
    cards = re.findall(
        r'<article class="card c(\d+)".*?</span> (.*?)</h3>.*?<code>segment_id (.*?)</code>', html, re.DOTALL
    )
    assert [(int(number), name, int(color)) for color, name, number in cards] == expected
    heat = section(html, "pages")
    heads = re.findall(r'<th scope="col" class="c(\d+)"><span class="vertical">(.*?)</span>', heat)
    assert [(name, int(color)) for color, name in heads] == [(name, color) for _, name, color in expected]
    overview = re.findall(
        r'<tr class="c(\d+)">\s*<td>.*?<a href="#segment-\d+">(.*?)</a>', section(html, "segments"), re.DOTALL
    )
    assert [(name, int(color)) for color, name in overview] == [(name, color) for _, name, color in expected]
    rows = Page(html).csv["segments.csv"].splitlines()
    assert [row.rpartition(",")[2] for row in rows] == ["segment_ids", "2", "1", "4", "3"]
    assert "The largest is “Espresso”" in text(html)


def test_a_group_of_several_segments_and_a_segment_of_several_groups_are_called_so(tmp_path: Path) -> None:
    march = state("2024-03", FOUR, [[3], [1, 2], [4]], group_of_cluster=(0, 1, 0, 2))
    html = make(tmp_path, follow(tmp_path / "segments", [FEBRUARY, (march, (5_000, 3_000, 2_000))]))
    names = re.findall(r'<h3 id="segment-\d+-name"><span class="badge">\d+</span> (.*?)</h3>', html)
    assert names == ["Chains (part 1)", "Filter / Espresso", "Chains (part 2)", "Office"]
    assert len(set(re.findall(r'<article class="card c(\d+)"', html))) == 3, "both parts have one color"
    changed = text(section(html, "changed"))
    assert "“Filter” and “Espresso” are in one group this month, and all live on." in changed
    assert "“Chains” is in several groups, 1 and 3, which are not clearly apart." in changed


def test_groups_that_somebody_merged_are_one_segment_wherever_segments_are_counted(tmp_path: Path) -> None:
    gone = segment(4, "Office", 0, ended="2024-03")
    events = (Event("merge", "2024-03", (4, 1), (1,), by_hand=True),)
    march = state(
        "2024-03", (FILTER, ESPRESSO, CHAINS, gone), [[1], [2], [3]], group_of_cluster=(1, 0, 2, 0), events=events
    )
    moved = [[2_000, 0, 0], [0, 2_000, 0], [0, 0, 1_000], [900, 0, 0]]
    followed = follow(tmp_path / "segments", [FEBRUARY, (march, (5_544, 3_003, 2_002))], moved, {1: ["merged"]})
    html = make(tmp_path, followed)
    said = text(html)
    assert "Three segments among 10,940 people" in said
    assert "The largest is “Filter” with 53%, the smallest “Chains” with " in said
    overview = section(html, "segments")
    rows = re.findall(
        r'class="badge">(.*?)</span>.*?<a href="#segment-\d">(.*?)</a>.*?<td class="num">(.*?)</td>',
        overview,
        re.DOTALL,
    )
    assert rows[0] == ("2, 4", "Filter", "5,540"), "published as such, not added up from its parts"
    assert [name for _, name, _ in rows] == ["Filter", "Espresso", "Chains"]
    first, *others = Page(html).csv["segments.csv"].splitlines()[1:]
    assert first.startswith("1 3,Filter,5540,0.53,")
    assert len(others) == 2
    cards = re.findall(r'<span class="badge">\d</span> (.*?)</h3>', html)
    assert cards == ["Espresso", "Filter (part 1)", "Chains", "Filter (part 2)"]
    assert said.count("Part of “Filter”, which is 2 and 4 together: 5,540 people, 53%.") == 2
    assert "“Filter” has several parts, 2 and 4, because somebody merged them by hand." in said
    assert "not clearly apart" not in said
    were = [text(row) for row in re.findall(r'<th scope="row" class="c\d+">.*?</th>', section(html, "flows"))]
    assert were == ["1 Espresso", "· Filter", "3 Chains", "· Office"], "in February, it was not of clusters 2 and 4"
    assert "audience-explorer export --category coffee --month 2024-03 --segment Filter --output people.csv" in said
    assert "audience-explorer segments rename coffee 1 'A better name'" in said
    assert "merged into “Filter” in Mar 2024" in section(html, "sizes")
    manifest = outputs.read_manifest(str(tmp_path / "report"), "audience_report")
    assert manifest["rows"] == {"segments": 3}
    assert manifest["summary"]["headline"] == "Three segments among 10,940 people"
    assert (manifest["summary"]["k"], manifest["summary"]["shown"]) == (4, 3)


def test_where_somebody_merged_all_groups_a_page_does_not_say_that_they_are_not_apart(tmp_path: Path) -> None:
    march = state("2024-03", (FILTER,), [[1]], group_of_cluster=(0, 0, 0, 0))
    html = make(tmp_path, follow(tmp_path / "segments", [FEBRUARY, (march, (9_000,))], edited={1: ["merged"]}))
    assert "Its groups are all “Filter” now: somebody merged them by hand." in section(html, "changed")
    assert "not clearly apart" not in html


def test_a_page_says_what_changed_in_words(tmp_path: Path) -> None:
    events = (
        Event("birth", "2024-03", (), (5,)),
        Event("death", "2024-03", (3,), ()),
        Event("split", "2024-03", (1,), (1, 6)),
    )
    known = (
        *(FILTER, ESPRESSO, segment(3, "Chains", ended="2024-03"), OFFICE),
        *(segment(5, "Iced", 7, born="2024-03"), segment(6, "Kenya", 8, born="2024-03")),
        segment(7, "Tea", 9, born="2024-03"),
    )
    march = state("2024-03", known, [[1], [2], [4], [5], [6], [7]], events=events, told_apart={7: 4})
    followed = follow(tmp_path / "segments", [FEBRUARY, (march, (2_000, 1_900, 1_800, 1_700, 1_600, 1_500))])
    html = make(tmp_path, followed, k=6)
    changed = section(html, "changed")
    assert "What changed since February 2024" in changed
    assert [text(line).strip() for line in re.findall(r"<li>.*?</li>", changed)] == [
        "New “Iced” is new: hardly anybody was like that before.",
        "Gone “Chains” is gone: hardly anybody is like that any more.",
        "Split “Filter” is two groups now: “Filter” and “Kenya”.",
    ]
    assert "“Tea” is told apart from now on. Such people were there before, among others." in text(changed)
    assert "No segment appeared" not in changed
    stories = dict(
        re.findall(r'<span class="name">(.*?)</span>(?:<span class="into">(.*?)</span>)?</th>', section(html, "sizes"))
    )
    assert stories == {
        **{"Filter": "“Kenya” split off in Mar 2024", "Espresso": "", "Office": "", "Iced": "new in Mar 2024"},
        **{
            "Kenya": "split from “Filter” in Mar 2024",
            "Tea": "told apart since Mar 2024",
            "Chains": "gone in Mar 2024",
        },
    }


def test_where_nothing_changed_and_in_the_first_month_a_page_says_so(tmp_path: Path) -> None:
    march = (state("2024-03", FOUR, [[1], [2], [3], [4]]), (4_000, 3_000, 2_000, 1_000))
    later = make(tmp_path / "later", follow(tmp_path / "segments", [FEBRUARY, march]))
    assert "No segment appeared, ended, split or merged since February 2024." in later
    first = make(tmp_path / "first", follow(tmp_path / "only", [march]))
    assert "This is the first month that is followed." in first
    assert 'id="sizes"' not in first, "a month alone is no series"
    assert 'id="flows"' not in first


@pytest.mark.parametrize(("verdict", "users"), [("none", 5_000), ("too_few", 37), ("too_few", 7)])
def test_a_month_without_segments_draws_none_and_says_that_they_live_on(
    tmp_path: Path, verdict: str, users: int
) -> None:
    march = state("2024-03", FOUR, [[1, 2, 3, 4]])
    followed = follow(tmp_path / "segments", [FEBRUARY, (march, (users,))], [[users // 2], [0], [0], [0]])
    html = make(tmp_path, followed, k=1, users=users, verdict=verdict)
    assert (
        "March 2024 does not tell segments apart. It can't show them: “Filter”, “Espresso”, “Chains” and “Office”"
        " live on, unseen." in text(html)
    )
    assert not re.search(r'<section id="(segments|sizes|flows|profiles|pages)"', html)


def test_groups_that_are_not_clearly_apart_keep_their_own_names(tmp_path: Path) -> None:
    march = state("2024-03", FOUR, [[1, 2, 3, 4]], group_of_cluster=(0, 0, 0, 0))
    html = make(tmp_path, follow(tmp_path / "segments", [FEBRUARY, (march, (9_000,))], [[900], [800], [700], [600]]))
    own = [row["name"] for row in json.loads((tmp_path / "kmeans" / "summary.json").read_text())["segments"]]
    assert re.findall(r'<h3 id="segment-\d+-name"><span class="badge">\d+</span> (.*?)</h3>', unescape(html)) == own
    assert "Its groups are not clearly apart" in section(html, "changed")
    assert section(html, "sizes").count("not told apart") == 4
    assert 'class="shade"' in section(html, "sizes")
    assert 'id="flows"' not in html


def test_where_no_group_was_ever_clearly_apart_there_is_nothing_to_draw(tmp_path: Path) -> None:
    untold = [(state(f"2024-0{n}", (), [[]], group_of_cluster=(0, 0, 0, 0)), (9_000,)) for n in (2, 3)]
    html = make(tmp_path, follow(tmp_path / "segments", untold, [[900]]))
    assert "Nothing that these months can show: they have no segments to follow." in html
    assert "No two of its groups are clearly apart, so there is no segment to follow yet." in html
    assert not re.search('id="(sizes|flows)"', html)


def test_sizes_have_gaps_where_months_are_missing_and_marks_where_segments_began_and_ended(tmp_path: Path) -> None:
    tea, gone = segment(3, "Tea", born="2024-05"), segment(2, "Espresso", ended="2024-05")
    first = [(state(f"2024-0{n}", (FILTER, ESPRESSO), [[1], [2]]), (300 + n, 700)) for n in (1, 2)]
    april = (state("2024-04", (FILTER, ESPRESSO), [[1], [2]]), (404, 600))
    events = (Event("birth", "2024-05", (), (3,)), Event("death", "2024-05", (2,), ()))
    may = (state("2024-05", (FILTER, gone, tea), [[1], [3]], events=events), (500, 500))
    sizes = section(make(tmp_path, follow(tmp_path / "segments", [*first, april, may]), k=2), "sizes")
    assert sizes.count('<rect class="shade" x="240.0" width="120.0"') == 3, "March, in each of three drawings"
    drawn = {
        name: dict(re.findall(r'<path class="(\w+)" d="(.*?)"/>', drawing))
        for name, drawing in re.findall(
            r'<span class="name">(.*?)</span>.*?(<svg class="trend".*?</svg>)', sizes, re.DOTALL
        )
    }
    assert [len(re.findall("M", drawn[name].get("line", ""))) for name in ("Filter", "Espresso", "Tea")] == [2, 1, 0]
    assert drawn["Filter"]["line"].startswith("M60 "), "the middle of the first of five months"
    assert drawn["Espresso"]["ends"].startswith("M420 ")
    assert drawn["Tea"]["begins"].startswith("M540 ")
    assert {name for name in drawn if "begins" in drawn[name] or "ends" in drawn[name]} == {"Espresso", "Tea"}
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th>(.*?)</tr>", sizes)
    table = {name: [text(cell) for cell in re.findall(r"<td.*?>(.*?)</td>", cells)] for name, cells in rows}
    assert table == {
        "Everybody": ["1,000", "1,000", "–", "1,000", "1,000"],
        "Filter": ["300", "300", "–", "400", "500"],
        "Tea": ["–", "–", "–", "–", "500"],
        "Espresso": ["700", "700", "–", "600", "–"],
    }


def test_who_went_where_has_who_came_and_left(tmp_path: Path) -> None:
    before = (state("2024-02", (FILTER, ESPRESSO), [[1], [2]]), (400, 300))
    march = (state("2024-03", (FILTER, ESPRESSO), [[2], [1]]), (500, 200))
    html = make(tmp_path, follow(tmp_path / "segments", [before, march], [[40, 100], [203, 7]]), k=2)
    csv = Page(html).csv["who-went-where.csv"].splitlines()
    assert csv == [
        "segment in 2024-02,Espresso in 2024-03,Filter in 2024-03,not active in 2024-03",
        "Espresso,200,<10,90",
        "Filter,40,100,260",
        "not active in 2024-02,260,90,",
    ], "those who stayed are on the diagonal"
    flows = section(html, "flows")
    rows = [
        [text(cell).strip() for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)]
        for row in re.findall(r"<tr.*?>(.*?)</tr>", flows)
    ]
    assert [row[1:] for row in rows[1:]] == [["200", "<10", "90"], ["40", "100", "260"], ["260", "90", ""]]
    assert re.findall(r'class="(p\d|none) stayed"', flows) == ["p4", "p3"], "200 of 300, and 100 of 400"


def test_of_fewer_than_ten_people_no_month_and_no_flow_says_how_many(tmp_path: Path) -> None:
    few = (7, 3_001)
    before = (state("2024-02", (FILTER, ESPRESSO), [[1], [2]]), few)
    march = (state("2024-03", (FILTER, ESPRESSO), [[1], [2]]), (8, 3_002))
    html = make(tmp_path, follow(tmp_path / "segments", [before, march], [[4, 3], [2, 2_100]]), k=2)
    for name in ("sizes", "flows"):
        part = re.sub(r"<svg.*?</svg>|<span class=\"badge\">.*?</span>", "", section(html, name), flags=re.DOTALL)
        said = re.sub(r"(Feb|Mar|February|March) 2024|fewer than 10|<10|\d+%", "", text(part))
        figures = [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", said)]
        assert figures
        assert not [figure for figure in figures if figure < 10 or figure % 10]
    for name in ("sizes-by-month", "who-went-where"):
        cells = [cell for row in Page(html).csv[f"{name}.csv"].splitlines()[1:] for cell in row.split(",")]
        assert "<10" in cells
    assert [row.split(",")[3:5] for row in Page(html).csv["sizes-by-month.csv"].splitlines()[1:]] == [
        *(["<10", ""], ["3000", "1.0"]),
        *(["<10", ""], ["3000", "1.0"]),
    ]


def test_without_followed_segments_a_page_has_nothing_of_them(tmp_path: Path) -> None:
    html = make(tmp_path, None)
    styles = ("report.css", "mix.css", "baselines.css")
    style = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in styles)
    assert f"<style>{style}</style>" in html
    assert not re.search(r'id="(changed|sizes|flows)"|segment_id', html)
    of = make_report.step_fingerprint
    manifest = outputs.read_manifest(str(tmp_path / "report"), "audience_report")
    assert manifest["fingerprint"] == of(ReportConfig(), "2024-03", "coffee", "f" * 32)


def test_a_report_is_made_of_the_clusters_and_of_their_followed_segments(tmp_path: Path) -> None:
    followed = follow(tmp_path / "segments", [FEBRUARY])
    make(tmp_path, followed)
    manifest = outputs.read_manifest(str(tmp_path / "report"), "audience_report")
    assert manifest["inputs"] == ["f" * 32, "e" * 32]
    of = make_report.step_fingerprint
    assert manifest["fingerprint"] == of(ReportConfig(), "2024-03", "coffee", "f" * 32, "e" * 32)
    assert manifest["checks"]["self_contained"]["passed"]
    others = make_kmeans(tmp_path / "others", fingerprint="9" * 32)
    with pytest.raises(InputError, match="has the segments of other clusters than"):
        run(others, str(tmp_path / "refused"), followed)


def test_segments_that_an_earlier_version_followed_are_refused(tmp_path: Path) -> None:
    followed = follow(tmp_path / "segments", [FEBRUARY])
    described = json.loads(Path(followed, "segments.json").read_text())
    del described["history"]
    Path(followed, "segments.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match="was made by an earlier version"):
        make(tmp_path, followed)


def _year(k: int) -> tuple[list[tuple[State, Sequence[int]]], list[list[int]]]:
    """Twelve months of k segments with names like real ones, in each of which one is born and one dies."""
    names = [f"2023-{number:02}" for number in range(4, 13)] + [f"2024-{number:02}" for number in range(1, 4)]
    months: list[tuple[State, Sequence[int]]] = []
    for number, name in enumerate(names):
        living = range(1 + number, k + 1 + number)
        segments = [
            segment(
                n,
                f"Harbor Society {n}, Velvet Growers {n}",
                n % k,
                born=names[max(0, n - k)],
                ended=None if n in living else names[n],
            )
            for n in range(1, living[-1] + 1)
        ]
        events = (Event("death", name, (number,), ()), Event("birth", name, (), (living[-1],))) if number else ()
        of_month = state(name, segments, [[n] for n in living], events=events)
        months.append((of_month, [20_000 + 1_000 * n for n in range(k)]))
    return months, [[100 + 10 * j + i for j in range(k)] for i in range(k)]


@pytest.mark.parametrize(("k", "pages", "most"), [(12, 40, 300_000), (50, 200, 1_000_000)])
def test_a_report_of_a_year_stays_small_and_refers_to_nothing_outside(
    tmp_path: Path, k: int, pages: int, most: int
) -> None:
    html = make(tmp_path, follow(tmp_path / "segments", *_year(k)), k=k, pages=pages, users=3_000_000)
    assert len(html.encode()) <= most
    assert make_report.self_contained(html).passed
    assert not [name for _, attributes in Page(html).elements for name in attributes if name == "style"]
    assert section(html, "sizes").count('<svg class="trend"') == k + 11
    assert "no longer followed" not in html, "all who ended have an event"


def test_names_are_text_whatever_they_are(tmp_path: Path) -> None:
    evil = (segment(1, '<script>alert("x")</script>'), segment(2, "=HYPERLINK(1)"))
    months = [(state(f"2024-0{n}", evil, [[1], [2]]), (300, 200)) for n in (2, 3)]
    page = Page(make(tmp_path, follow(tmp_path / "segments", months, [[200, 20], [20, 90]]), k=2))
    assert [tag for tag, _ in page.elements].count("script") == 1
    for table in ("segments", "sizes-by-month", "who-went-where"):
        assert "'=HYPERLINK(1)" in page.csv[f"{table}.csv"], "a spreadsheet must not compute it"


def test_every_table_of_the_months_has_a_csv(tmp_path: Path) -> None:
    march = (state("2024-03", FOUR, [[1], [2], [3], [4]]), (400,) * 4)
    html = make(tmp_path, follow(tmp_path / "segments", [FEBRUARY, march], [[9] * 4] * 4))
    assert {"sizes-by-month.csv", "who-went-where.csv"} <= set(Page(html).csv)
