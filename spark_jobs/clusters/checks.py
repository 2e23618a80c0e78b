"""Checks of the choice of k and of clusters: every user is in one cluster, and all files have the same clusters."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.clusters import published
from spark_jobs.clusters.files import ASSIGNMENTS, CENTERS, DATA, META_DATA, users_of_clusters
from spark_jobs.clusters.learned import Clusters
from spark_jobs.clusters.published import SEGMENT_COMPARISONS, SEGMENT_PROFILES
from spark_jobs.outputs import checks, read_back
from spark_jobs.outputs.checks import CheckResult
from spark_jobs.outputs.schemas import Inspection
from spark_jobs.outputs.tables import read_batches
from spark_jobs.vectors.clustering_inputs import InputsMetadata

_FEW_USERS = 1 << 17  # whose rows are read back faster than threads take turns


def check_clusters(
    folder: str, metadata: InputsMetadata, found: Clusters, min_people: int, cores: int
) -> dict[str, CheckResult]:
    """Read back clusters, and compare them with the users and the profiles of their inputs."""
    rules = (ASSIGNMENTS, CENTERS, DATA, META_DATA, SEGMENT_PROFILES, SEGMENT_COMPARISONS)
    assignments, centers, data, meta_data, profiles, comparisons = map(Inspection, rules)
    with ThreadPoolExecutor(cores if metadata.users > _FEW_USERS else 1) as threads:
        of_listed = threads.submit(listed_users, read_back.json_lists(folder, "data.json", data))
        of_assigned = threads.submit(assigned_users, read_back.parquet(folder, "assignments.parquet", assignments))
        of_inputs = threads.submit(_users_of, metadata)
    listed, assigned, users = of_listed.result(), of_assigned.result(), of_inputs.result()
    center_rows = list(read_back.parquet(folder, "centers.parquet", centers))
    descriptions = list(read_back.json_rows(folder, "meta-data.json", meta_data, lines=True))
    sizes = {
        "centers.parquet": [users for batch in center_rows for users in batch.column("users").to_pylist()],
        "meta-data.json": [batch.column("cluster_member_count")[0].as_py() for batch in descriptions],
    }
    profile_rows = list(read_back.parquet(folder, "profiles.parquet", profiles))
    compared = read_back.parquet(folder, "comparisons.parquet", comparisons)
    published_figures = figures_published(profile_rows, compared, descriptions, min_people)
    described = [batch.column("dimensions").flatten().field("center").to_pylist() for batch in descriptions]
    return {
        "schema": checks.schema(assignments, centers, data, meta_data, profiles, comparisons),
        "every_user_once": every_user_once(users, assigned, listed, sizes),
        "centers_in_range": centers_in_range(center_rows, *found.value_range, described),
        "figures_published": published_figures,
    }


class UsersDigest:
    """A list of users in their order: how many they are, and a digest of their ids."""

    def __init__(self) -> None:
        self.count = 0
        self._lengths, self._texts = hashlib.sha256(), hashlib.sha256()

    def add(self, users: pa.StringArray) -> None:
        """Add the next users."""
        _, buffer, texts = users.buffers()
        offsets = np.frombuffer(buffer, np.int32)[users.offset : users.offset + len(users) + 1] if len(users) else [0]
        self.count += len(users)
        self._lengths.update(np.ascontiguousarray(np.diff(offsets)).data)
        self._texts.update(memoryview(texts or b"")[offsets[0] : offsets[-1]])

    @property
    def digest(self) -> bytes:
        """It depends on the users and their order, and not on the batches in which they came."""
        return self._lengths.digest() + self._texts.digest()


@dataclass
class Assigned:
    """The users of assignments: all of them, and those of each cluster."""

    all: UsersDigest
    of_cluster: dict[int, UsersDigest]
    twice: int = 0  # users that occur more than once; sorted, they are neighbours


def assigned_users(assignments: Iterable[pa.RecordBatch]) -> Assigned:
    """The users of assignments (rows of ASSIGNMENT)."""
    assigned = Assigned(UsersDigest(), {})
    last = pa.array([], pa.string())  # user of the batch before
    for batch in assignments:
        users = batch.column("user_id")
        assigned.all.add(users)
        with_last = pa.concat_arrays([last, users])
        assigned.twice += pc.sum(pc.equal(with_last[1:], with_last[:-1])).as_py() or 0
        last = users[-1:]
        for number, members in users_of_clusters(batch):
            assigned.of_cluster.setdefault(number, UsersDigest()).add(members)
    return assigned


def listed_users(lines: Iterable[tuple[int, pa.RecordBatch]]) -> list[tuple[int, UsersDigest]]:
    """The users of each line of data.json, with the line's cluster; lines come with their numbers, in any parts."""
    listed: dict[int, tuple[int, UsersDigest]] = {}
    for line, part in lines:
        _, users = listed.setdefault(line, (part.column("cluster_id")[0].as_py(), UsersDigest()))
        users.add(part.column("user_ids").flatten())
    return list(listed.values())


def _users_of(metadata: InputsMetadata) -> UsersDigest:
    users = UsersDigest()
    for members in read_batches(metadata.folder, "members.parquet", ["user_id"]):
        users.add(members.column("user_id"))
    return users


def every_user_once(
    inputs: UsersDigest,
    assigned: Assigned,
    listed: Sequence[tuple[int, UsersDigest]],
    sizes: Mapping[str, Sequence[int]],
) -> CheckResult:
    """Every user of the inputs is in one cluster, and it is the same one in all files.

    Args:
        inputs: The users of the inputs.
        assigned: Those of assignments.parquet.
        listed: Those of each line of data.json.
        sizes: The users of the clusters, by number, as the other files have them, by file.
    """
    clusters = [members for _, members in sorted(assigned.of_cluster.items())]
    wrong = []
    if assigned.twice:
        wrong.append(f"assignments.parquet has {assigned.twice:,} users more than once")
    if assigned.all.digest != inputs.digest:
        wrong.append(f"assignments.parquet has {assigned.all.count:,} users, the inputs {_others(inputs)}")
    if sorted(assigned.of_cluster) != list(range(len(clusters))):
        wrong.append(f"the clusters are numbered {', '.join(map(str, sorted(assigned.of_cluster)[:20]))}")
    if [number for number, _ in listed] != list(range(len(clusters))):
        wrong.append(f"data.json has {len(listed):,} clusters, assignments.parquet has {len(clusters):,}, from 0 on")
    for number, members in listed:
        of_cluster = assigned.of_cluster.get(number, UsersDigest())
        if members.digest != of_cluster.digest:
            wrong.append(
                f"data.json has {members.count:,} users in cluster {number}, assignments.parquet {_others(of_cluster)}"
            )
    for file, of_file in sizes.items():
        if list(of_file) != [members.count for members in clusters]:
            wrong.append(f"{file} has other sizes of clusters than assignments.parquet")
    found = {
        "users": inputs.count,
        "assigned": assigned.all.count,
        "listed": sum(members.count for _, members in listed),
        "clusters": len(clusters),
    }
    return checks.result(found, wrong)


def _others(users: UsersDigest) -> str:
    return f"{users.count:,}, and they are not the same in the same order"


def centers_in_range(
    centers: Iterable[pa.RecordBatch], low: np.ndarray, high: np.ndarray, described: Sequence[Sequence[float]]
) -> CheckResult:
    """Every center lies in the range of the data, dimension by dimension, and meta-data.json has the same centers.

    Args:
        centers: Rows of CENTER.
        low: (d,) the smallest value of any profile.
        high: (d,) the largest.
        described: The centers in meta-data.json.
    """
    slack = 1e-9 * np.maximum(np.abs(low), np.abs(high))  # a mean of equal values may differ in the last bits
    rows = [center for batch in centers for center in batch.column("center").to_pylist()]
    wrong = []
    outside = 0
    for number, center in enumerate(rows):
        if len(center) != len(low):
            wrong.append(f"center {number} has {len(center):,} dimensions, the data {len(low):,}")
            continue
        beyond = (center < low - slack) | (center > high + slack)
        outside += int(beyond.sum())
        if beyond.any():
            first = int(beyond.argmax())
            wrong.append(
                f"center {number} is {center[first]:.6g} in dimension {first},"
                f" where the data lie from {low[first]:.6g} to {high[first]:.6g}"
            )
    if rows != [list(center) for center in described]:
        wrong.append("meta-data.json has other centers than centers.parquet")
    return checks.result({"centers": len(rows), "dimensions": len(low), "outside": outside}, wrong)


def figures_published(
    profiles: Iterable[pa.RecordBatch],
    comparisons: Iterable[pa.RecordBatch],
    descriptions: Iterable[pa.RecordBatch],
    min_people: int,
) -> CheckResult:
    """What is published of segments is of their pages, says nothing of a few people, and no two have the same name.

    Args:
        profiles: Rows of SEGMENT_PROFILE.
        comparisons: Rows of SEGMENT_COMPARISON.
        descriptions: Lines of meta-data.json.
        min_people: How many people a figure must be of.
    """
    wrong, expected, names = [], [], []
    for batch in descriptions:
        pages = batch.column("dimensions").flatten()
        ids, fans = pages.field("dimension_id").to_pylist(), pages.field("member_count").to_pylist()
        cluster = batch.column("cluster_id")[0].as_py()
        names.append(batch.column("cluster_name")[0].as_py())
        expected += [(cluster, *page) for page in zip(ids, (published.count(n, min_people) for n in fans), strict=True)]
    found, withheld = [], 0
    for batch in profiles:
        columns = [batch.column(name) for name in ("cluster_id", "dimension_id", "people")]
        found += list(zip(*(column.to_pylist() for column in columns), strict=True))
        few = pc.is_null(columns[2])
        withheld += few.true_count
        if pc.any(pc.and_(few, pc.invert(pc.is_null(batch.column("lift_low"))))).as_py():
            wrong.append("profiles.parquet has lifts on pages that too few people like")
    if found != expected:
        wrong.append("profiles.parquet has other pages or numbers of people than meta-data.json, rounded")
    if len(set(names)) < len(names):
        wrong.append("several clusters have the same name")
    wrong += _wrong_in_comparisons(comparisons, found)
    return checks.result({"figures": len(found), "withheld": withheld}, wrong)


def _wrong_in_comparisons(
    comparisons: Iterable[pa.RecordBatch], profiles: Sequence[tuple[int, str, int | None]]
) -> list[str]:
    """What is wrong with rows of SEGMENT_COMPARISON, given the cluster, page and people of those of SEGMENT_PROFILE."""
    people = {(cluster, page): count for cluster, page, count in profiles if count is not None}
    clusters, rows, others, few = len({cluster for cluster, _, _ in profiles}), 0, False, False
    for batch in comparisons:
        names = ("cluster_id", "baseline_cluster_id", "dimension_id", "people", "baseline_people", "lift")
        for cluster, other, page, here, there, lift in zip(*(batch.column(n).to_pylist() for n in names), strict=True):
            rows += 1
            others |= here is None or people.get((cluster, page)) != here
            others |= other is not None and people.get((other, page)) != there
            few |= there is None and lift is not None
    # A row for everybody, and for each other cluster.
    others |= rows != (clusters * len(people) if clusters > 1 else 0)
    return [
        *(["comparisons.parquet has other pages or numbers of people than profiles.parquet"] if others else []),
        *(["comparisons.parquet has lifts against too few people"] if few else []),
    ]


def k_in_range(choices: Sequence[pa.RecordBatch], k_max: int) -> CheckResult:
    """The k that was chosen is one of those tried, from 1 to at most `k_max`; without segments it is 1.

    Args:
        choices: The one row of what `k.json` holds.
        k_max: The largest k asked for.
    """
    rows = [row for batch in choices for row in batch.to_pylist()]
    if len(rows) != 1:
        return checks.result({"largest": k_max}, [f"k.json holds {len(rows)} choices"])
    k, verdict, tried = rows[0]["k"], rows[0]["verdict"], [row["k"] for row in rows[0]["tried"]]
    wrong = []
    if verdict not in ("segments", "none", "too_few"):
        wrong.append(f"the verdict is {verdict}; it must be segments, none or too_few")
    if verdict == "segments" and not (1 < k <= k_max and k in tried):
        wrong.append(f"k is {k}; with segments it must be one of those tried, from 2 to {k_max}")
    if verdict != "segments" and k != 1:
        wrong.append(f"k is {k}; without segments it must be 1")
    if tried != list(range(1, len(tried) + 1)) or len(tried) > k_max:
        wrong.append(f"tried were {', '.join(map(str, tried))}, and not all from 1 to at most {k_max}")
    return checks.result({"k": k, "largest": k_max, "tried": len(tried)}, wrong)


def has_segments(choices: Sequence[pa.RecordBatch]) -> CheckResult:
    """There are segments; it fails where there are none, or too few people to find any.

    Args:
        choices: The one row of what `k.json` holds.
    """
    rows = [row for batch in choices for row in batch.to_pylist()]
    if len(rows) != 1:
        return checks.result({}, [f"k.json holds {len(rows)} choices"])
    row = rows[0]
    found = {name: row[name] for name in ("verdict", "k", "people") if name in row}
    return checks.result(found, [] if row["verdict"] == "segments" else [row["why"]])
