"""The services of `deploy/` under a real systemd: they start with their hardening, and come back after a kill.

The machine is one of `real_debian.py`, without a way to the network: `deploy/install.sh` runs but for its lines that
install packages. Debian's PostgreSQL is in the root; Python and its packages are those of this checkout, shown to the
machine where the services expect them.
"""

import re
import shutil
import sys
import sysconfig
import threading
from pathlib import Path

import pytest

from acceptance.conftest import OUTPUT, PROJECT
from acceptance.real_debian import Debian, debian
from acceptance.sandbox.booted import BootedMachine, read_journal
from acceptance.sandbox.machine import Limits
from acceptance.sandbox.network import leave_host_network

__all__ = ["debian"]  # a fixture

pytestmark = [pytest.mark.isolated, pytest.mark.timeout(2700)]

SERVICES = ("code", "daemon", "webserver", "reports")
PROGRAMS = ("audience-explorer", "dagster", "dagster-daemon", "dagster-webserver")
HOME = "/opt/audience-explorer"
PYTHON = "/opt/python"
EXPOSED = 2.0  # what `systemd-analyze security` may say at most, of 10; a unit without hardening has 9.6

USER_DATA = r"""#!/bin/bash
trap 'echo "the script ended with $?"; shutdown -h now' EXIT
set -eu
exec </dev/null
home=/opt/audience-explorer
install -d /etc/audience-explorer $home/venv/bin
ln -sf /opt/python/bin/python3 $home/venv/bin/python
echo /opt/python/lib >/etc/ld.so.conf.d/python.conf && ldconfig # where Python is a shared library
printf 'home = /opt/python/bin\n' >$home/venv/pyvenv.cfg
for program in PROGRAMS; do
  sed "1s,.*,#!$home/venv/bin/python," /opt/programs/$program >$home/venv/bin/$program
  chmod 755 $home/venv/bin/$program
done
cat >/etc/audience-explorer/environment <<'END'
AUDIENCE_EXPLORER_ROOT=/var/lib/audience-explorer/root
AUDIENCE_EXPLORER_POSTGRES=postgresql+psycopg2:///audience-explorer?host=/run/postgresql
AUDIENCE_EXPLORER_LOGS_BUCKET=audience
AUDIENCE_EXPLORER_LOGS_PREFIX=logs
AWS_REGION=us-east-1
AWS_DEFAULT_REGION=us-east-1
PYTHONPATH=/opt/audience-explorer/app
END
cd $home/app/deploy
sed -e '/^apt-get/d' -e '/venv\/bin\/pip/d' -e '/compileall/d' install.sh >/root/install.sh
bash /root/install.sh

ask="import sys, urllib.request as u; u.urlopen('http://127.0.0.1:' + sys.argv[1], timeout=5)"
answers() { $home/venv/bin/python -c "$ask" "$1" 2>/dev/null; }
until answers 3000/server_info && answers 3001 && [ -S /run/audience-explorer/code.sock ]; do sleep 1; done
for service in SERVICES; do
  unit=audience-explorer-$service
  echo "state $service $(systemctl is-active $unit) $(systemctl show -P NRestarts $unit)"
  said=$(systemd-analyze security --no-pager $unit | tail -n 1)
  echo "exposure $service $(grep -oE '[0-9]+[.][0-9]+' <<<"$said")"
  echo "writes $service $(nsenter -t $(systemctl show -P MainPID $unit) -m touch /usr/mark 2>&1 | grep -o Read-only)"
done
systemctl kill --signal=KILL --kill-whom=main audience-explorer-{code,daemon,webserver,reports}
sleep 7
until answers 3000/server_info && answers 3001 && [ -S /run/audience-explorer/code.sock ]; do sleep 1; done
for service in SERVICES; do
  unit=audience-explorer-$service
  echo "again $service $(systemctl is-active $unit) $(systemctl show -P NRestarts $unit)"
done
sed -n 's,^0::.*/,runs in ,p' /proc/self/cgroup
echo "oom cloud-init $(systemctl show -P OOMPolicy cloud-init-main)"
"""


@pytest.fixture(scope="module")
def journal(debian: Debian, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The journal of a machine on which the services were installed, and killed."""
    folder = tmp_path_factory.mktemp("machine")
    programs = tmp_path_factory.mktemp("programs")
    for name in PROGRAMS:
        shutil.copy(Path(sys.executable).parent / name, programs / name)
    script = USER_DATA.replace("PROGRAMS", " ".join(PROGRAMS)).replace("SERVICES", " ".join(SERVICES))
    machine = BootedMachine(
        "services",
        folder,
        folder / "console.log",
        script.encode(),
        Limits(),
        {},
        layers=debian.layers(),
        host_name="services",
        is_builder=False,
    )
    machine.shown = {
        Path(sys.base_prefix): PYTHON,
        Path(sysconfig.get_path("purelib")): f"{HOME}/venv/lib/python3.{sys.version_info.minor}/site-packages",
        PROJECT: f"{HOME}/app",
        programs: "/opt/programs",
    }
    thread = threading.Thread(target=_run, args=(machine,))
    thread.start()
    thread.join(1800)
    machine.close()
    said = read_journal(folder)
    (OUTPUT / "debian").mkdir(parents=True, exist_ok=True)
    (OUTPUT / "debian" / "services-journal.txt").write_text(said)
    assert "the script ended with 0" in said, said[-8000:]
    return said


def _run(machine: BootedMachine) -> None:
    """Run a machine in a network of its own, until it has shut itself down."""
    leave_host_network()
    machine.start()
    machine.wait()


def _said(journal: str, what: str) -> dict[str, list[str]]:
    """What the script said of each service."""
    return {name: rest.split() for name, rest in re.findall(rf"cloud-init\[\d+\]: {what} (\S+) ?(.*)", journal)}


def test_the_services_start_hardened(journal: str) -> None:
    assert _said(journal, "state") == {service: ["active", "0"] for service in SERVICES}
    exposure = {service: float(*figure) for service, figure in _said(journal, "exposure").items()}
    assert exposure.keys() == set(SERVICES)
    assert max(exposure.values()) <= EXPOSED, exposure
    assert _said(journal, "writes") == {service: ["Read-only"] for service in SERVICES}


def test_the_services_come_back_after_a_kill(journal: str) -> None:
    again = _said(journal, "again")
    assert {service: state for service, (state, _) in again.items()} == dict.fromkeys(SERVICES, "active")
    assert all(int(restarts) >= 1 for _, restarts in again.values()), again


def test_systemd_ends_nothing_with_a_job_that_took_all_memory(journal: str) -> None:
    assert _said(journal, "runs") == {"in": ["cloud-init-main.service"]}
    assert _said(journal, "oom") == {"cloud-init": ["continue"]}
