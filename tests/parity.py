"""Runs the jobs on engines, and compares what they write with the contract's reference and with each other."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from spark_jobs.clusters import published
from spark_jobs.clusters.selection import ENOUGH_EVIDENCE, ENOUGH_PAGES, ENOUGH_PEOPLE, FALSE_ALARMS
from spark_jobs.config import FIT_MIN_ACTIONS, ClusteringInputsConfig, KMeansConfig, KSelectionConfig
from spark_jobs.errors import TooManyRejects
from spark_jobs.options import to_arguments
from tests import reference
from tests.conftest import Engine
from tests.generated import GROUPED_USERS, Month
from tests.golden import read_json_lines

JUDGED_WITH = KMeansConfig().params  # by select_k
_SOLIDITY = ("cluster_id", "cluster_stability", "cluster_solidity")


def _manifest(output: Path) -> dict[str, Any]:
    """The manifest of an output, which lists all its files, and of which all checks passed."""
    manifest: dict[str, Any] = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    files = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert files == {file["path"] for file in manifest["files"]} | {"manifest.json"}
    return manifest


def _passed(manifest: Mapping[str, Any], *but: str) -> None:
    assert {name: check["why"] for name, check in manifest["checks"].items() if name not in but and check["why"]} == {}


def _equal(manifests: Sequence[dict[str, Any]]) -> None:
    """Compare all of the manifests that says what was made, of what."""
    for name in ("schema_version", "step", "code_version", "fingerprint", "inputs", "config", "rows", "checks"):
        assert [manifest[name] for manifest in manifests] == [manifests[0][name]] * len(manifests), name


def assert_same_bytes(outputs: Sequence[Path]) -> None:
    """Compare all files but the manifests, which have times and engines."""
    first, *others = ({p.relative_to(o): p for p in o.rglob("*") if p.is_file()} for o in outputs)
    for other in others:
        assert first.keys() == other.keys()
        for name in first:
            assert name.name == "manifest.json" or first[name].read_bytes() == other[name].read_bytes(), name


# --- group_by_user ---------------------------------------------------------------------------------


def assert_grouped_alike(
    engines: Sequence[Engine], month: Month, folder: Path, *, max_reject_ratio: float, bytes_a_file: int
) -> list[Path]:
    """Group a month on each engine: they make the users of the reference, in as many files as they like.

    Args:
        engines: The engines.
        month: The month, which is written to the folder.
        folder: Where each engine writes, in a folder of its name.
        max_reject_ratio: As the job has it.
        bytes_a_file: Raw bytes whose users make one output file, about.

    Returns:
        The outputs, one an engine.
    """
    raw = month.write(folder)
    # Engines need not cut the users into the same files, but each must make the same bytes again.
    outputs = [folder / engine.name / "grouped" for engine in engines] + [folder / "again"]
    rejects = {(str(raw / name), line): reasons for (name, line), reasons in month.rejects.items()}
    rows = len(month.rows) + len(month.broken)
    for engine, output in zip([*engines, engines[-1]], outputs, strict=True):
        arguments = ("group_by_user", raw, output, "--max-reject-ratio", max_reject_ratio)
        if len(rejects) > max_reject_ratio * rows:
            with pytest.raises(TooManyRejects, match=rf"^{len(rejects):,} of {rows:,} raw rows .* break a rule"):
                engine.run(*arguments)
            assert not (output / "manifest.json").exists()
            continue
        engine.run(*arguments, patch={"users.shuffle._RAW_BYTES_A_FILE": bytes_a_file})
        _assert_users(output, month)
        found = [row for part in output.glob("rejects/*.parquet") for row in pq.read_table(part).to_pylist()]
        assert Counter((row["file"], row["line"]) for row in found) == Counter(rejects.keys())
        assert [row for row in found if row["reason"] not in rejects[row["file"], row["line"]]] == []
    if len(rejects) <= max_reject_ratio * rows:
        _equal([_manifest(output) for output in outputs])
        assert_same_bytes(outputs[-2:])
        assert_same_bytes([output / "rejects" for output in outputs])
    return outputs[:-1]


def users_in(output: Path) -> list[dict[str, Any]]:
    """The users of all files of an output, by user; they must be in that order in each."""
    users: list[dict[str, Any]] = []
    for part in (output / "users").iterdir():
        table = pq.read_table(part)
        assert table.schema.equals(GROUPED_USERS)
        of_part = table.to_pylist()
        assert [row["user_id"] for row in of_part] == sorted(row["user_id"] for row in of_part)
        users += of_part
    return sorted(users, key=lambda row: row["user_id"])


def _assert_users(output: Path, month: Month) -> None:
    users = users_in(output)
    assert users == reference.rows_of(reference.group(month.accepted))
    manifest = _manifest(output)
    _passed(manifest, "rejects")  # it warns of many, which there may be
    assert manifest["rows"] == {"users": len(users), "rejects": len(month.rejects)}
    facts = {
        "users": len(users),
        "pages": sum(len(row["pages"]) for row in users),
        "rows": len(month.rows) + len(month.broken),
        "actions": sum(page[action] for row in users for page in row["pages"] for action in reference.ACTIONS),
        "rejected": len(month.rejects),
        "raw_files": len(month.files),
    }
    assert {name: manifest["summary"][name] for name in facts} == facts


# --- make_clustering_inputs, select_k and kmeans ---------------------------------------------------


@dataclass(frozen=True)
class Tweak:
    """The configs of a clustering."""

    inputs: ClusteringInputsConfig
    choice: KSelectionConfig
    kmeans: KMeansConfig


def assert_clustered_alike(
    engines: Sequence[Engine],
    users: Mapping[str, reference.User],
    grouped: Sequence[Path],
    categories: Sequence[Path],
    folder: Path,
    tweak: Tweak,
    *,
    well_conditioned: bool = True,
) -> None:
    """Make clustering inputs, choose k and cluster on each engine: they write the same bytes, and these are right.

    Args:
        engines: The engines.
        users: The users.
        grouped: Where each engine finds them.
        categories: The category files.
        folder: Where each engine writes, in a folder of its name.
        tweak: The configs.
        well_conditioned: The users' values are of one order of magnitude, so that floats give scores to many digits.
    """
    files = [option for file in categories for option in ("--category", file)]
    for engine, source in zip(engines, grouped, strict=True):
        inputs = folder / engine.name / "{category}" / "inputs"
        engine.run("make_clustering_inputs", source, inputs, *files, *to_arguments(tweak.inputs))
    for file in categories:
        category = _Category.parse(json.loads(file.read_text(encoding="utf-8")))
        places = [folder / engine.name / file.stem for engine in engines]
        _assert_inputs(places[0] / "inputs", category, users, tweak.inputs)
        for engine, place in zip(engines, places, strict=True):
            engine.run("select_k", place / "inputs", place / "k", *to_arguments(tweak.choice))
            chosen = ["--k-selection", place / "k"] if tweak.kmeans.k is None else []
            engine.run("kmeans", place / "inputs", place / "clusters", *chosen, *to_arguments(tweak.kmeans))
        clustered = _Clustered.read(places[0])
        _assert_choice(clustered, tweak.choice)
        _assert_clusters(clustered, category, tweak.kmeans, well_conditioned)
        _assert_segments_are_those_judged(clustered, tweak)
        for step in ("inputs", "k", "clusters"):
            _equal([_manifest(place / step) for place in places])
            _passed(_manifest(places[0] / step), "has_segments")  # it warns where there are none
        has_segments = _manifest(places[0] / "k")["checks"]["has_segments"]
        assert has_segments["passed"] == (clustered.choice["verdict"] == "segments")
        assert has_segments["why"] == ("" if has_segments["passed"] else clustered.choice["why"])
        assert_same_bytes(places)


@dataclass(frozen=True)
class _Category:
    """A category as its file has it."""

    private: bool
    pages: Sequence[tuple[str, str, str]]  # id, name and network

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> "_Category":
        networks = {key: pages for key, pages in content.items() if key not in ("id", "name", "private")}
        pages = [
            (page["id"], page.get("name", page["id"]), network) for network in networks for page in networks[network]
        ]
        return cls(content.get("private", False), pages)


def _assert_inputs(
    output: Path, category: _Category, users: Mapping[str, reference.User], config: ClusteringInputsConfig
) -> None:
    ids = [page for page, _, _ in category.pages]
    vectors = reference.vectors(users, ids, config.action_weights, config.min_actions)
    scaled = reference.scaled(vectors, config.scaling)
    dimensions, profiles, members = (
        pq.read_table(output / f"{table}.parquet").to_pylist() for table in ("dimensions", "profiles", "members")
    )

    assert [(row["dimension_id"], row["dimension_name"], row["network"]) for row in dimensions] == list(category.pages)
    assert [row["dimension_index"] for row in dimensions] == list(range(len(ids)))
    of_dimension = [[vector[d] for vector in vectors.values() if d in vector] for d in range(len(ids))]
    assert [row["users"] for row in dimensions] == [len(values) for values in of_dimension]
    assert [row["total"] for row in dimensions] == _about([float(sum(values)) for values in of_dimension])

    assert [row["user_id"] for row in members] == sorted(vectors)
    assert [row["gender"] for row in members] == [users[name].gender for name in sorted(vectors)]
    points = [dict(zip(row["indices"], row["values"], strict=True)) for row in profiles]
    for row in members:
        point, expected = points[row["profile_id"]], scaled[row["user_id"]]
        assert {d: point.get(d, 0.0) for d in expected.keys() | point.keys()} == _about(expected), row["user_id"]

    assert [row["profile_id"] for row in profiles] == list(range(len(profiles)))
    weights = [row["weight"] for row in profiles]
    assert weights == sorted(weights, reverse=True)
    assert dict(enumerate(weights)) == Counter(row["profile_id"] for row in members)
    assert len({tuple(point.items()) for point in points}) == len(profiles)
    did = reference.actions_on(users, ids)
    assert [row["actions"] for row in members] == [did[name] for name in sorted(vectors)]
    each = reference.each_action_on(users, ids)
    assert [{action: row[action] for action in reference.ACTIONS} for row in members] == [
        each[name] for name in sorted(vectors)
    ]
    enough = [row for row in members if row["actions"] >= FIT_MIN_ACTIONS]
    of_enough = Counter(row["profile_id"] for row in enough)
    assert [row["fit_weight"] for row in profiles] == [of_enough[number] for number in range(len(profiles))]

    profile_of = {row["user_id"]: row["profile_id"] for row in members}
    profiles_of: dict[Any, set[int]] = {}
    for name, vector in vectors.items():
        same: Any = tuple(sorted(vector.items()))
        if any(value != Fraction(float(value)) for value in vector.values()):
            # Floats may tell equal sums of other actions apart, but not the same actions.
            same = tuple(tuple(sorted(users[name].pages.get(page, {}).items())) for page in ids)
        profiles_of.setdefault(same, set()).add(profile_of[name])
    assert [same for same, of_users in profiles_of.items() if len(of_users) > 1] == []
    if config.scaling.endswith("max"):
        assert all(0 <= value < 1 for point in points for value in point.values())

    manifest = _manifest(output)
    assert manifest["rows"] == {"dimensions": len(ids), "profiles": len(profiles), "members": len(members)}
    told = {name: manifest["summary"][name] for name in ("fit_users", "fit_min_actions")}
    assert told == {"fit_users": len(enough), "fit_min_actions": FIT_MIN_ACTIONS}


def _about(values: Any) -> Any:
    """Values to compare with: floats may differ in the last of their digits, and `l2` is rounded to 12 decimals."""
    return pytest.approx(values, rel=1e-9, abs=5e-12)


@dataclass(frozen=True)
class _Clustered:
    """A category's clustering, and the inputs it was made of."""

    points: Sequence[reference.Point]  # by profile
    profile_of: Mapping[str, int]  # of each user
    actions_of: Mapping[str, int]  # of each user, on the category's pages
    each_of: Mapping[str, Mapping[str, int]]  # of each user, by action
    choice: Mapping[str, Any]
    assignments: Sequence[Mapping[str, Any]]
    centers: Sequence[Mapping[str, Any]]
    data: Sequence[Mapping[str, Any]]
    meta_data: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]

    @classmethod
    def read(cls, place: Path) -> "_Clustered":
        profiles, members = (pq.read_table(place / "inputs" / f"{name}.parquet") for name in ("profiles", "members"))
        clusters = place / "clusters"
        return cls(
            [dict(zip(row["indices"], row["values"], strict=True)) for row in profiles.to_pylist()],
            {row["user_id"]: row["profile_id"] for row in members.to_pylist()},
            {row["user_id"]: row["actions"] for row in members.to_pylist()},
            {row["user_id"]: {name: row[name] for name in reference.ACTIONS} for row in members.to_pylist()},
            json.loads((place / "k" / "k.json").read_text()),
            pq.read_table(clusters / "assignments.parquet").to_pylist(),
            pq.read_table(clusters / "centers.parquet").to_pylist(),
            read_json_lines(clusters / "data.json"),
            read_json_lines(clusters / "meta-data.json"),
            json.loads((clusters / "summary.json").read_text()),
        )

    def may_learn_from_active(self, at_least: int, k: int) -> bool:
        """Whether k clusters are learned from those with so many actions alone."""
        names = sorted(self.profile_of)
        actions, profiles = [[of[name] for name in names] for of in (self.actions_of, self.profile_of)]
        return reference.may_learn_from_active(actions, profiles, at_least, k)


def _assert_choice(clustered: _Clustered, config: KSelectionConfig) -> None:
    choice, users = clustered.choice, len(clustered.profile_of)
    active = [name for name, actions in clustered.actions_of.items() if actions >= config.fit_min_actions]
    stated = {name: choice[name] for name in ("criterion", "people", "people_judged")}
    assert stated == {"criterion": config.criterion, "people": len(active), "people_judged": len(active)}
    assert (choice["evidence_needed"], choice["false_alarm_rate"]) == (ENOUGH_EVIDENCE, FALSE_ALARMS)
    tried, verdict, k = choice["tried"], choice["verdict"], choice["k"]
    assert (verdict == "too_few") == (len(active) < ENOUGH_PEOPLE)
    if verdict == "too_few":
        assert (k, tried, choice["evidence"]) == (1, [], None)
        return
    learnable = [k for k in range(2, config.k_max + 1) if clustered.may_learn_from_active(config.fit_min_actions, k)]
    assert [row["k"] for row in tried] == [1, *learnable]  # a k with fewer than ten people a segment is not tried
    assert tried[0]["smallest_segment"] == users
    for row in tried:
        assert 0 <= row["smallest_segment"] <= users // row["k"]
        assert (row["silhouette"] is None) == (row["k"] == 1)
    smallest = max(config.min_segment, math.ceil(config.min_segment_share * users))
    large_enough = [row for row in tried[1:] if row["smallest_segment"] >= smallest]
    profiles = {clustered.profile_of[name] for name in active}
    pages = {page for profile in profiles for page, value in clustered.points[profile].items() if value}
    assert (choice["evidence"] is None) == (len(pages) < ENOUGH_PAGES or not large_enough)
    if verdict == "none":
        assert k == 1
        if choice["evidence"] is not None and choice["evidence"] >= ENOUGH_EVIDENCE:
            assert min(row["prediction"] for row in large_enough) <= tried[0]["prediction"]
        return
    assert choice["evidence"] >= ENOUGH_EVIDENCE
    assert k in [row["k"] for row in large_enough]
    (best,) = reference.best_k(large_enough, "prediction")
    assert tried[best - 1]["prediction"] > tried[0]["prediction"]
    if config.criterion == "prediction":
        assert k <= best  # a smaller one is taken that is about as good
        assert tried[k - 1]["prediction"] > tried[0]["prediction"]
    else:
        assert k in reference.best_k(large_enough, config.criterion)


def _assert_segments_are_those_judged(clustered: _Clustered, tweak: Tweak) -> None:
    """With the same settings, the clusters of the chosen k are those that were found large enough."""
    choice, config = tweak.choice, tweak.kmeans
    alike = all(getattr(choice, name) == getattr(config, name) for name in ("fit_min_actions", "n_init", "seed"))
    row = next((row for row in clustered.choice["tried"] if row["k"] == len(clustered.centers)), None)
    if alike and row and config.params == JUDGED_WITH and _learned(clustered, config):
        assert clustered.centers[-1]["users"] == row["smallest_segment"]


def _learned(clustered: _Clustered, config: KMeansConfig) -> set[str]:
    """The users that a clustering is learned from, if these are the active ones only; else nobody."""
    wanted = min(config.k or clustered.choice["k"], len(clustered.points))
    if clustered.may_learn_from_active(config.fit_min_actions, wanted):
        return {name for name, actions in clustered.actions_of.items() if actions >= config.fit_min_actions}
    return set()


def _assert_learned(clustered: _Clustered, config: KMeansConfig) -> set[str]:
    """Clusters are learned from the active, if there are enough of them, and else from all; returns those users."""
    active = _learned(clustered, config)
    learned = active or set(clustered.profile_of)
    assert clustered.summary["learned_from"] == {
        "users": published.count(len(learned), config.min_people),
        "min_actions": config.fit_min_actions if active or not learned else 0,
        "wssse": pytest.approx(
            math.fsum(row["distance"] ** 2 for row in clustered.assignments if row["user_id"] in learned), rel=1e-9
        ),
    }
    return learned


def _assert_nearest(clustered: _Clustered, centers: Sequence[reference.Point]) -> float:
    """Every user's cluster is that of the nearest center; the distance below which floats may err."""
    points = clustered.points
    longest = max((reference.distance(point, {}) for point in [*points, *centers]), default=0.0)
    far = [[reference.distance(point, center) for center in centers] for point in points]
    blur = 1e-7 * longest
    for row in clustered.assignments:
        distances = far[clustered.profile_of[row["user_id"]]]
        assert row["distance"] == pytest.approx(distances[row["cluster_id"]], rel=1e-9, abs=blur)
        assert row["distance"] <= min(distances) + blur
        nearest, following = reference.nearest_two(points[clustered.profile_of[row["user_id"]]], centers)
        assert 0 <= row["confidence"] <= 1
        if math.isinf(following):
            assert row["confidence"] == 1
        else:  # 1 - nearest / following
            assert row["confidence"] * following == pytest.approx(following - nearest, rel=1e-9, abs=3 * blur)
    return blur


def _assert_clusters(clustered: _Clustered, category: _Category, config: KMeansConfig, well_conditioned: bool) -> None:
    points, k = clustered.points, len(clustered.centers)
    summary, wanted = clustered.summary, config.k or clustered.choice["k"]
    assert (summary["k"], summary["requested_k"]) == (k, wanted)
    assert min(1, len(points)) <= k <= min(wanted, len(points))
    told = ("params", "n_init", "seed", "label")
    assert {name: summary[name] for name in told} == config.model_dump(include=set(told))
    assert summary["verdict"] == (clustered.choice["verdict"] if config.k is None else None)

    learned = _assert_learned(clustered, config)

    # Every user is in one cluster, and all files say in which.
    assert [row["user_id"] for row in clustered.assignments] == sorted(clustered.profile_of)
    users_of: list[list[str]] = [[] for _ in range(k)]
    for row in clustered.assignments:
        users_of[row["cluster_id"]].append(row["user_id"])
    assert clustered.data == [{"cluster_id": number, "user_ids": users} for number, users in enumerate(users_of)]
    sizes = [len(users) for users in users_of]
    assert [(row["cluster_id"], row["users"]) for row in clustered.centers] == list(enumerate(sizes))
    numbered = [(-row["users"], row["center"]) for row in clustered.centers]
    assert numbered == sorted(numbered)

    centers = [dict(enumerate(row["center"])) for row in clustered.centers]
    blur = _assert_nearest(clustered, centers)

    # What is told of the clusters holds for their members.
    members = [[points[clustered.profile_of[user]] for user in users] for users in users_of]
    wssse = math.fsum(row["distance"] ** 2 for row in clustered.assignments)
    assert summary["wssse"] == pytest.approx(wssse, rel=1e-9)
    assert [row["cluster_id"] for row in clustered.meta_data] == list(range(k))
    for number, row in enumerate(clustered.meta_data):
        assert row["cluster_member_count"] == sizes[number]
        assert (row["private"], row["cluster_wssse"]) == (category.private, summary["wssse"])
        largest = max(of["distance"] for of in clustered.assignments if of["cluster_id"] == number)
        assert row["cluster_diameter"] == 2 * largest
        for place, (page, name, _) in enumerate(category.pages):
            values = [point.get(place, 0.0) for point in members[number]]
            assert row["dimensions"][place] == {
                "dimension_id": page,
                "dimension_name": name,
                "member_count": sum(value > 0 for value in values),
                "center": centers[number][place],
                "min": min(values),
                "max": max(values),
                "avg": pytest.approx(math.fsum(values) / len(values), rel=1e-9),
            }
            if summary["converged"] and config.params.endswith(",0.0"):  # no center moved at all
                of_learned = [
                    points[clustered.profile_of[user]].get(place, 0.0) for user in users_of[number] if user in learned
                ]
                middle = math.fsum(of_learned) / len(of_learned)
                assert middle == pytest.approx(centers[number][place], rel=1e-9, abs=blur)
        assert len(row["dimensions"]) == len(category.pages)
        assert row["cluster_stability"] is None if k == 1 else 0 <= row["cluster_stability"] <= 1
        assert row["cluster_solidity"] == reference.solidity(row["cluster_stability"])
    assert summary["solidity"] == [
        {name.removeprefix("cluster_") if name != "cluster_id" else name: row[name] for name in _SOLIDITY}
        for row in clustered.meta_data
    ]
    _assert_mix(clustered, users_of, config.min_people)
    scores = summary["scores"]
    assert scores["wssse"] == summary["wssse"]
    assert (scores["silhouette"] is None) == (k < 2)
    if well_conditioned and k >= 2:
        assert scores["silhouette"] == pytest.approx(reference.silhouette(members, centers), rel=1e-6, abs=1e-9)
        if wssse > blur**2:  # otherwise it is a matter of the last bits whether there is anything within
            expected = reference.calinski_harabasz(members, centers)
            assert scores["calinski_harabasz"] == (expected and pytest.approx(expected, rel=1e-6))


def _assert_mix(clustered: _Clustered, users_of: Sequence[Sequence[str]], min_people: int) -> None:
    """What is published of what people do is that of the segments' people, and of everybody."""
    summary, each = clustered.summary, clustered.each_of
    assert [segment["actions"] for segment in summary["segments"]] == [
        reference.action_mix([each[user] for user in users], min_people) for users in users_of
    ]
    assert summary["actions"] == (reference.action_mix(list(each.values()), min_people) if users_of else None)
