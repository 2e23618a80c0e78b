"""The page of a report: one HTML file that needs nothing else and asks nothing of any network."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from spark_jobs.audience_report import baselines
from spark_jobs.audience_report.cards import SOLIDITIES
from spark_jobs.audience_report.content import Content
from spark_jobs.audience_report.heat_map import MOST_PAGES
from spark_jobs.audience_report.months import period, short
from spark_jobs.clusters.action_mix import IN_WORDS
from spark_jobs.clusters.clearness import CLEARLY

COLORS = 12  # of segments; more than so many begin again


def render(content: Content) -> str:
    """The report as HTML."""
    styles = ["report.css", "mix.css", *(["months.css"] if content.months is not None else [])]
    scripts = ["report.js"]
    if content.baselines:
        styles, scripts = [*styles, "baselines.css"], [*scripts, "baselines.js"]
    values = {
        "report": content,
        "colors": COLORS,
        "most_pages": MOST_PAGES,
        "solidities": SOLIDITIES,
        "clearly": CLEARLY,
        "actions": IN_WORDS,
        "compared_with_all": baselines.ALL_OTHERS,
        "compared_with_largest": baselines.LARGEST,
    }
    return _render("report.html", values, styles, scripts)


@dataclass(frozen=True)
class Listed:
    """A report in an index."""

    month: str
    category: str
    private: bool
    link: str
    found: str  # such as `4 segments`
    people: int | None  # None for too few to say


def render_index(reports: Sequence[Listed]) -> str:
    """An index of reports as HTML: a row a category, a column a month."""
    months = sorted({report.month for report in reports}, reverse=True)
    categories = sorted({report.category for report in reports})
    at = {(report.category, report.month): report for report in reports}
    return _render(
        "index.html",
        {"months": months, "categories": categories, "at": at, "any_private": any(r.private for r in reports)},
    )


def render_bar(before: str | None, after: str | None) -> str:
    """The bar of a report that is served: links to the index, and to the months before and after, if there are any.

    Its look is in the style of the page that it is put into.
    """
    return _environment().get_template("bar.html").render(before=before, after=after)


def _render(
    template: str,
    values: Mapping[str, Any],
    styles: Sequence[str] = ("report.css",),
    scripts: Sequence[str] = ("report.js",),
) -> str:
    style, script = ("".join(map(_text, files)) for files in (styles, scripts))
    # Only this style and this script, byte for byte, and nothing from anywhere else.
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template(template)
    return page.render(**values, style=Markup(style), script=Markup(script), policy=policy).lstrip()  # noqa: S704


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FunctionLoader(_text),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"period": period, "short": short, "percent": _percent, "number": _number, "times": _times}
    return environment


@cache
def _text(name: str) -> str:
    # By the package, not by a path: executors may have it in an archive.
    return (resources.files("spark_jobs.audience_report") / "templates" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value + 0.0:,.0f}" if value == round(value) else f"{value:,.3g}"  # + 0.0: never -0


def _times(lift: float | None) -> str:
    return "–" if lift is None else f"{lift:g}×"
