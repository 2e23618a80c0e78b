"""All packages of Debian's image are upgraded when an image is built: by apt itself, which only simulates here."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ami import archive

PACKAGE = """\
Package: {name}
Status: install ok installed
Version: {version}
Depends: {needs}
Architecture: all
Filename: {name}.deb
Size: 1
SHA256: {version:064}
Maintainer: nobody
Description: made up

"""
SETTINGS = """\
Dir "{folder}";
Dir::Etc "{folder}/etc";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
APT::Get::Simulate "true";
Debug::NoLocking "true";
APT::Sandbox::User "";
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine of apt's with `old` and `current`, and a mirror with an update of `old`, which newly needs `new`."""
    if shutil.which("apt-get") is None:
        pytest.skip("apt-get is on Debian and its like only")
    for folder in ("state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"):
        (tmp_path / folder).mkdir(parents=True)
    current = PACKAGE.format(name="current", version=1, needs="")
    (tmp_path / "status").write_text(PACKAGE.format(name="old", version=1, needs="") + current)
    updates = PACKAGE.format(name="old", version=2, needs="new") + PACKAGE.format(name="new", version=3, needs="")
    (tmp_path / "Packages").write_text((updates + current).replace("Status: install ok installed\n", ""))
    (tmp_path / "etc" / "sources.list").write_text(f"deb [trusted=yes] file:{tmp_path} ./\n")
    (tmp_path / "apt.conf").write_text(SETTINGS.format(folder=tmp_path))
    return tmp_path


def test_what_has_an_update_gets_it_with_what_it_newly_needs(machine: Path) -> None:
    """By the script's own commands, up to those that install what Debian's image does not have."""
    script = (archive.HERE / "provision.sh").read_text()
    commands = re.findall(r"^apt-get (?:update|upgrade) .*", script, re.M)
    environment = {**os.environ, "APT_CONFIG": str(machine / "apt.conf"), "LC_ALL": "C", "work": str(machine)}
    subprocess.run(["bash", "-euc", "\n".join(commands)], env=environment, check=True)
    planned = re.findall(r"^Inst (\S+ (?:\[\d\] )?\(\d)", (machine / "apt.log").read_text(), re.M)
    assert sorted(planned) == ["new (3", "old [1] (2"]
