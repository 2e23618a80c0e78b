"""Say whether a category's users fall into segments, and into how many.

INPUTS is an output of make_clustering_inputs, OUTPUT the folder to make: `k.json`, with the verdict, the k, why, and
the scores of every k that was tried. `spark_jobs/clusters/selection.py` says how it is judged.
"""

import json
import time
from dataclasses import replace
from typing import Any

import click
import pyarrow as pa

from spark_jobs import outputs, storage
from spark_jobs.clusters import clustering, selection
from spark_jobs.config import EngineConfig, KSelectionConfig
from spark_jobs.options import config_options
from spark_jobs.outputs import checks
from spark_jobs.outputs.fingerprints import fingerprint
from spark_jobs.outputs.schemas import AT_LEAST_0, AT_LEAST_1, Inspection, Table
from spark_jobs.reporting import Reporter, run_as_command
from spark_jobs.resources import Resources, ResourcesConfig
from spark_jobs.vectors import clustering_inputs

STEP = "k_selection"
CODE_VERSION = "3"  # raise it with every change of what comes out: partitions are then made again

# People who are drawn where there are more: to learn from, and of all to see how large segments are.
LEARN, PLACE = 6_000, 20_000

_SCORES = ("wssse", "silhouette", "calinski_harabasz", "prediction")
_TRIED = pa.struct([("k", pa.int64()), *((score, pa.float64()) for score in _SCORES), ("smallest_segment", pa.int64())])
CHOICE = Table(
    "k.json",
    pa.schema(
        [
            ("verdict", pa.string()),
            ("k", pa.int64()),
            ("why", pa.string()),
            ("criterion", pa.string()),
            ("evidence", pa.float64()),
            ("evidence_needed", pa.float64()),
            ("false_alarm_rate", pa.float64()),
            ("people", pa.int64()),
            ("people_judged", pa.int64()),
            ("tried", pa.list_(_TRIED)),
        ]
    ),
    filled=("verdict", "why", "criterion"),
    ranges={
        "k": AT_LEAST_1,
        "people": AT_LEAST_0,
        "people_judged": AT_LEAST_0,
        "tried.k": AT_LEAST_1,
        "tried.wssse": AT_LEAST_0,
    },
    optional=("evidence", "tried.silhouette", "tried.calinski_harabasz"),  # where they are not defined
)


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
    run(inputs, output, config, engine, allowed.resolve(), Reporter())


def run(
    inputs: str, output: str, config: KSelectionConfig, engine: EngineConfig, resources: Resources, report: Reporter
) -> None:
    """Choose k; see the command."""
    # The work is the same on any engine, on a sample of bounded size; all jobs take the same options.
    started = time.monotonic()
    head = clustering_inputs.read_head(storage.absolute(inputs), engine.strict_schema)
    folder = storage.absolute(output)
    made_from = step_fingerprint(config, head.fingerprint)
    if finished := outputs.start(folder, made_from):
        report.output(folder, finished)
        return
    drawn = min(1.0, (LEARN + PLACE) / max(1, head.profiles))
    sample = replace(head, profiles=int(drawn * head.profiles), entries=int(drawn * head.entries))
    clustering_inputs.check_memory(sample, config.k_max, resources)
    people = clustering_inputs.sample(head, config.fit_min_actions, LEARN, PLACE, config.seed, engine.strict_schema)
    if not people.whole:
        report.progress(f"judged on {people.fit_weight.sum():,} of {people.fit_people:,} people, drawn by chance")

    def progress(row: dict[str, Any]) -> None:
        report.detail(f"k = {row['k']}: " + ", ".join(f"{name} {_shown(row[name])}" for name in row if name != "k"))

    found = selection.select(
        people.profiles, people.fit_weight, people.weight, head.users, config, progress, resources.cores
    )
    result = {
        "verdict": found.verdict,
        "k": found.k,
        "why": found.why,
        "criterion": config.criterion,
        "evidence": found.evidence,
        "evidence_needed": selection.ENOUGH_EVIDENCE,
        "false_alarm_rate": selection.FALSE_ALARMS,
        "people": people.fit_people,
        "people_judged": int(people.fit_weight.sum()),
        "tried": found.tried,
    }
    storage.write_text(storage.join(folder, "k.json"), json.dumps(result, indent=1) + "\n")
    manifest = outputs.finish(
        folder,
        step=STEP,
        code_version=CODE_VERSION,
        config=config.model_dump(mode="json"),
        fingerprint=made_from,
        inputs=[head.fingerprint],
        rows={"tried": len(found.tried)},
        summary={
            **result,
            "users": head.users,
            "profiles": head.profiles,
            "engine": clustering.engine_version(),
            "bytes_in": head.bytes,
            "seconds": round(time.monotonic() - started, 3),
        },
        checks=_check_output(folder, config),
    )
    report.progress(found.why)
    report.output(folder, manifest)


def _check_output(folder: str, config: KSelectionConfig) -> dict[str, checks.Check]:
    """Read back what was written."""
    choice = Inspection(CHOICE)
    read = list(outputs.read_back_json(folder, "k.json", choice, lines=False))
    return {
        "schema": checks.schema(choice),
        "k_in_range": checks.k_in_range(read, config.k_max),
        "has_segments": checks.has_segments(read),
    }


def _shown(score: float | None) -> str:
    return "not defined" if score is None else f"{score:.6g}"


def read_choice(folder: str) -> tuple[int, str, str]:
    """The k that an output of this job chose, its verdict, and the output's fingerprint.

    Raises:
        InputError: The folder holds none.
    """
    manifest = outputs.read_manifest(folder, STEP)
    summary = manifest["summary"]
    return int(summary["k"]), str(summary.get("verdict", "segments")), str(manifest["fingerprint"])


if __name__ == "__main__":
    run_as_command(main)
