"""The pictures of docs/vectors.md: what each step of scaling does to an audience that is made up here.

    python docs/vectors.py

writes them to docs/vectors/. What is scaled is scaled by the jobs' own code.
"""

import io
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from sklearn.cluster import KMeans

from spark_jobs.config import parse_scaling
from spark_jobs.vectors.scaling import scale

FOLDER = Path(__file__).parent / "vectors"
PAGES = ("espresso 1", "espresso 2", "espresso 3", "trail 1", "trail 2", "trail 3")
ESPRESSO, TRAIL = slice(0, 3), slice(3, 6)
PEOPLE = 400
HEAVY = np.array([190.0, 120, 90, 15, 5, 0])  # somebody who likes espresso and does 420 things a month
BURST = np.array([15.0, 0, 0, 4, 3, 2])  # somebody who likes trails, and wrote 15 comments under one espresso post
COLORS = ("#4f43dd", "#e07b39")  # espresso, trail
GREY = "#c9c9d2"


def audience(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Counts (n, 6), and who likes trails (n,): one half. Few people do much, as in real audiences."""
    likes_trails = np.arange(PEOPLE) % 2 == 1
    taste = np.where(likes_trails[:, None], [0.02, 0.02, 0.02, 0.4, 0.3, 0.24], [0.4, 0.3, 0.24, 0.02, 0.02, 0.02])
    actions = np.minimum(2 + random.pareto(1.2, PEOPLE) * 3, 150).astype(int)
    return np.array([random.multinomial(n, p) for n, p in zip(actions, taste, strict=True)], float), likes_trails


def scaled(counts: np.ndarray, scaling: str) -> np.ndarray:
    """The vectors of people, one a row."""
    weight = np.ones(len(counts), np.int64)
    return np.asarray(scale(sp.csr_matrix(counts), weight, parse_scaling(scaling))[0].toarray())


# --- the pictures ----------------------------------------------------------------------------------


def heavy_user(counts: np.ndarray) -> Figure:
    """Where people are, by the length of their espresso and trail parts, colored by the two clusters of k-means."""
    everybody = np.vstack([counts, HEAVY])
    figure, panels = _panels(("max", "loglog", "l2", "loglog,idf,l2"), height=2.75)
    for scaling, axes in panels.items():
        vectors = scaled(everybody, scaling)
        label = KMeans(2, n_init=10, random_state=0).fit(vectors).labels_
        if vectors[label == 0][:, ESPRESSO].sum(axis=1).mean() < vectors[label == 1][:, ESPRESSO].sum(axis=1).mean():
            label = 1 - label
        x, y = (np.linalg.norm(vectors[:, pages], axis=1) for pages in (ESPRESSO, TRAIL))
        axes.scatter(x, y, s=9, c=[COLORS[of] for of in label], alpha=0.45, linewidths=0)
        axes.scatter(x[-1:], y[-1:], s=70, facecolors="none", edgecolors="black", linewidths=1)
        sizes = sorted(np.bincount(label).tolist(), reverse=True)
        axes.set_title(f"{scaling}\nclusters of {sizes[0]} and {sizes[1]}", fontsize=9)
        axes.set_xlabel("espresso pages", fontsize=8)
        axes.set_xlim(left=-0.03 * x.max())
        axes.set_ylim(-0.03 * y.max(), 1.08 * y.max())
    next(iter(panels.values())).set_ylabel("trail pages", fontsize=8)
    return figure


def popular_page(counts: np.ndarray, random: np.random.Generator) -> Figure:
    """How much of all squared distances comes from a page that nine in ten are on as much as on all others."""
    popular = np.where(random.random(len(counts)) < 0.9, random.poisson(counts.sum(axis=1)), 0)
    everybody = np.column_stack([counts, popular])
    scalings = ("max", "l2", "log1p,l2", "loglog,l2", "idf,l2", "loglog,idf,l2")
    figure = Figure(figsize=(7.4, 2.3), dpi=110, layout="tight")
    axes = figure.subplots()
    for place, scaling in enumerate(scalings):
        variance = scaled(everybody, scaling).var(axis=0)
        share = variance[-1] / variance.sum()
        axes.barh(place, share, color="black", height=0.62)
        axes.barh(place, 1 - share, left=share, color=GREY, height=0.62)
        axes.text(share + 0.01, place, f"{share:.0%}", va="center", fontsize=8)
    axes.set_yticks(range(len(scalings)), scalings, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_title("share of all squared distances: the page that everybody likes (black), the six others", fontsize=9)
    _plain(axes)
    return figure


def burst(counts: np.ndarray, likes_trails: np.ndarray) -> Figure:
    """The vector of BURST, made one long, and the taste whose center it is nearer to."""
    everybody = np.vstack([counts, BURST])
    figure, panels = _panels(("l2", "log1p,l2", "loglog,l2", "loglog,idf,l2"), height=2.5, sharey=True)
    for scaling, axes in panels.items():
        vectors = scaled(everybody, scaling)
        centers = [vectors[:-1][likes_trails == of].mean(axis=0) for of in (False, True)]
        distance = [float(np.linalg.norm(vectors[-1] - center)) for center in centers]
        nearest = "espresso" if distance[0] < distance[1] else "trail"
        axes.bar(range(6), vectors[-1] / np.linalg.norm(vectors[-1]), color=[COLORS[0]] * 3 + [COLORS[1]] * 3)
        axes.set_title(f"{scaling}\nnearer to the {nearest} center", fontsize=9)
        axes.set_xticks(range(6), PAGES, rotation=90)
        axes.set_ylim(0, 1.05)
    next(iter(panels.values())).set_ylabel("part of the vector", fontsize=8)
    return figure


def _panels(scalings: tuple[str, ...], height: float, sharey: bool = False) -> tuple[Figure, dict[str, Axes]]:
    figure = Figure(figsize=(9, height), dpi=110, layout="tight")
    panels = dict(zip(scalings, figure.subplots(1, len(scalings), sharey=sharey), strict=True))
    for axes in panels.values():
        _plain(axes)
    return figure, panels


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def write(figure: Figure, name: str) -> None:
    """Write a picture of 64 colours, which is a third of the bytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(64).save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    source = np.random.default_rng(3)
    made, of_trails = audience(source)
    FOLDER.mkdir(exist_ok=True)
    write(heavy_user(made), "heavy-user")
    write(popular_page(made, source), "popular-page")
    write(burst(made, of_trails), "burst")
