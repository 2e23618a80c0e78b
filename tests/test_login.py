"""The deployed webserver and the reports behind deploy/nginx.conf: nobody gets in without a login."""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import started
from tests.ports import reserved_port

DEPLOY = Path(__file__).parents[1] / "deploy"
CONFIGURATION = (DEPLOY / "nginx.conf").read_text()
LOGIN = ("analyst", "correct horse")
UI, REPORTS = "explorer.example", "reports.example"
COOKIE = "0123456789abcdef0123456789abcdef"
BURST = 20  # requests that a stranger has at once, beside the first
QUERY = {"query": "{ version }"}


class Reports(BaseHTTPRequestHandler):
    """In place of the reports' server: says what it is asked."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.headers['Host']} {self.headers['Authorization']}".encode())

    do_POST = do_GET

    def log_message(self, *_: object) -> None: ...


class Site:
    """nginx with the deployment's configuration, its names, ports and files being the test's."""

    def __init__(self, folder: Path, tls: int, plain: int, webserver: int, reports: int, rate: str):
        self.folder, self.tls, self.plain = folder, tls, plain
        self.logins = folder / "logins"
        password = subprocess.run(
            ["openssl", "passwd", "-apr1", LOGIN[1]], capture_output=True, text=True, check=True
        ).stdout
        self.logins.write_text(f"{LOGIN[0]}:{password}")
        certificate = ["-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=test"]
        certificate += ["-addext", "subjectAltName=IP:127.0.0.1"]
        files = ["-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
        subprocess.run(["openssl", "req", "-x509", *certificate, *files], capture_output=True, check=True)
        changed = {
            "@UI_NAME@": UI,
            "@REPORTS_NAME@": REPORTS,
            "@COOKIE@": COOKIE,
            "rate=10r/m": f"rate={rate}",
            "listen [::]:80;": "",
            "listen [::]:443 ssl;": "",
            "listen 80": f"listen 127.0.0.1:{self.plain}",
            "listen 443": f"listen 127.0.0.1:{self.tls}",
            "/etc/audience-explorer/": f"{folder}/",
            "127.0.0.1:3000": f"127.0.0.1:{webserver}",
            "127.0.0.1:3001": f"127.0.0.1:{reports}",
        }
        text = CONFIGURATION
        for before, after in changed.items():
            assert before in text, before
            text = text.replace(before, after)
        temporary = "".join(f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi"))
        temporary += "".join(f"{name}_temp_path {folder}/{name};" for name in ("uwsgi", "scgi"))
        self.main = folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        self.main.write_text(
            f"{user} daemon off; pid {folder}/pid; error_log {folder}/log; events {{}}"
            f" http {{ access_log off; {temporary} {text} }}"
        )

    def ask(self, name: str, method: str = "GET", path: str = "/", **options: Any) -> requests.Response:
        url = f"https://127.0.0.1:{self.tls}{path}"
        trusted = str(self.folder / "tls.crt")
        return requests.request(method, url, headers={"Host": name}, verify=trusted, timeout=60, **options)


@pytest.fixture(scope="module")
def nginx() -> str:
    """Its program."""
    if shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        why = "nginx is missing (Debian: apt-get install nginx-light)"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    return str(shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, nginx: str) -> Iterator[Site]:
    """nginx before a real webserver of Dagster's. Strangers may ask as often as these tests do."""
    reports = ThreadingHTTPServer(("127.0.0.1", 0), Reports)
    threading.Thread(target=reports.serve_forever, daemon=True).start()
    folder = tmp_path_factory.mktemp("login")
    (folder / "home").mkdir()
    # The environment's own: `make test` has nothing of it on the path.
    program = Path(sys.executable).with_name("dagster-webserver")
    environment = {**os.environ, "DAGSTER_HOME": str(folder / "home")}
    with reserved_port() as tls, reserved_port() as plain, reserved_port() as webserver:
        site = Site(folder, tls, plain, webserver, reports.server_port, rate="10000r/s")
        dagster = [program, "--host", "127.0.0.1", "--port", str(webserver), "--empty-workspace"]
        with (
            started([*dagster, "--dagster-log-level", "error"], env=environment, cwd=folder),
            started([nginx, "-e", folder / "log", "-c", site.main], stderr=subprocess.DEVNULL),
        ):
            for port in (webserver, site.tls):
                wait_for_port(port)
            yield site
    reports.shutdown()


@pytest.fixture
def slow_site(tmp_path: Path, nginx: str) -> Iterator[Site]:
    """nginx before servers that answer at once. A stranger gets one more request a minute: no test takes as long."""
    behind = ThreadingHTTPServer(("127.0.0.1", 0), Reports)
    threading.Thread(target=behind.serve_forever, daemon=True).start()
    with reserved_port() as tls, reserved_port() as plain:
        site = Site(tmp_path, tls, plain, behind.server_port, behind.server_port, rate="1r/m")
        with started([nginx, "-e", tmp_path / "log", "-c", site.main], stderr=subprocess.DEVNULL):
            wait_for_port(site.tls)
            yield site
    behind.shutdown()


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on port {port}")


@pytest.mark.parametrize("login", [None, (LOGIN[0], "wrong"), ("somebody", LOGIN[1]), ("", "")])
@pytest.mark.parametrize(
    ("name", "method", "path"),
    [
        (UI, "GET", "/"),
        (UI, "POST", "/graphql"),
        (UI, "GET", "/dagit_info"),
        (UI, "GET", "/logs/%2e%2e/x"),
        (REPORTS, "GET", "/"),
        (REPORTS, "GET", "/coffee/2024-01"),
    ],
)
def test_nobody_gets_in_without_a_login(
    site: Site, name: str, method: str, path: str, login: tuple[str, str] | None
) -> None:
    assert site.ask(name, method, path, auth=login, json=QUERY).status_code == 401


def test_who_has_a_login_gets_the_ui_and_its_data(site: Site) -> None:
    page = site.ask(UI, auth=LOGIN)
    assert (page.status_code, "dagster" in page.text.lower()) == (200, True)
    assert page.headers["X-Frame-Options"] == "DENY"
    answer = site.ask(UI, "POST", "/graphql", auth=LOGIN, json=QUERY)
    assert re.match(r"\d+\.\d+", answer.json()["data"]["version"])


def test_the_reports_get_the_name_that_they_were_asked_by_and_no_password(site: Site) -> None:
    assert site.ask(REPORTS, auth=LOGIN).text == f"{REPORTS} None"
    assert site.ask(REPORTS, "POST", auth=LOGIN).status_code == 403, "they are only read"


def test_a_login_is_never_asked_for_in_clear(site: Site) -> None:
    answer = requests.get(
        f"http://127.0.0.1:{site.plain}/x", headers={"Host": UI}, timeout=60, allow_redirects=False, auth=LOGIN
    )
    assert (answer.status_code, answer.headers["Location"]) == (301, f"https://{UI}/x")


def answers(site: Site, times: int, name: str = UI, **options: Any) -> Counter[int]:
    """How often each status is the answer to the same request."""
    return Counter(site.ask(name, **options).status_code for _ in range(times))


def test_who_guesses_passwords_is_refused_after_some_also_the_right_one_and_under_both_names(slow_site: Site) -> None:
    guesses = answers(slow_site, 2 * BURST, auth=(LOGIN[0], "wrong"))
    assert guesses[401] >= BURST + 1, "a typing error or two are nothing"
    assert guesses[429] >= BURST - 5
    assert set(guesses) == {401, 429}
    for name in (UI, REPORTS):
        refused = slow_site.ask(name, auth=LOGIN)
        assert (refused.status_code, refused.cookies.get_dict()) == (429, {}), "no guess is told to be right"


def test_who_had_a_login_may_ask_as_often_as_the_ui_does_whoever_guesses_beside(slow_site: Site) -> None:
    for name in (UI, REPORTS):
        first = slow_site.ask(name, auth=LOGIN)
        assert first.cookies.get_dict() == {"audience_explorer": COOKIE}
        (cookie,) = first.cookies
        assert (cookie.secure, cookie.has_nonstandard_attr("HttpOnly"), cookie.path) == (True, True, "/")
    assert answers(slow_site, 2 * BURST, auth=(LOGIN[0], "wrong"))[429] > 0
    known = {"audience_explorer": COOKIE}
    for name in (UI, REPORTS):
        assert answers(slow_site, 5 * BURST, name, auth=LOGIN, cookies=known) == {200: 5 * BURST}
    assert "Set-Cookie" not in slow_site.ask(UI, auth=LOGIN, cookies=known).headers


def test_the_cookie_is_no_login_and_a_made_up_one_is_nothing(slow_site: Site) -> None:
    assert answers(slow_site, 2 * BURST, cookies={"audience_explorer": COOKIE}) == {401: 2 * BURST}
    unknown = slow_site.ask(UI, auth=(LOGIN[0], "wrong"))
    assert (unknown.status_code, unknown.cookies.get_dict()) == (401, {})
    made_up = answers(slow_site, 2 * BURST, auth=(LOGIN[0], "wrong"), cookies={"audience_explorer": "f" * 32})
    assert made_up[429] >= BURST - 5


def test_without_a_file_of_logins_everybody_is_refused(site: Site) -> None:
    site.logins.rename(site.folder / "away")
    try:
        assert site.ask(UI, auth=LOGIN).status_code in (403, 500)
        assert site.ask(REPORTS, auth=LOGIN).status_code in (403, 500)
    finally:
        (site.folder / "away").rename(site.logins)


# --- what holds without nginx


def test_the_services_are_for_their_own_machine_only() -> None:
    served = {}
    for unit in (DEPLOY / "systemd").glob("*.service"):
        (command,) = re.findall("^ExecStart=(.*)$", unit.read_text(), re.M)
        if "webserver" in command or "serve-reports" in command:
            served[unit.stem] = re.findall(r"--host (\S+)", command)
    assert served == {"audience-explorer-webserver": ["127.0.0.1"], "audience-explorer-reports": ["127.0.0.1"]}
    environment = (DEPLOY / "services.env").read_text()
    assert re.findall("^DAGSTER_GRPC_.*$", environment, re.M) == [
        "DAGSTER_GRPC_SOCKET=/run/audience-explorer/code.sock"
    ], "the code server, which asks nobody, has no port"


def test_containers_publish_their_ports_on_their_own_machine_only() -> None:
    readme = (DEPLOY / "README.md").read_text()
    ports = re.findall(r"PORT=(\S+) service", readme)
    assert ports == ["127.0.0.1:3000:3000", "127.0.0.1:3001:3001"]


def test_every_server_that_is_open_to_the_network_asks_for_a_login() -> None:
    servers = re.findall(r"^server \{.*?^\}", CONFIGURATION, re.M | re.S)
    assert len(servers) == 3
    for server in servers:
        if "proxy_pass" in server:
            assert "listen 443 ssl;" in server
            assert "auth_basic_user_file /etc/audience-explorer/logins;" in server
            assert "auth_basic off" not in server
            assert "limit_req zone=audience_explorer_strangers" in server
        else:
            assert "return 301 https://" in server
