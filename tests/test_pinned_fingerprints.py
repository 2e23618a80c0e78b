"""The fingerprints of all steps, by value: a change of one makes everybody's months again, and must be meant.

If a test here fails, look at what changed before you look at it: a field more in a config, another default, another
order of inputs. Was it not meant to make anything again? Then keep it out of the fingerprint, as `KMeansConfig` does
with its `library`. Was it? Then raise the step's CODE_VERSION, and take the new values from

    python -m tests.test_pinned_fingerprints
"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from spark_jobs import follow_segments, group_by_user, kmeans, make_clustering_inputs, make_report, select_k
from spark_jobs.config import (
    ClusteringInputsConfig,
    GroupedUsersConfig,
    KMeansConfig,
    KSelectionConfig,
    ReportConfig,
    SegmentsConfig,
)
from spark_jobs.following.edits import Merge, PinK, Rename
from spark_jobs.outputs.fingerprints import files_fingerprint
from spark_jobs.storage import StoredFile, list_files
from spark_jobs.vectors.category_files import read_category

RAW, GROUPED, CATEGORY = "a" * 32, "b" * 32, "c" * 32
INPUTS, CHOICE, CLUSTERS, BEFORE = "d" * 32, "e" * 32, "f" * 32, "0" * 32
MONTH = "2024-03"
EDITS = (
    Rename(segment=1, name="Tea", by="ann", at="2024-03-01"),
    PinK(k=4),
    Merge(segments=(2, 3), from_month="2024-02"),
)

PINNED = {
    "grouped_users": "b3c35cdb7764a03e85ee79debcdaa199",
    "grouped_users, tweaked": "93a706bdfeeefdcdfd98c75517d1b1cc",
    "clustering_inputs": "96848db612614650d8811233846c340d",
    "clustering_inputs, tweaked": "30b6136b9de615545ff5e210f5f2913c",
    "k_selection": "36b548b1467dc1e9974c88131c8870e4",
    "k_selection, tweaked": "690a42a794c57450adff40d9620a6ef3",
    "kmeans": "5a8394060b3449d76582e38084f7e850",
    "kmeans, tweaked": "c2da4f6955beaa45ebdb0ed690a544cf",
    "segments": "cdb27398303cdcfb87158b36bc0b998d",
    "segments, followed": "c7f4f3941b5a85b4ef7b210334310732",
    "segments, edited": "59128447b51ea0692bd7cc66c6e07231",
    "audience_report": "1af459bd2a712690f9152665d3f3d046",
    "audience_report, followed": "643db9a207c0e0ac78cd6360c6c6aff8",
}
PINNED_FILES = {
    "files on S3": "4339bb0f0348acf5963c5cfc86db12c1",
    "files on disk": "827dc5d8a2f270ac64e845daeaf0a8ee",
    "a category file": "d27b80921d707842dd1a69745d2da1b9",
}


def fingerprints() -> dict[str, str]:
    """Of each step: with the defaults, and with whatever else decides its result."""
    tweaked_inputs = ClusteringInputsConfig(action_weights={"page_like": 2}, min_actions=3, scaling="log1p,l2")
    tweaked_choice = KSelectionConfig(
        criterion="elbow", k_max=7, min_segment=20, min_segment_share=0.1, fit_min_actions=2, n_init=1, seed=5
    )
    tweaked_kmeans = KMeansConfig(
        k=3, params="random,9,0.5", n_init=2, seed=1, fit_min_actions=1, min_people=20, library="mllib", label="six"
    )
    return {
        "grouped_users": group_by_user.step_fingerprint(GroupedUsersConfig(), MONTH, RAW),
        "grouped_users, tweaked": group_by_user.step_fingerprint(GroupedUsersConfig(max_reject_ratio=0.5), MONTH, RAW),
        "clustering_inputs": make_clustering_inputs.step_fingerprint(ClusteringInputsConfig(), GROUPED, CATEGORY),
        "clustering_inputs, tweaked": make_clustering_inputs.step_fingerprint(tweaked_inputs, GROUPED, CATEGORY),
        "k_selection": select_k.step_fingerprint(KSelectionConfig(), INPUTS),
        "k_selection, tweaked": select_k.step_fingerprint(tweaked_choice, INPUTS),
        "kmeans": kmeans.step_fingerprint(KMeansConfig(), INPUTS, CHOICE),
        "kmeans, tweaked": kmeans.step_fingerprint(tweaked_kmeans, INPUTS, None),
        "segments": follow_segments.step_fingerprint(SegmentsConfig(), MONTH, CLUSTERS, None),
        "segments, followed": follow_segments.step_fingerprint(SegmentsConfig(), MONTH, CLUSTERS, BEFORE),
        "segments, edited": follow_segments.step_fingerprint(SegmentsConfig(seed=7), MONTH, CLUSTERS, BEFORE, EDITS),
        "audience_report": make_report.step_fingerprint(ReportConfig(), MONTH, "tea", CLUSTERS),
        "audience_report, followed": make_report.step_fingerprint(ReportConfig(), MONTH, "tea", CLUSTERS, BEFORE),
    }


def files_fingerprints(folder: Path) -> dict[str, str]:
    """Of input files, which are what the fingerprints of the first steps begin with."""
    on_s3 = [StoredFile(f"s3://b/{name}", name, size, digest) for name, size, digest in (("b", 2, "y"), ("a", 1, "x"))]
    raw = folder / "month=2024-01"
    raw.mkdir()
    (raw / "a.jsonl").write_bytes(b'{"user_id": "u", "page_id": "p", "action": "page_like"}\n')
    (raw / "b.csv").write_bytes(b"user_id,page_id,action\nv,p,post_like\n")
    category = folder / "tea.json"
    text = '{"id": 3, "facebook": [{"id": "p", "name": "Tea"}], "twitter": [{"id": "q", "name": "Ü"}]}'
    category.write_bytes(text.encode())
    return {
        "files on S3": files_fingerprint(on_s3),
        "files on disk": files_fingerprint(list_files(str(raw))),
        "a category file": read_category(str(category)).fingerprint,
    }


@pytest.mark.parametrize("step", fingerprints())
def test_a_fingerprint_is_what_it_was_when_the_months_there_are_were_made(step: str) -> None:
    assert fingerprints()[step] == PINNED[step]


def test_every_field_of_a_config_that_decides_something_is_pinned_by_a_value_of_its_own() -> None:
    """So that a field which no longer gets into the fingerprint is noticed as well."""
    assert fingerprints().keys() == PINNED.keys()
    assert len(set(PINNED.values())) == len(PINNED)


def test_the_fingerprints_of_input_files_are_what_they_were(tmp_path: Path) -> None:
    assert files_fingerprints(tmp_path) == PINNED_FILES


def _printed(name: str, values: Mapping[str, str]) -> str:
    return "\n".join([f"{name} = {{", *(f'    "{of}": "{value}",' for of, value in values.items()), "}"])


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        print(_printed("PINNED", fingerprints()))
        print(_printed("PINNED_FILES", files_fingerprints(Path(made))))
