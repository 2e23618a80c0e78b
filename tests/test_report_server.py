"""The server of reports: an index and the current report of each partition, and nothing else below the root."""

import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path

import pytest
import uvicorn

from audience_explorer_dagster.planning import AUDIENCE_REPORT
from audience_explorer_dagster.reports.current import list_current
from audience_explorer_dagster.reports.served import Served
from audience_explorer_dagster.reports.server import hosts_of, make_app
from audience_explorer_dagster.store import Store
from spark_jobs import make_report
from spark_jobs.config import EngineConfig, ReportConfig
from spark_jobs.reporting import Reporter
from spark_jobs.resources import ResourcesConfig
from tests.published_segments import list_again, make_kmeans

SECRET = "user-0"


def publish(root: Path, category: str, month: str, private: bool = False, name: str = "made") -> Path:
    """Make a report the current one of a partition; its folder."""
    clusters = root / "kmeans" / f"month={month}" / f"category={category}" / name
    make_kmeans(clusters, private=private)
    folder = root / AUDIENCE_REPORT / f"month={month}" / f"category={category}" / name
    config, resources = ReportConfig(), ResourcesConfig().resolve()
    make_report.run(str(clusters), str(folder), None, month, category, config, EngineConfig(), resources, Reporter())
    (folder.parent / "current.json").write_text(json.dumps({"folder": str(folder), "fingerprint": "f" * 32}))
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("root")
    for month in ("2024-01", "2024-03", "2024-04"):
        publish(made, "coffee", month)
    publish(made, "games", "2024-03", private=True)
    return made


class Site:
    """A server of reports, asked for paths as they are written."""

    def __init__(self, port: int):
        self.port = port

    def ask(self, path: str, method: str = "GET", host: str = "127.0.0.1") -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", f"{host}:{self.port}")
        connection.endheaders()
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, headers, answer.read().decode()

    def get(self, path: str) -> str:
        status, _, text = self.ask(path)
        assert status == 200, text
        return text


@contextmanager
def serving(root: Path, private: bool = False) -> Iterator[Site]:
    app = make_app(Served(Store(root=str(root)), private), hosts_of("127.0.0.1", "https://reports.example/audience"))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield Site(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def site(root: Path) -> Iterator[Site]:
    with serving(root) as started:
        yield started


def test_the_index_leads_to_the_current_report_of_every_month_and_category(site: Site) -> None:
    links = re.findall(r'<a href="(.*?)"', site.get("/"))
    assert sorted(links) == ["coffee/2024-01", "coffee/2024-03", "coffee/2024-04"]
    for link in links:
        assert "segments among 10,940 people" in site.get(f"/{link}")


def test_a_report_has_links_to_the_index_and_to_its_months_before_and_after(site: Site, root: Path) -> None:
    bar = re.compile(r'<nav aria-label="Reports">.*?</nav>')

    def links(month: str) -> list[str]:
        (found,) = bar.findall(site.get(f"/coffee/{month}"))
        return re.findall(r'href="(.*?)"', found)

    assert links("2024-03") == ["../", "2024-01", "2024-04"]
    assert links("2024-01") == ["../", "2024-03"]
    assert links("2024-04") == ["../", "2024-03"]
    (file,) = (root / AUDIENCE_REPORT / "month=2024-03" / "category=coffee").glob("*/report.html")
    assert not bar.findall(file.read_text()), "the file stands alone"


def test_what_becomes_current_is_served_at_once(tmp_path: Path) -> None:
    old = publish(tmp_path, "coffee", "2024-01")
    with serving(tmp_path) as site:
        assert "coffee/2024-02" not in site.get("/")
        publish(tmp_path, "coffee", "2024-02")
        assert "coffee/2024-02" in site.get("/")
        new = publish(tmp_path, "coffee", "2024-01", name="newer")
        (new / "report.html").write_text((new / "report.html").read_text().replace("<h1>", "<h1>Newer: "))
        list_again(new)
        assert "Newer: " in site.get("/coffee/2024-01")
        (new / "manifest.json").unlink()
        assert site.ask("/coffee/2024-01")[0] == 404
        assert (old / "manifest.json").exists()


def test_private_categories_are_shown_only_if_asked_for(site: Site, root: Path) -> None:
    assert "games" not in site.get("/")
    assert site.ask("/games/2024-03")[0] == 404
    with serving(root, private=True) as of_all:
        assert "games/2024-03" in of_all.get("/")
        assert "marked private" in of_all.get("/games/2024-03")


def test_a_category_that_becomes_private_is_hidden_at_once_with_all_that_was_made_before(tmp_path: Path) -> None:
    for month in ("2024-01", "2024-02"):
        publish(tmp_path, "coffee", month)
    publish(tmp_path, "tea", "2024-01")
    (tmp_path / "categories").mkdir()
    pages = {"id": 1, "facebook": [{"id": "1", "name": "Coffee daily"}]}
    with serving(tmp_path) as site:
        assert "coffee/2024-02" in site.get("/")
        (tmp_path / "categories" / "coffee.json").write_text(json.dumps({**pages, "private": True}))
        assert re.findall(r'<a href="(.*?)"', site.get("/")) == ["tea/2024-01"]
        assert site.ask("/coffee/2024-01")[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "/coffee/2024-02",
        "/tea/2024-01",
        "/coffee",
        "/coffee/2024-01/",
        "/coffee/2024-01/report.html",
        "/coffee/made",
        "/coffee/2024-13",
        "/coffee/%EF%BC%92%EF%BC%90%EF%BC%92%EF%BC%94-01",
        "/../kmeans/2024-01",
        "/..%2f..%2fkmeans/2024-01",
        "/%2e%2e/2024-01",
        "/coffee%2f..%2fcoffee/2024-01",
        "/coffee%00/2024-01",
        "/coffee/2024-01%0a",
        "/coffee/..%2f..%2f..%2fkmeans%2fmonth=2024-01%2fcategory=coffee%2fmade%2fdata.json",
        "/audience_report/month=2024-01/category=coffee/made/manifest.json",
        "/kmeans/month=2024-01/category=coffee/made/data.json",
        "//etc/passwd",
        "/etc/passwd",
        "/docs",
        "/openapi.json",
    ],
)
def test_nothing_else_can_be_had(site: Site, path: str) -> None:
    status, headers, text = site.ask(path)
    assert status == 404
    assert re.fullmatch(r"There is no .*\.\n", text)
    assert headers["x-content-type-options"] == "nosniff"


def test_a_pointer_that_names_another_place_leads_nowhere_else(tmp_path: Path) -> None:
    folder = publish(tmp_path, "coffee", "2024-01")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "report.html").write_text(SECRET)
    (outside / "manifest.json").write_text((folder / "manifest.json").read_text())
    (folder.parent / "current.json").write_text(json.dumps({"folder": str(outside)}))
    with serving(tmp_path) as site:
        assert site.ask("/coffee/2024-01")[0] == 404
        assert "coffee/2024-01" not in site.get("/")


def test_pages_can_only_be_read(site: Site) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert site.ask("/coffee/2024-01", method)[0] == 405
    assert site.ask("/coffee/2024-01", "HEAD")[::2] == (200, "")


def test_a_page_runs_what_is_in_it_alone_and_is_kept_by_no_cache(site: Site) -> None:
    for path in ("/", "/coffee/2024-01"):
        _, headers, text = site.ask(path)
        (own,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', text)
        assert headers["content-security-policy"] == f"{unescape(own)}; frame-ancestors 'none'"
        assert headers["cache-control"] == "no-store, private"
        assert headers["x-content-type-options"] == "nosniff"
        assert SECRET not in text, "no user is in it"
    assert "default-src 'none'" in site.ask("/nothing/2024-01")[1]["content-security-policy"]


def test_a_name_that_was_made_to_point_here_is_refused(site: Site) -> None:
    for host in ("127.0.0.1", "localhost", "reports.example"):
        assert site.ask("/", host=host)[0] == 200
    assert site.ask("/", host="evil.example")[0] == 400


def test_a_root_that_cannot_be_read_is_told_without_saying_where_it_is(tmp_path: Path) -> None:
    folder = publish(tmp_path, "coffee", "2024-01")
    current = folder.with_name("current.json")
    current.unlink()
    current.mkdir()
    with serving(tmp_path) as site:
        status, _, text = site.ask("/coffee/2024-01")
        assert (status, text) == (503, "The reports can't be read just now. Try again later.\n")


def test_a_root_without_reports_has_an_index_that_says_so(tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        assert "There is no report yet." in site.get("/")


def test_reports_are_listed_by_the_files_below_the_root(root: Path) -> None:
    listed = list_current(Store(root=str(root)))
    assert [(one.month, one.category) for one in listed] == [
        ("2024-01", "coffee"),
        ("2024-03", "coffee"),
        ("2024-03", "games"),
        ("2024-04", "coffee"),
    ]
    assert {one.found for one in listed} == {"4 segments"}
    assert Path(listed[0].link).is_file()
