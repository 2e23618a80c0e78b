"""Say whether a category's users fall into segments, and into how many.

INPUTS is an output of make_clustering_inputs, OUTPUT the folder to make: `k.json`, with the verdict, the k, why, and
the scores of every k that was tried. `spark_jobs/clusters/selection.py` says how it is judged.
"""

import time
from dataclasses import replace
from typing import Any

import click
import pyarrow as pa

from spark_jobs import outputs, storage
from spark_jobs.clusters import clustering, selection
from spark_jobs.clusters.checks import has_segments, k_in_range
from spark_jobs.clusters.published import in_words
from spark_jobs.config import EngineConfig, KSelectionConfig
from spark_jobs.errors import InputError
from spark_jobs.options import config_options
from spark_jobs.outputs import checks, read_back
from spark_jobs.outputs.checks import CheckResult
from spark_jobs.outputs.fingerprints import fingerprint
from spark_jobs.outputs.schemas import AT_LEAST_0, AT_LEAST_1, Inspection, TableRules
from spark_jobs.reporting import Reporter, run_as_command
from spark_jobs.resources import Resources, ResourcesConfig
from spark_jobs.vectors import clustering_inputs
from spark_jobs.vectors.clustering_inputs import InputsMetadata

STEP = "k_selection"
CODE_VERSION = "3"  # raise it with every change of what comes out: partitions are then made again

# People who are drawn where there are more: to learn from, and of all to see how large segments are.
LEARN, PLACE = 6_000, 20_000

_SCORES = ("wssse", "silhouette", "calinski_harabasz", "prediction")
_TRIED = pa.struct([("k", pa.int64()), *((score, pa.float64()) for score in _SCORES), ("smallest_segment", pa.int64())])
CHOICE = TableRules(
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
    non_empty=("verdict", "why", "criterion"),
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
    inputs: str,
    output: str,
    config: KSelectionConfig,
    engine: EngineConfig,
    resources: Resources,
    report: Reporter,
) -> None:
    """Choose k; see the command. The work is the same on any engine: it is done on a sample of bounded size."""
    started = time.monotonic()
    metadata = clustering_inputs.read_metadata(storage.absolute(inputs), engine.strict_schema)
    with outputs.writing(
        STEP,
        CODE_VERSION,
        storage.absolute(output),
        report,
        config=config,
        inputs=[metadata.fingerprint],
        fingerprint=step_fingerprint(config, metadata.fingerprint),
        started=started,
    ) as made:
        if made.finished:
            return
        people = _draw(metadata, config, engine.strict_schema, resources, report)
        found = selection.select(
            people.profiles,
            people.fit_weight,
            people.weight,
            metadata.users,
            config,
            progress=lambda row: report.detail(_format(row)),
            cores=resources.cores,
        )
        choice = _choice(found, people, config)
        made.write_json("k.json", choice)
        made.complete(
            rows={"tried": len(found.tried)},
            summary={
                **choice,
                "users": metadata.users,
                "profiles": metadata.profiles,
                "engine": clustering.engine_version(),
                "bytes_in": metadata.bytes,
            },
            inspect=lambda: check_choice(made.folder, config.k_max),
            message=_found(found, people),
        )


def _draw(
    metadata: InputsMetadata, config: KSelectionConfig, strict: bool, resources: Resources, report: Reporter
) -> clustering_inputs.Sample:
    """Draw the people on whom k is chosen."""
    share = min(1.0, (LEARN + PLACE) / max(1, metadata.profiles))
    drawn = replace(metadata, profiles=int(share * metadata.profiles), entries=int(share * metadata.entries))
    clustering_inputs.check_memory(drawn, config.k_max, resources)
    people = clustering_inputs.sample(metadata, config.fit_min_actions, LEARN, PLACE, config.seed, strict)
    if not people.whole:
        judged = in_words(int(people.fit_weight.sum()))
        report.progress(f"judged on {judged} of {in_words(people.fit_people)} people, drawn by chance")
    return people


def _choice(found: selection.Selection, people: clustering_inputs.Sample, config: KSelectionConfig) -> dict[str, Any]:
    """What k.json holds."""
    return {
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


def _format(row: dict[str, Any]) -> str:
    """The scores of a k that was tried, for the log."""
    scores = {name: "not defined" if row[name] is None else f"{row[name]:.6g}" for name in _SCORES if name in row}
    scores["smallest_segment"] = in_words(row["smallest_segment"])
    return f"k = {row['k']}: " + ", ".join(f"{name} {score}" for name, score in scores.items())


def _found(found: selection.Selection, people: clustering_inputs.Sample) -> str:
    """What was found and why, for the log, which says nothing of a few people; `k.json` has exact figures."""
    if found.verdict == "too_few":
        return f"Too few people to tell: {in_words(people.fit_people)} have enough actions on these pages."
    return found.why


def check_choice(folder: str, k_max: int) -> dict[str, CheckResult]:
    """Read back a choice of k."""
    inspection = Inspection(CHOICE)
    choices = list(read_back.json_rows(folder, "k.json", inspection, lines=False))
    return {
        "schema": checks.schema(inspection),
        "k_in_range": k_in_range(choices, k_max),
        "has_segments": has_segments(choices),
    }


def read_choice(folder: str, inputs: InputsMetadata) -> tuple[int, str, str]:
    """The k that an output of this job chose for these inputs, its verdict, and the output's fingerprint.

    Raises:
        InputError: The folder holds no finished output of it, or one that was made from other inputs.
    """
    manifest = outputs.read_manifest(folder, STEP)
    if manifest["inputs"] != [inputs.fingerprint]:
        raise InputError(
            f"The k in {folder} was chosen for other clustering inputs than {inputs.folder}, those of"
            f" {inputs.category['name']!r}. Choose it anew: python -m spark_jobs.select_k {inputs.folder} OUTPUT; or"
            " give a k."
        )
    summary = manifest["summary"]
    return int(summary["k"]), str(summary.get("verdict", "segments")), str(manifest["fingerprint"])


if __name__ == "__main__":
    run_as_command(main)
