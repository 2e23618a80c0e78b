"""Try a range of k on a category's clustering inputs, and choose one.

INPUTS is an output of make_clustering_inputs, OUTPUT the folder to make: `k.json`, with the k, the criterion and the
scores of every k that was tried.
"""

import json
import time
from typing import Any

import click
import pyarrow as pa

from spark_jobs import checks, clustering, clustering_inputs, outputs, storage
from spark_jobs.config import EngineConfig, KMeansParams, KSelectionConfig
from spark_jobs.fingerprints import fingerprint
from spark_jobs.options import config_options
from spark_jobs.reporting import Reporter, reporter, run_as_command
from spark_jobs.resources import ResourcesConfig
from spark_jobs.schemas import AT_LEAST_0, AT_LEAST_1, Inspection, Table

STEP = "k_selection"
CODE_VERSION = "2"  # raise it with every change of what comes out: partitions are then made again

_SCORES = ("wssse", "silhouette", "calinski_harabasz")
_TRIED = pa.struct([("k", pa.int64()), *((score, pa.float64()) for score in _SCORES)])
CHOICE = Table(
    "k.json",
    pa.schema([("k", pa.int64()), ("criterion", pa.string()), ("tried", pa.list_(_TRIED))]),
    filled=("criterion",),
    ranges={"k": AT_LEAST_0, "tried.k": AT_LEAST_1, "tried.wssse": AT_LEAST_0},
    optional=("tried.silhouette", "tried.calinski_harabasz"),  # where they are not defined
)

_PARAMS = KMeansParams("kmeans||", 100, 0.001)


def step_fingerprint(config: KSelectionConfig, inputs: str) -> str:
    """The fingerprint of a choice of k; `inputs` is that of the clustering inputs."""
    return fingerprint(STEP, CODE_VERSION, config.fingerprinted(), [inputs])


@click.command(help=__doc__)
@click.argument("inputs")
@click.argument("output")
@config_options(KSelectionConfig)
@config_options(EngineConfig, "engine")
@config_options(ResourcesConfig, "allowed")
def main(inputs: str, output: str, config: KSelectionConfig, engine: EngineConfig, allowed: ResourcesConfig) -> None:
    # The work is the same on either engine; the option is there so that all jobs take the same ones.
    report = reporter()
    started = time.monotonic()
    head = clustering_inputs.read_head(storage.absolute(inputs), engine.strict_schema)
    folder = storage.absolute(output)
    made_from = step_fingerprint(config, head.fingerprint)
    if finished := outputs.start(folder, made_from):
        report.output(folder, finished)
        return
    resources = allowed.resolve()
    clustering_inputs.check_memory(head, config.k_max, resources)
    tried = _try(clustering_inputs.read(head, engine.strict_schema), config, report, resources.cores)
    k = clustering.choose_k(tried, config.criterion) if tried else 0
    result = {"k": k, "criterion": config.criterion, "tried": tried}
    storage.write_text(storage.join(folder, "k.json"), json.dumps(result, indent=1) + "\n")
    manifest = outputs.finish(
        folder,
        step=STEP,
        code_version=CODE_VERSION,
        config=config.model_dump(mode="json"),
        fingerprint=made_from,
        inputs=[head.fingerprint],
        rows={"tried": len(tried)},
        summary={
            **result,
            "users": head.users,
            "profiles": head.profiles,
            "engine": clustering.engine_version(),
            "bytes_in": head.bytes,
            "seconds": round(time.monotonic() - started, 3),
        },
        checks=_check_output(folder, head.profiles, config),
    )
    report.progress(f"k = {k} by {config.criterion}")
    report.output(folder, manifest)


def _try(
    source: clustering_inputs.Inputs, config: KSelectionConfig, report: Reporter, cores: int
) -> list[dict[str, Any]]:
    profiles = source.profiles.shape[0]
    tried = []
    for k in sorted({min(k, profiles) for k in range(config.k_min, config.k_max + 1)} - {0}):
        model = clustering.fit(source.profiles, source.weight, k, _PARAMS, config.n_init, config.seed, cores=cores)
        row = {"k": k, **clustering.scores(source.profiles, source.weight, model)}
        tried.append(row)
        report.detail(f"k = {k}: " + ", ".join(f"{name} {_shown(row[name])}" for name in row if name != "k"))
    return tried


def _check_output(folder: str, profiles: int, config: KSelectionConfig) -> dict[str, checks.Check]:
    """Read back what was written."""
    choice = Inspection(CHOICE)
    read = outputs.read_back_json(folder, "k.json", choice, lines=False)
    in_range = checks.k_in_range(read, profiles, config.k_min, config.k_max)
    return {"schema": checks.schema(choice), "k_in_range": in_range}


def _shown(score: float | None) -> str:
    return "not defined" if score is None else f"{score:.6g}"


def read_k(folder: str) -> tuple[int, str]:
    """The k that an output of this job chose, and the output's fingerprint.

    Raises:
        InputError: The folder holds none.
    """
    manifest = outputs.read_manifest(folder, STEP)
    return int(manifest["summary"]["k"]), str(manifest["fingerprint"])


if __name__ == "__main__":
    run_as_command(main)
