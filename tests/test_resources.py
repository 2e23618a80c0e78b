"""Resources: what the machine or container has unless told otherwise, and a clear word where that is too little."""

import json
import tempfile
from pathlib import Path

import pytest

from spark_jobs import resources
from spark_jobs.engines.pieces import Spill
from spark_jobs.errors import InputError
from spark_jobs.resources import Resources, ResourcesConfig, parse_size
from tests.conftest import Engine
from tests.test_jobs import GOOD, raw_month

GB = 10**9


@pytest.mark.parametrize(
    ("text", "size"), [("6GB", 6 * GB), ("512MiB", 512 << 20), ("1.5g", 3 * GB // 2), ("100", 100), ("2 TB", 2000 * GB)]
)
def test_a_size_is_read_as_people_write_it(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "0GB", "-1GB", "6 GB or so", "0.9B", "9" * 400, "٦GB"])
def test_what_is_no_size_is_refused_where_it_is_given(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size, such as 6GB"):
        ResourcesConfig(memory=text)


class Machine:
    """A machine with the control groups that a test makes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.groups = folder / "cgroup"
        self.own = folder / "own"
        real = Path

        def path(*parts: str) -> Path:
            return self.own if parts == ("/proc/self/cgroup",) else real(*parts)

        monkeypatch.setattr(resources, "_CGROUPS", self.groups)
        monkeypatch.setattr(resources, "Path", path)

    def put(self, file: str, text: str) -> None:
        (self.groups / file).parent.mkdir(parents=True, exist_ok=True)
        (self.groups / file).write_text(text + "\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_with_no_limit_it_is_the_machine_itself(machine: Machine) -> None:
    machine.own.write_text("4:memory:/\n1:cpu,cpuacct:/\n0::/\n")
    machine.put("memory/memory.limit_in_bytes", str(2**63 - 4096))
    machine.put("cpu/cpu.cfs_quota_us", "-1")
    found = ResourcesConfig().resolve()
    assert found.memory > 10**8
    assert found.cores >= 1
    assert found.scratch == tempfile.gettempdir()


@pytest.mark.parametrize("group", ["", "/a/b"])
def test_a_container_has_what_its_control_group_leaves_it(machine: Machine, group: str) -> None:
    machine.own.write_text(f"0::{group or '/'}\n")
    machine.put(f"{group[1:]}/memory.max" if group else "memory.max", "300000000")
    machine.put("cpu.max", "100000 100000")
    assert (ResourcesConfig().resolve().memory, ResourcesConfig().resolve().cores) == (300_000_000, 1)


def test_the_limits_of_groups_above_hold_as_well(machine: Machine) -> None:
    machine.own.write_text("4:memory:/jobs/one\n1:cpu:/jobs/one\n")
    machine.put("memory/jobs/one/memory.limit_in_bytes", "900000000")
    machine.put("memory/jobs/memory.limit_in_bytes", "200000000")
    machine.put("cpu/jobs/cpu.cfs_quota_us", "50000")
    machine.put("cpu/jobs/cpu.cfs_period_us", "100000")
    assert (ResourcesConfig().resolve().memory, ResourcesConfig().resolve().cores) == (200_000_000, 1)


def test_what_is_given_comes_first(tmp_path: Path) -> None:
    given = ResourcesConfig(memory="2GB", cores=7, scratch=str(tmp_path)).resolve()
    assert given == Resources(2 * GB, 7, str(tmp_path))


def test_a_scratch_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone does not exist\. Make it, or name another with --scratch"):
        ResourcesConfig(scratch=str(tmp_path / "gone")).resolve()


def test_as_many_tasks_run_as_fit_and_at_most_one_a_core() -> None:
    assert Resources(4 * GB, 8, "").tasks(GB, GB, "It") == 3
    assert Resources(40 * GB, 8, "").tasks(GB, GB, "It") == 8


def test_a_job_that_cannot_fit_says_what_it_needs_and_leaves_nothing(local: Engine, tmp_path: Path) -> None:
    raw = raw_month(tmp_path, [GOOD] * 9)
    with pytest.raises(InputError, match=r"Grouping \S+ needs \d.* bytes of memory, and may use 50,000,000"):
        local.run("group_by_user", raw, tmp_path / "out", "--memory", "50MB")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_k_means_that_cannot_fit_says_what_it_needs_and_names_mllib(local: Engine, tmp_path: Path) -> None:
    raw = raw_month(tmp_path, [GOOD] * 9)
    local.run("group_by_user", raw, tmp_path / "users")
    (tmp_path / "c.json").write_text(json.dumps({"id": 1, "facebook": [{"id": GOOD["page_id"], "name": "P"}]}))
    local.run("make_clustering_inputs", tmp_path / "users", tmp_path / "in", "--category", tmp_path / "c.json")
    folders = [tmp_path / "in", tmp_path / "out"]
    for job in (["kmeans", *folders, "--k", 1], ["select_k", *folders]):
        with pytest.raises(InputError, match=r"would need about 0.4 GB of memory.*library: mllib"):
            local.run(*map(str, job), "--memory", "50MB")


def test_little_memory_and_few_cores_change_nothing_but_the_time(local: Engine, tmp_path: Path) -> None:
    raw = raw_month(tmp_path, [{**GOOD, "user_id": f"u{n % 90}"} for n in range(500)])
    patch = {"users.shuffle._RAW_BYTES_A_FILE": 500}
    local.run("group_by_user", raw, tmp_path / "all", patch=patch)
    local.run("group_by_user", raw, tmp_path / "little", "--memory", "1GB", "--cores", 1, patch=patch)
    parts = sorted((tmp_path / "all" / "users").iterdir())
    assert len(parts) > 1
    for part in parts:
        assert part.read_bytes() == (tmp_path / "little" / "users" / part.name).read_bytes()


def test_a_scratch_folder_that_takes_no_file_is_reported_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OSError, match="No such file"):
        Spill(str(tmp_path / "nowhere"))
    assert capfd.readouterr().err == "", "nothing was opened, so there is nothing to close"


def test_pieces_come_back_and_leave_no_file(tmp_path: Path) -> None:
    spill = Spill(str(tmp_path))
    kept = [spill.put(piece) for piece in (b"a", b"", b"bcd")]
    assert [spill.take(piece) for piece in reversed(kept)] == [b"bcd", b"", b"a"]
    assert list(tmp_path.iterdir()) == []
    spill.close()
