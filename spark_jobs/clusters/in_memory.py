"""k-means in the memory of this process, by numpy. `mllib` is its counterpart on Spark."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from spark_jobs.clusters import clustering, description, scores
from spark_jobs.clusters.learned import COUNTED, PLACED, Clusters, Learned, stabilities_on_sample
from spark_jobs.clusters.published import in_words
from spark_jobs.config import KMeansConfig, parse_params
from spark_jobs.outputs.schemas import strictness
from spark_jobs.outputs.tables import read_batches
from spark_jobs.reporting import Reporter
from spark_jobs.resources import Resources
from spark_jobs.vectors import clustering_inputs
from spark_jobs.vectors.clustering_inputs import Inputs, InputsMetadata
from spark_jobs.vectors.profiles import MEMBERS


def fit(
    metadata: InputsMetadata, k: int, config: KMeansConfig, strict: bool, report: Reporter, resources: Resources
) -> Clusters:
    """Cluster in this process.

    Args:
        metadata: The inputs.
        k: Clusters, at most one a profile.
        config: Of k-means.
        strict: Whether all rows that are read are checked.
        report: Where each init is reported.
        resources: What it may use.

    Raises:
        InputError: There is too little memory.
    """
    clustering_inputs.check_memory(metadata, k, resources)
    source = clustering_inputs.read(metadata, strict)

    def progress(init: int, model: clustering.Model) -> None:
        state = "converged" if model.converged else "not converged"
        report.detail(
            f"init {init} of {config.n_init}: wssse {model.wssse:.6g}, {state} after {model.iterations} iterations"
        )

    fit_weight, min_actions = _learned_from(source, k, config, report)
    fitted, model = learn_and_place(source.profiles, source.weight, fit_weight, k, config, progress, resources.cores)
    return Clusters(
        model.centers,
        model.users,
        description.diameters(model),
        description.describe(source.profiles, source.weight, model),
        description.value_range(source.profiles),
        model.iterations,
        model.converged,
        scores.score(source.profiles, source.weight, model),
        clustering.engine_version(),
        Learned(
            int(fit_weight.sum()),
            min_actions,
            fitted.wssse,
            stabilities_on_sample(metadata, min_actions, model.centers, config.seed, strict),
        ),
        _assign(source, model, strict),
    )


def learn_and_place(
    profiles: sp.csr_matrix,
    weight: np.ndarray,
    fit_weight: np.ndarray,
    k: int,
    config: KMeansConfig,
    progress: Callable[[int, clustering.Model], None] = lambda _init, _model: None,
    cores: int = 1,
) -> tuple[clustering.Model, clustering.Model]:
    """Learn k clusters from some of the users, and assign everybody to the nearest.

    Args:
        profiles: (n, d).
        weight: (n,) users of each.
        fit_weight: (n,) those of them who are learned from.
        k: How many clusters.
        config: Of k-means.
        progress: See `clustering.fit`.
        cores: See `clustering.fit`.

    Returns:
        The model of those who are learned from, and that of everybody.
    """
    learned = np.flatnonzero(fit_weight)
    params = parse_params(config.params)
    fitted = clustering.fit(
        profiles[learned], fit_weight[learned], k, params, config.n_init, config.seed, progress, cores
    )
    return fitted, clustering.place(fitted, profiles, weight)


def _learned_from(source: Inputs, k: int, config: KMeansConfig, report: Reporter) -> tuple[np.ndarray, int]:
    """How many users of each profile are learned from, (n,), and how many actions each of them has at least.

    Everybody is, if fewer than ten users a cluster have enough actions, or if the inputs don't say who has.
    """
    if source.metadata.fit_min_actions is None:
        return source.weight, 0
    fit_weight = clustering_inputs.fit_weight(source, config.fit_min_actions)
    if clustering_inputs.enough_to_learn(int(fit_weight.sum()), int(np.count_nonzero(fit_weight)), k):
        return fit_weight, config.fit_min_actions
    report.progress(
        f"learned from all users: {in_words(int(fit_weight.sum()), config.min_people)} have"
        f" {config.fit_min_actions} actions or more, too few for {k} clusters"
    )
    return source.weight, 0


def _assign(source: Inputs, model: clustering.Model, strict: bool) -> Iterator[pa.RecordBatch]:
    """Rows of PLACED, by user_id."""
    checked = strictness(strict)
    known = source.metadata.counted
    rules = MEMBERS.only("user_id", "gender", "profile_id", *known)
    if not model.k:
        return
    _, _, to_next = clustering.assign(source.profiles, model.centers)
    confidence = clustering.confidence(model.distances, to_next)
    for members in read_batches(source.metadata.folder, "members.parquet", rules.schema.names):
        profile = checked(rules, members).column("profile_id").to_numpy()
        places = [model.labels[profile].astype(np.int32), model.distances[profile], confidence[profile]]
        unknown = pa.nulls(len(members), pa.int64())
        counts = [members.column(name) if name in known else unknown for name in COUNTED]
        columns = [members.column("user_id"), *map(pa.array, places), members.column("gender"), *counts]
        yield pa.RecordBatch.from_arrays(columns, schema=PLACED)
