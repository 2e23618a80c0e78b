"""Ours, by default settings: the functions of the jobs, without their files."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from spark_jobs.clusters import selection
from spark_jobs.clusters.in_memory import learn_and_place
from spark_jobs.config import ACTIONS, ClusteringInputsConfig, KMeansConfig, KSelectionConfig
from spark_jobs.raw.rules import CODED_TEXT
from spark_jobs.select_k import LEARN, PLACE
from spark_jobs.vectors import clustering_inputs
from spark_jobs.vectors.category_files import Category, Page
from spark_jobs.vectors.profiles import ENTRY, VECTOR, build_inputs, from_table

DEFAULT_SCALING = ClusteringInputsConfig().scaling
DEFAULT_FIT_MIN_ACTIONS = KMeansConfig().fit_min_actions


@dataclass(frozen=True)
class Result:
    """What was found among n users."""

    verdict: str  # "segments", "none" or "too_few"
    k: int
    labels: np.ndarray  # (n,) of everybody, 0 to k - 1


def segment(
    counts: sp.csr_matrix,
    k: int | None = None,
    scaling: str = DEFAULT_SCALING,
    fit_min_actions: int = DEFAULT_FIT_MIN_ACTIONS,
) -> Result:
    """The segments of `counts` (n, d), actions of users on pages; with `k`, that many whether or not they are there."""
    profiles, weight, fit_weight, profile_of = inputs(counts, scaling, fit_min_actions)
    verdict = "segments"
    if k is None:
        config = KSelectionConfig()
        people = clustering_inputs.draw(
            [(profiles, weight, fit_weight)],
            profiles.shape[1],
            int(weight.sum()),
            int(fit_weight.sum()),
            LEARN,
            PLACE,
            config.seed,
        )
        found = selection.select(people.profiles, people.fit_weight, people.weight, int(weight.sum()), config)
        verdict, k = found.verdict, found.k
    if not clustering_inputs.enough_to_learn(int(fit_weight.sum()), int(np.count_nonzero(fit_weight)), k):
        fit_weight = weight
    _, model = learn_and_place(profiles, weight, fit_weight, k, KMeansConfig())
    return Result(verdict, model.k, model.labels[profile_of])


def inputs(
    counts: sp.csr_matrix, scaling: str = DEFAULT_SCALING, fit_min_actions: int = DEFAULT_FIT_MIN_ACTIONS
) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray, np.ndarray]:
    """Profiles (p, d), the users of each (p,), those to learn from (p,), and the profile of each user (n,)."""
    users, pages = counts.shape
    entries = np.empty(counts.nnz, ENTRY)
    entries["dimension"], entries["value"] = counts.indices, counts.data
    vectors = [entries[start:end].tobytes() for start, end in zip(counts.indptr, counts.indptr[1:], strict=False)]
    actions = pa.array(np.asarray(counts.sum(axis=1)).ravel().astype(np.int64))
    table = pa.table(
        {
            "user_id": pa.array([f"{user:09d}" for user in range(users)]),
            "gender": pa.array(["0"] * users).cast(CODED_TEXT),
            "actions": actions,
            **dict.fromkeys(ACTIONS, pa.array(np.zeros(users, np.int64))),
            ACTIONS[0]: actions,
            "vector": pa.array(vectors, pa.binary()).dictionary_encode(),
        },
        schema=VECTOR,
    )
    listed = tuple(Page(str(page), str(page), "network") for page in range(pages))
    category = Category("suite", 0, "suite", False, listed)
    made = build_inputs(category, table, scaling)
    profiles, weight, _ = from_table(made.profiles, pages)
    profile_of, active = made.members["profile_id"].to_numpy(), made.members["actions"].to_numpy() >= fit_min_actions
    return profiles, weight, np.bincount(profile_of[active], minlength=len(weight)), profile_of
