"""Fetching the jars of jars.txt: exactly those, or none."""

import hashlib
from pathlib import Path

import pytest

from ami import jars

CONTENT = {"hadoop-aws-3.5.0.jar": b"the one", "s3-2.35.4.jar": b"the other"}


@pytest.fixture(autouse=True)
def two_jars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of two."""
    lines = ["# SHA-256, organisation, module, revision", ""]
    for file, content in CONTENT.items():
        module, revision = file.removesuffix(".jar").rsplit("-", 1)
        lines.append(f"{hashlib.sha256(content).hexdigest()} org.example {module} {revision}")
    (tmp_path / "jars.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(jars, "LIST", tmp_path / "jars.txt")


def serve(monkeypatch: pytest.MonkeyPatch, content: dict[str, bytes]) -> None:
    """What Ivy fetches."""

    def fetch(_: Path, fetched: Path) -> None:
        fetched.mkdir()
        for file, of_file in content.items():
            (fetched / file).write_bytes(of_file)

    monkeypatch.setattr(jars, "_run_ivy", fetch)


def test_what_is_listed_is_fetched_and_nothing_else_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "jars"
    serve(monkeypatch, {**CONTENT, "more.jar": b""})
    jars.fetch(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == CONTENT
    assert not jars.missing(folder)


def test_a_folder_that_has_them_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file, content in CONTENT.items():
        (tmp_path / file).write_bytes(content)
    serve(monkeypatch, {})
    jars.fetch(tmp_path)


def test_a_jar_with_other_bytes_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "jars"
    serve(monkeypatch, {**CONTENT, "s3-2.35.4.jar": b"something else"})
    with pytest.raises(SystemExit, match=r"not as jars\.txt lists them: s3-2\.35\.4\.jar"):
        jars.fetch(folder)
    assert not list(folder.iterdir())
