"""The choice on each card of a report: whom its segment is compared with."""

import csv
import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_jobs.audience_report import baselines
from tests.published_segments import list_again, make_kmeans
from tests.test_report import Page, make, run


def cards(html: str) -> list[str]:
    return html.split('<article class="card')[1:]


def headings(card: str) -> list[str]:
    return re.findall(r"<h4>Compared with <b>(.*?)</b></h4>", card)


def test_a_card_compares_its_segment_with_everybody_and_each_other_one(tmp_path: Path) -> None:
    html = make(tmp_path)
    names = [segment["name"] for segment in json.loads((tmp_path / "kmeans" / "summary.json").read_text())["segments"]]
    for number, card in enumerate(cards(html)):
        others = [f"{other + 1} · {name}".replace("&", "&amp;") for other, name in enumerate(names) if other != number]
        assert headings(card) == ["everybody", *others]
        assert card.count('<details class="against">') == 1, "folded where there is no JavaScript"
        assert card.index("Elsewhere") < card.index("Compared with"), "all others come first"


def test_a_comparison_shows_the_strongest_pages_with_published_figures(tmp_path: Path) -> None:
    page = Page(make(tmp_path))
    published = {
        (str(row["cluster_id"]), str(row["baseline_cluster_id"] or 0), row["dimension_id"]): row
        for row in pq.read_table(tmp_path / "kmeans" / "comparisons.parquet").to_pylist()
        if row["baseline"] == "segment"
    }
    shown = [row for row in csv.DictReader(io.StringIO(page.csv["comparisons.csv"])) if row["baseline"] != "everybody"]
    assert len(shown) > 20
    for row in shown:
        of = published.pop((row["cluster_id"], row["baseline"], row["dimension_id"]))
        assert of["distinctive"]
        for name in ("people", "share", "baseline_people", "baseline_share", "lift", "lift_low", "lift_high"):
            assert row[name] == ("" if of[name] is None else str(of[name]))
        assert f"{of['lift']:g}×" in page.text
    pairs = {(row["cluster_id"], row["baseline"]) for row in shown}
    weakest = {
        pair: min(float(row["lift"]) for row in shown if (row["cluster_id"], row["baseline"]) == pair) for pair in pairs
    }
    left_out = [(key[:2], row["lift"]) for key, row in published.items() if row["distinctive"] and key[:2] in pairs]
    assert left_out
    assert all(lift <= weakest[pair] for pair, lift in left_out)


def test_of_many_segments_each_is_compared_with_the_largest_others(tmp_path: Path) -> None:
    html = make(tmp_path, k=20, pages=60, users=300_000)
    for number, card in enumerate(cards(html)):
        compared = [int(heading.split(" ")[0]) - 1 for heading in headings(card)[1:]]
        assert compared == [other for other in range(baselines.LARGEST) if other != number]
    assert "with each of the 8 largest" in html
    assert "with each of the 8 largest" not in make(tmp_path / "few")


def test_where_no_page_sets_a_segment_apart_from_another_it_says_so(tmp_path: Path) -> None:
    clusters = Path(make_kmeans(tmp_path / "kmeans"))
    rows = pq.read_table(clusters / "comparisons.parquet")
    column = rows.schema.get_field_index("distinctive")
    none = [row["distinctive"] and row["baseline_cluster_id"] != 1 for row in rows.to_pylist()]
    pq.write_table(rows.set_column(column, "distinctive", pa.array(none)), clusters / "comparisons.parquet")
    run(str(clusters), str(tmp_path / "report"))
    card = cards((tmp_path / "report" / "report.html").read_text())[0]
    block = card[card.index("Compared with <b>2 ·") : card.index("Compared with <b>3 ·")]
    assert "No page sets it apart." in block


def test_against_everybody_the_whole_month_has_a_column_where_its_people_are_known(tmp_path: Path) -> None:
    assert "Whole month" not in make(tmp_path / "unknown")
    clusters = Path(make_kmeans(tmp_path / "kmeans"))
    rows = pq.read_table(clusters / "profiles.parquet")
    column = rows.schema.get_field_index("month_share")
    month = pa.array([0.07] * rows.num_rows, pa.float64())
    pq.write_table(rows.set_column(column, "month_share", month), clusters / "profiles.parquet")
    list_again(clusters)
    run(str(clusters), str(tmp_path / "report"))
    for card in cards((tmp_path / "report" / "report.html").read_text()):
        everybody, *others = card.split("<h4>Compared with")[1:]
        assert "Whole month" in everybody
        assert "<td>7%</td>" in everybody
        assert not any("Whole month" in other for other in others)


def test_clusters_that_were_made_without_comparisons_have_no_choice(tmp_path: Path) -> None:
    clusters = Path(make_kmeans(tmp_path / "kmeans"))
    manifest = json.loads((clusters / "manifest.json").read_text())
    manifest["files"] = [file for file in manifest["files"] if file["path"] != "comparisons.parquet"]
    (clusters / "manifest.json").write_text(json.dumps(manifest))
    (clusters / "comparisons.parquet").unlink()
    run(str(clusters), str(tmp_path / "report"))
    html = (tmp_path / "report" / "report.html").read_text()
    assert len(cards(html)) == 4
    assert "Compared with" not in html
    assert "comparisons.csv" not in html


@pytest.mark.parametrize("k", [2, 4])
def test_a_search_for_a_segment_does_not_find_those_that_are_compared_with_it(tmp_path: Path, k: int) -> None:
    """In Chromium, see `acceptance/browser/read_reports.py`; here, that the script leaves the comparisons out."""
    html = make(tmp_path, k=k)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert '".against, .versus"' in script
    assert "textContent.toLowerCase().includes" not in script
