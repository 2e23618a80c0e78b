"""The config of every step: one typed, validated place, from which come the jobs' options and Dagster's launchpad."""

import os
import re
from typing import Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from spark_jobs.errors import InputError

ACTIONS = ("page_like", "page_comment", "post_like", "post_comment")

Criterion = Literal["prediction", "silhouette", "calinski_harabasz", "elbow"]
Engine = Literal["local", "spark"]
Library = Literal["numpy", "mllib"]

DEFAULT_SCALING = "loglog,idf,l2"
FIT_MIN_ACTIONS = 8  # a user with fewer actions on a category's pages shows too little to be learned from

_STEPS = ("max", "none", "log1p", "loglog", "idf", "l2", "tfidf")  # of scaling
_INITS = {"kmeans||": "kmeans||", "k-means||": "kmeans||", "k-means++": "kmeans||", "random": "random"}
_SMALLEST_WEIGHT, _LARGEST_WEIGHT = 1e-6, 1e6  # so that no value, nor the square of one, is beyond a float
MOST_INITS = 100_000  # each has a seed and a place in a queue before the first one starts
_LABEL = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class StepConfig(BaseModel):
    """The config of one step. Its fields decide the step's result, but for the label."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    def fingerprinted(self) -> dict[str, Any]:
        """The fields that decide the result, as JSON values."""
        return self.model_dump(mode="json", exclude={"label"})


class GroupedUsersConfig(StepConfig):
    """How raw actions become grouped users."""

    max_reject_ratio: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Largest share of raw rows that may break a rule; 0 to 1.",
    )


class ClusteringInputsConfig(StepConfig):
    """How users become vectors."""

    action_weights: dict[str, float] = Field(
        default_factory=lambda: dict.fromkeys(ACTIONS, 1.0),
        description="Weight of each action in a user's value on a page: 0, or 1e-6 to 1e6, default 1."
        f" {', '.join(ACTIONS)}.",
    )
    min_actions: int = Field(
        default=1, ge=1, description="Users with fewer actions on the category's pages are left out; at least 1."
    )
    scaling: str = Field(
        default=DEFAULT_SCALING,
        description="Steps, applied in order, separated by commas: log1p (ln(1 + value)), loglog (log1p twice, so that"
        " bursts count little), idf (pages that many are on count less), tfidf (the same, and pages that hardly anybody"
        " is on count most), l2 (every user's vector to length 1), max (all by one factor, 1/(1 + largest), so that"
        " they lie in [0, 1)), or none alone.",
    )

    @field_validator("action_weights")
    @classmethod
    def _known_actions(cls, weights: dict[str, float]) -> dict[str, float]:
        for action, weight in weights.items():
            if action not in ACTIONS:
                raise ValueError(f"{action!r} is not an action; allowed are {', '.join(ACTIONS)}")
            if weight != 0 and not _SMALLEST_WEIGHT <= weight <= _LARGEST_WEIGHT:
                raise ValueError(f"the weight of {action} is {weight}; it must be 0, or from 1e-6 to 1e6")
        return {action: float(weights.get(action, 1.0)) for action in ACTIONS}

    @field_validator("scaling")
    @classmethod
    def _canonical_scaling(cls, text: str) -> str:
        return ",".join(parse_scaling(text))


def _fit_min_actions() -> Any:
    return Field(
        default=FIT_MIN_ACTIONS,
        ge=1,
        description="Who is learned from: users with at least so many actions on the category's pages; at least 1.",
    )


class KSelectionConfig(StepConfig):
    """How k is chosen. It has a seed of its own, so that tweaking k-means leaves the choice alone."""

    criterion: Criterion = Field(
        default="prediction",
        description="Which k is best, where there are segments: prediction (what one half of the pages says about the"
        " other), silhouette (highest mean simplified silhouette), calinski_harabasz (highest) or elbow (of wssse).",
    )
    k_max: int = Field(
        default=12, ge=1, le=200, description="Largest k tried, if there are ten people a segment; 1 to 200."
    )
    min_segment: int = Field(default=10, ge=1, description="People that every segment must have; at least 1.")
    min_segment_share: float = Field(
        default=0.02, ge=0, le=0.5, description="Share of the people that every segment must have; 0 to 0.5."
    )
    fit_min_actions: int = _fit_min_actions()
    n_init: int = Field(default=3, ge=1, le=MOST_INITS, description="Inits for every k; 1 to 100000.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of the inits and splits; 0 to 4294967295.")


class KMeansParams(NamedTuple):
    """`INIT,ITERATIONS,EPSILON`, taken apart."""

    init: str
    max_iter: int
    tol: float


class KMeansConfig(StepConfig):
    """How k-means runs."""

    k: int | None = Field(
        default=None, ge=1, description="Number of clusters, at least 1; if not given, the one that k_selection chose."
    )
    params: str = Field(
        default="kmeans||,100,0.001",
        description="INIT,ITERATIONS,EPSILON: kmeans|| (or k-means||, k-means++) or random; at most so many iterations;"
        " converged when no center moves farther than EPSILON.",
    )
    n_init: int = Field(
        default=5, ge=1, le=MOST_INITS, description="Inits, the best of which a local search improves; 1 to 100000."
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of the inits; 0 to 4294967295.")
    fit_min_actions: int = _fit_min_actions()
    min_people: int = Field(
        default=10,
        ge=1,
        description="Nothing that is published says something of fewer people, and numbers of people are rounded to"
        " multiples of it; at least 1.",
    )
    library: Library = Field(
        default="numpy",
        description="What computes it: numpy, in the memory of one machine, or mllib, Spark's, for what no machine's"
        " memory holds; it needs the engine spark.",
    )
    label: str | None = Field(
        default=None, description="Names a variant, so that it stands beside the others; it decides nothing else."
    )

    def fingerprinted(self) -> dict[str, Any]:
        # The default is left out, so that what was made before there was a choice is still what it was.
        return {name: value for name, value in super().fingerprinted().items() if (name, value) != ("library", "numpy")}

    @field_validator("params")
    @classmethod
    def _canonical_params(cls, text: str) -> str:
        return ",".join(map(str, parse_params(text)))

    @field_validator("label")
    @classmethod
    def _short_label(cls, label: str | None) -> str | None:
        if label is not None and (not _LABEL.fullmatch(label) or ".." in label):
            rule = "1 to 64 letters, digits, '_', '-' or '.', no two dots in a row"
            raise ValueError(f"{label!r} is not a label: {rule}")
        return label


class ReportConfig(StepConfig):
    """How a report is made: there is nothing to choose."""


class SegmentsConfig(StepConfig):
    """How segments are followed from month to month."""

    seed: int = Field(
        default=0, ge=0, lt=2**32, description="Seed of who is drawn, where there are many people; 0 to 4294967295."
    )


def _strict_by_default() -> bool:
    """Whether the environment asks for strict schemas."""
    name = "AUDIENCE_EXPLORER_STRICT_SCHEMA"
    text = os.environ.get(name) or "0"
    if text not in ("0", "1"):
        raise InputError(f"{name} is {text!r}; it must be 1 (check every table between steps) or 0.")
    return text == "1"


def _engine_by_default() -> Engine:
    """The engine that the environment asks for."""
    name = "AUDIENCE_EXPLORER_ENGINE"
    asked = os.environ.get(name) or "local"
    engines: tuple[Engine, ...] = get_args(Engine)
    for engine in engines:
        if engine == asked:
            return engine
    raise InputError(f"{name} is {asked!r}; it must be one of {', '.join(engines)}.{_renamed(asked)}")


def _renamed(engine: str) -> str:
    """What to write instead of an engine's former name."""
    instead = {"sail": "local", "cluster": "spark, with library: mllib of kmeans (--library mllib)"}.get(engine)
    return f" Instead of {engine} it is now {instead}." if instead else ""


class EngineConfig(BaseModel):
    """How the jobs run. The result does not depend on it, so it is in no fingerprint."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    engine: Engine = Field(
        default_factory=_engine_by_default,
        description="local (the processes of one machine) or spark (Apache Spark, needs Java 17+ and the extra spark);"
        " if not given, $AUDIENCE_EXPLORER_ENGINE, or local.",
    )
    spark_master: str = Field(
        default="local[*]", description="The Spark master of spark, such as spark://host:7077 or yarn."
    )
    strict_schema: bool = Field(
        default_factory=_strict_by_default,
        description="Check every table between two steps against its schema and rules, and fail where one is broken;"
        " if not given, $AUDIENCE_EXPLORER_STRICT_SCHEMA.",
    )


def parse_scaling(text: str) -> tuple[str, ...]:
    """The steps of a scaling, such as `log1p,l2`, in order.

    Raises:
        ValueError: They make no sense; the message names the step and what to write instead.
    """
    given = [step.strip() for step in text.split(",")]
    for step in given:
        if step not in _STEPS:
            raise ValueError(
                f"{step!r} is not a step of scaling; allowed are {', '.join(_STEPS)}, separated by commas, such as"
                f" {DEFAULT_SCALING}"
            )
    steps = given
    repeated = next((step for number, step in enumerate(steps) if step in steps[:number]), None)
    if repeated is not None:
        raise ValueError(f"the step {repeated} is in {text!r} twice; write it once")
    if "idf" in steps and "tfidf" in steps:
        raise ValueError(f"idf and tfidf are both in {text!r}; they weight the same pages, so write one of them")
    if "none" in steps[:-1] or "none" in steps[1:]:
        raise ValueError(f"none is in {text!r} with other steps; write none alone, or leave it out")
    for step in ("log1p", "loglog"):
        if step in steps[1:]:
            # It is for counts: ln(1 + value) of a value below 1 is about the value.
            raise ValueError(f"{step} is not the first step of {text!r}; it dampens counts, so write it first")
    if "max" in steps[:-1]:
        raise ValueError(f"max is not the last step of {text!r}; it fits the values of all others, so write it last")
    return tuple(steps)


def parse_params(text: str) -> KMeansParams:
    """Take `INIT,ITERATIONS,EPSILON` apart.

    Raises:
        ValueError: It is not of that form; the message says what is.
    """
    form = "INIT,ITERATIONS,EPSILON, such as kmeans||,100,0.001"
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3:
        raise ValueError(f"{text!r} is not of the form {form}")
    init, max_iter, tol = parts
    if init not in _INITS:
        raise ValueError(f"INIT is {init!r}; allowed are {', '.join(_INITS)}")
    try:
        parsed = KMeansParams(_INITS[init], int(max_iter), float(tol))
    except ValueError:
        raise ValueError(f"{text!r} is not of the form {form}") from None
    if parsed.max_iter < 1:
        raise ValueError(f"ITERATIONS is {parsed.max_iter}; it must be at least 1")
    if not 0 <= parsed.tol < float("inf"):
        raise ValueError(f"EPSILON is {parsed.tol}; it must be a number of at least 0")
    return parsed
