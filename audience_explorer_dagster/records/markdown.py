"""Texts of other people's in the UI, which renders metadata of Markdown."""

import re

from spark_jobs.terminal import visible

_MARKUP = re.compile(r"([\\`*_\[\]<>&|~#!])")


def as_text(text: str) -> str:
    """Markdown that shows a text as it is, in one line: no link, no picture that a browser fetches, no HTML.

    The name of a page is whatever somebody called it.
    """
    return _MARKUP.sub(r"\\\1", visible(text))
