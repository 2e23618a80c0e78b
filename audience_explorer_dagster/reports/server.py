"""A small web server of reports. It only reads, and asks nobody who they are: who reaches its port may read them."""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from audience_explorer_dagster.reports.served import Served, headers_of
from spark_jobs.errors import InputError, S3Error

_LOCAL = ("127.0.0.1", "localhost", "[::1]")


def make_app(served: Served, hosts: Collection[str] = ()) -> Starlette:
    """The server's application: `/` is the index, `/CATEGORY/MONTH` a report.

    Args:
        served: What it shows.
        hosts: The names by which it may be asked for, beside this machine's own: a page of another site, whose name was
            made to point here, can't read what a visitor may read.
    """

    # Not async: they read files or S3, each in a thread of its own.
    def index(_: Request) -> Response:
        return _as_page(served.index())

    def report(request: Request) -> Response:
        category, month = request.path_params["category"], request.path_params["month"]
        page = served.report(category, month)
        if page is None:
            raise HTTPException(404, "There is no report of this category in this month, or none that is shown here.")
        return _as_page(page)

    app = Starlette(
        routes=[Route("/", index), Route("/{category}/{month}", report)],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[*_LOCAL, *hosts], www_redirect=False)],
        exception_handlers={
            404: _refuse,
            405: _refuse,
            InputError: _fail,
            S3Error: _fail,
            OSError: _fail,
        },
    )
    app.router.redirect_slashes = False  # a redirect would say what exists
    return app


def hosts_of(host: str, url: str) -> list[str]:
    """The names by which a server on `host` is asked for, if `url` is its address for visitors."""
    named = urlsplit(url).hostname
    return [host, *([named] if named else [])]


def _as_page(page: str) -> Response:
    return HTMLResponse(page, headers=headers_of(page))


def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {404: "There is no such page. The list of all reports is at /.", 405: "Pages can only be read."}
    said = error.detail if error.status_code == 404 and error.detail != "Not Found" else known[error.status_code]
    return _as_sentence(said, error.status_code)


def _fail(_: Request, error: Exception) -> Response:
    # What went wrong may name places: it is for the log.
    print(f"A report can't be read: {error}", flush=True)
    return _as_sentence("The reports can't be read just now. Try again later.", 503)


def _as_sentence(text: str, status: int) -> Response:
    return PlainTextResponse(f"{text}\n", status, headers=headers_of(""))
