"""Cluster a category's users by k-means.

INPUTS is an output of make_clustering_inputs, OUTPUT the folder to make: `data.json` (the users of each cluster),
`meta-data.json` (what each cluster is like), `assignments.parquet`, `centers.parquet`, `profiles.parquet` (what sets
each cluster apart), `comparisons.parquet` (and from everybody, and from each other one) and `summary.json`.
"""

import time
from typing import Any, NamedTuple

import click

from spark_jobs import outputs, select_k, storage
from spark_jobs.clusters import in_memory, published
from spark_jobs.clusters.checks import check_clusters
from spark_jobs.clusters.files import describe_clusters, summarize_cluster, write_clusters, write_members
from spark_jobs.clusters.learned import Clusters
from spark_jobs.clusters.published import in_words
from spark_jobs.clusters.segment_profiles import profile_segments
from spark_jobs.config import EngineConfig, KMeansConfig
from spark_jobs.errors import InputError
from spark_jobs.options import config_options
from spark_jobs.outputs.fingerprints import fingerprint
from spark_jobs.outputs.schemas import strictness
from spark_jobs.reporting import Reporter, run_as_command
from spark_jobs.resources import Resources, ResourcesConfig
from spark_jobs.vectors.clustering_inputs import InputsMetadata, read_metadata

STEP = "kmeans"
CODE_VERSION = "6"  # raise it with every change of what comes out: partitions are then made again

_ASSIGNED = "_assigned"  # the rows of assignments.parquet as Spark writes them, in several files


def step_fingerprint(config: KMeansConfig, inputs: str, k_selection: str | None) -> str:
    """The fingerprint of a clustering, of those of its inputs and, where no k is given, of the choice of k."""
    sources = [inputs] if config.k is not None else [inputs, str(k_selection)]
    return fingerprint(STEP, CODE_VERSION, config.fingerprinted(), sources)


@click.command(help=__doc__)
@click.argument("inputs")
@click.argument("output")
@click.option(
    "--k-selection", metavar="FOLDER", help="An output of select_k for INPUTS, whose k is used if --k is not given."
)
@config_options(KMeansConfig)
@config_options(EngineConfig, "engine")
@config_options(ResourcesConfig, "allowed")
def main(
    inputs: str,
    output: str,
    k_selection: str | None,
    config: KMeansConfig,
    engine: EngineConfig,
    allowed: ResourcesConfig,
) -> None:
    if config.k is None and k_selection is None:
        raise click.UsageError("Give --k, or with --k-selection an output of select_k.")
    run(inputs, output, k_selection, config, engine, allowed.resolve(), Reporter())


def run(
    inputs: str,
    output: str,
    k_selection: str | None,
    config: KMeansConfig,
    engine: EngineConfig,
    resources: Resources,
    report: Reporter,
) -> None:
    """Cluster; see the command. Without a k in the config, it is that of the output `k_selection`."""
    started = time.monotonic()
    metadata = read_metadata(storage.absolute(inputs), engine.strict_schema)
    choice = _choice_of_k(config, k_selection, metadata)
    if choice.k > max(1, metadata.profiles):
        report.progress(f"k is cut from {choice.k} to {metadata.profiles}: there are no more distinct profiles")
    with outputs.writing(
        STEP,
        CODE_VERSION,
        storage.absolute(output),
        report,
        config=config,
        inputs=[metadata.fingerprint, *([] if choice.fingerprint is None else [choice.fingerprint])],
        fingerprint=step_fingerprint(config, metadata.fingerprint, choice.fingerprint),
        started=started,
    ) as made:
        if made.finished:
            return
        if not metadata.counts_each_action:
            report.progress(
                "the mix of actions is left out: an older version made these clustering inputs, without the number of"
                " each action. Make them again to have it"
            )
        found = _fit(metadata, min(choice.k, metadata.profiles), made.folder, config, engine, resources, report)
        checked = strictness(engine.strict_schema)
        traits = write_members(made, found, checked, resources.scratch)
        profiles = profile_segments(metadata, found, traits, config, engine.strict_schema)
        descriptions = describe_clusters(metadata, found, profiles)
        write_clusters(made, metadata, found, profiles, descriptions, checked)
        summary = {
            **_summary(choice, config, found, descriptions),
            "segments": profiles.segments,
            "actions": profiles.actions,
        }
        made.write_json("summary.json", _published(summary, config.min_people))
        clusters = "1 cluster" if found.k == 1 else f"{found.k} clusters"
        made.complete(
            rows={"clusters": found.k, "assignments": metadata.users, "profiles": profiles.pages.num_rows},
            summary={
                **summary,
                "users": metadata.users,
                "profiles": metadata.profiles,
                "clustering_inputs": metadata.config,
                "private": metadata.category["private"],
                "clusters": [summarize_cluster(row) for row in descriptions],
                "bytes_in": metadata.bytes,
            },
            inspect=lambda: check_clusters(made.folder, metadata, found, config.min_people, resources.cores),
            message=_message(clusters, metadata.users, found.scores["wssse"], config.min_people),
        )


def _message(clusters: str, users: int, wssse: float | None, min_people: int) -> str:
    """What was done, for logs; a score of a few people says something of them."""
    of = f"{clusters} of {in_words(users, min_people)} users"
    return of if wssse is None or published.count(users, min_people) is None else f"{of}, wssse {wssse:.6g}"


class _Choice(NamedTuple):
    """The k to cluster by; with the verdict and the fingerprint of the output of select_k, if it is from one."""

    k: int
    verdict: str | None = None
    fingerprint: str | None = None


def _choice_of_k(config: KMeansConfig, k_selection: str | None, inputs: InputsMetadata) -> _Choice:
    if config.k is not None:
        return _Choice(config.k)
    assert k_selection is not None
    return _Choice(*select_k.read_choice(storage.absolute(k_selection), inputs))


def _fit(
    metadata: InputsMetadata,
    k: int,
    folder: str,
    config: KMeansConfig,
    engine: EngineConfig,
    resources: Resources,
    report: Reporter,
) -> Clusters:
    """Cluster with the library that the config asks for."""
    if config.library == "numpy":
        return in_memory.fit(metadata, k, config, engine.strict_schema, report, resources)
    if engine.engine != "spark":
        raise InputError(
            f"The library mllib is Spark's, and the engine is {engine.engine}. Choose the engine spark (--engine spark,"
            " or `engine` in the run's config), or the library numpy."
        )
    from spark_jobs.clusters import mllib
    from spark_jobs.engines.spark import SparkEngine

    spark = SparkEngine(engine.spark_master, resources)
    return mllib.fit(spark, metadata, k, config, engine.strict_schema, storage.join(folder, _ASSIGNED), report)


def _summary(
    choice: _Choice, config: KMeansConfig, found: Clusters, descriptions: list[dict[str, Any]]
) -> dict[str, Any]:
    """What is said of the whole; see `_published` for how summary.json holds it."""
    return {
        "k": found.k,
        "requested_k": choice.k,
        "verdict": choice.verdict,
        "params": config.params,
        "n_init": config.n_init,
        "seed": config.seed,
        "label": config.label,
        "wssse": found.scores["wssse"],
        "iterations": found.iterations,
        "converged": found.converged,
        "scores": found.scores,
        "learned_from": {
            "users": found.learned.users,
            "min_actions": found.learned.min_actions,
            "wssse": found.learned.wssse,
        },
        "solidity": [
            {
                "cluster_id": row["cluster_id"],
                "stability": row["cluster_stability"],
                "solidity": row["cluster_solidity"],
            }
            for row in descriptions
        ],
        "engine": found.library,
    }


def _published(summary: dict[str, Any], min_people: int) -> dict[str, Any]:
    """What summary.json holds of a summary: it may be published, and the manifest's is exact."""
    learned_from = summary["learned_from"]
    people = published.count(learned_from["users"], min_people)
    return {**summary, "learned_from": {**learned_from, "users": people}}


if __name__ == "__main__":
    run_as_command(main)
