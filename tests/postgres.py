"""A real PostgreSQL server, of Debian's package, for as long as a test needs one."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import reserved_port

_PROGRAMS = Path("/usr/lib/postgresql")  # Debian keeps them off the path, in a folder a major version
_USER = "postgres"


@dataclass(frozen=True)
class Postgres:
    """A server on 127.0.0.1, its superuser `postgres`, and an empty database of that name."""

    port: int
    password: str
    folder: Path  # of the data and of the Unix socket
    host = "127.0.0.1"
    user = _USER
    database = _USER

    def url(self, scheme: str = "postgresql+psycopg2") -> str:
        """The database's URL, with the password."""
        return f"{scheme}://{self.user}:{self.password}@{self.host}:{self.port}/{self.database}"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Start an empty server, and stop it at the end; skip the test if there is no PostgreSQL, or fail it in CI."""
    with reserved_port() as port, _server(port) as server:
        yield server


@contextmanager
def _server(port: int) -> Iterator[Postgres]:
    """An empty server that listens on a port."""
    programs = _programs()
    # Not below pytest's folder: that is closed to the user as whom the server must run if the tests run as root.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    server = Postgres(port, secrets.token_hex(16), folder)
    data = folder / "data"
    try:
        password_file = folder / "password"
        password_file.write_text(server.password)
        if os.geteuid() == 0:
            account = pwd.getpwnam(_USER)
            for path in (folder, password_file):
                os.chown(path, account.pw_uid, account.pw_gid)
        _run(
            folder, programs / "initdb", "--pgdata", data, "--username", _USER, "--pwfile", password_file,
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync",
        )  # fmt: skip
        settings = {"listen_addresses": server.host, "port": server.port, "unix_socket_directories": folder}
        with (data / "postgresql.conf").open("a") as file:
            # Nothing is to outlive the machine, but all is to outlive a kill of whoever wrote it.
            file.write("".join(f"{name} = '{value}'\n" for name, value in {**settings, "fsync": "off"}.items()))
        _run(folder, programs / "pg_ctl", "start", "--pgdata", data, "--wait", "--log", folder / "log")
        try:
            yield server
        finally:
            _run(folder, programs / "pg_ctl", "stop", "--pgdata", data, "--wait", "--mode", "immediate")
    finally:
        shutil.rmtree(folder)


def _programs() -> Path:
    """The folder of the newest version's programs."""
    found = sorted(_PROGRAMS.glob("*/bin/pg_ctl"), key=lambda program: float(program.parts[-3]))
    if found:
        return found[-1].parent
    why = f"PostgreSQL is not in {_PROGRAMS} (Debian: apt-get install postgresql)"
    if os.environ.get("CI"):
        pytest.fail(f"CI must run the tests with PostgreSQL: {why}")
    pytest.skip(why)


def _run(folder: Path, *command: object) -> None:
    """Run a program of PostgreSQL's, as the user that Debian made for it if this is root, whom it refuses."""
    as_user: Sequence[str] = ["runuser", "-u", _USER, "--"] if os.geteuid() == 0 else []
    # To a file, for the server that pg_ctl leaves behind would hold a pipe open for good.
    with (folder / "said").open("w+") as said:
        ended = subprocess.run(
            [*as_user, *map(str, command)], cwd=folder, stdout=said, stderr=subprocess.STDOUT, check=False
        )
        said.seek(0)
        assert ended.returncode == 0, f"{command[0]}: {said.read()}{_log(folder)}"


def _log(folder: Path) -> str:
    log = folder / "log"
    return log.read_text() if log.exists() else ""
