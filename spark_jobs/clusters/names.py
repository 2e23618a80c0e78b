"""Short names of clusters, made of the pages that set them apart."""

from collections.abc import Sequence

EVERYBODY = "Everybody"  # the one cluster there is, where nothing was cut
NOTHING = "Mixed"  # a cluster that no page sets apart

PAGES = 2  # in a name, at most
_LONGEST_PAGE = 28  # letters of a page in a name


def names_of(pages: Sequence[Sequence[str]]) -> list[str]:
    """A name for each cluster, no two alike.

    Args:
        pages: The names of the pages that set each cluster apart from all others, the most telling first; no page is
            of two clusters, but pages may have the same name.
    """
    if len(pages) == 1:
        return [EVERYBODY]
    given: list[str] = []
    for of_cluster in pages:
        name = ", ".join(_short(page) for page in of_cluster[:PAGES]) or NOTHING
        given.append(_unlike(name, given))
    return given


def _short(page: str) -> str:
    text = " ".join(page.split())
    return text if len(text) <= _LONGEST_PAGE else text[: _LONGEST_PAGE - 1].rstrip() + "…"


def _unlike(name: str, given: Sequence[str]) -> str:
    """The name, with a number where it is given already."""
    number, unlike = 1, name
    while unlike in given:
        number += 1
        unlike = f"{name} ({number})"
    return unlike
