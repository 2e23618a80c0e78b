"""Real months: who did how much on which page of a category, and what sets their segments apart."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import scipy.sparse as sp

DATA = Path(__file__).parents[3] / "shared" / "data"


@dataclass(frozen=True)
class Month:
    """One category's audience in a month: n users with an action on one of d pages that somebody visited."""

    name: str
    counts: sp.csr_matrix  # (n, d)
    pages: list[str]  # (d,) their names


def ansible(category: str, month: str, data: Path = DATA) -> Month:
    """A month of a category of `data/ansible`, say `cloud` in `2018-07`."""
    name = f"ansible {category} {month}"
    return _month(name, _actions(data / "ansible" / "raw" / f"month={month}"), data / f"ansible/categories/{category}")


def lastfm(month: str, data: Path = DATA) -> Month:
    """A month of `data/lastfm`: what was played in `2011-05`, what was tagged in any other."""
    actions = _actions(data / "lastfm" / "raw" / f"month={month}")
    return _month(f"Last.fm {month}", actions, data / "lastfm/categories/artists")


def pooled(of: str, data: Path = DATA) -> Month:
    """All months of `cloud` or `network` of ansible, or of what was tagged on Last.fm (`tags`), as one."""
    if of == "tags":
        folders = [data / "lastfm" / "raw" / f"month={month}" for month in months("lastfm", data) if month != "2011-05"]
        category = data / "lastfm/categories/artists"
    else:
        folders = [data / "ansible" / "raw" / f"month={month}" for month in months("ansible", data)]
        category = data / f"ansible/categories/{of}"
    return _month(f"{of}, all months", pd.concat([_actions(folder) for folder in folders]), category)


def months(of: str, data: Path = DATA) -> list[str]:
    """The months that there are of `ansible` or `lastfm`."""
    return sorted(folder.name.removeprefix("month=") for folder in (data / of / "raw").glob("month=*"))


@lru_cache(maxsize=40)
def _actions(folder: Path) -> pd.DataFrame:
    """`user_id`, `page_id` and `count` of each row of a month's folder."""
    tables = []
    for file in sorted(folder.iterdir()):
        if file.name.endswith(".parquet"):
            tables.append(pq.read_table(file).to_pandas())
        else:
            with gzip.open(file, "rt") as lines:
                tables.append(pd.DataFrame.from_records([json.loads(line) for line in lines]))
    table = pd.concat(tables)
    return table.assign(count=table.get("count", 1))[["user_id", "page_id", "count"]]


def _month(name: str, actions: pd.DataFrame, category: Path) -> Month:
    file = json.loads(category.with_suffix(".json").read_text())
    names = {page["id"]: page["name"] for pages in file.values() if isinstance(pages, list) for page in pages}
    ours = actions[actions.page_id.isin(list(names))]
    user, users = pd.factorize(ours.user_id, sort=True)
    page, pages = pd.factorize(ours.page_id, sort=True)
    counts = sp.csr_matrix((ours["count"].to_numpy(float), (user, page)), shape=(len(users), len(pages)))
    counts.sum_duplicates()
    return Month(name, counts, [names[each] for each in pages])


def distinctive(counts: sp.csr_matrix, labels: np.ndarray, pages: Sequence[str], top: int = 10) -> list[list[str]]:
    """Of each segment, the `top` pages that set it apart from the others, the most distinctive first.

    By the z-score of the log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, "Fightin'
    Words"), on who visits a page rather than how often. The prior is the audience's popularity, worth as many visits as
    a tenth of all.
    """
    present = sp.csr_matrix((counts > 0).astype(float))
    everybody = np.asarray(present.sum(axis=0)).ravel()
    prior = 0.1 * everybody + 1e-9
    chosen = []
    for segment in range(labels.max() + 1):
        inside = np.asarray(present[labels == segment].sum(axis=0)).ravel()
        score = _log_odds(inside + prior) - _log_odds(everybody - inside + prior)
        score /= np.sqrt(1 / (inside + prior) + 1 / (everybody - inside + prior))
        chosen.append([pages[page] for page in np.argsort(-score, kind="stable")[:top]])
    return chosen


def _log_odds(visits: np.ndarray) -> np.ndarray:
    return np.log(visits / (visits.sum() - visits))
