"""Fetches what Spark needs for s3a:// into a folder: `python -m ami.jars FOLDER`.

`jars.txt` says which jars. A Spark whose own folder of jars is FOLDER finds them; any other learns of it by
`spark.driver.extraClassPath` and `spark.executor.extraClassPath`. PySpark and Java must be there.

It is one file, so that the builder of an image, which has nothing else of this project, runs it as well.
"""

import hashlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

LIST = Path(__file__).with_name("jars.txt")

# Spark brings Ivy, and Ivy knows where Maven Central is. It gets exactly what is listed: without POMs it resolves
# nothing, and jars.txt has better checksums than the server.
_SETTINGS = """\
<ivysettings>
  <property name="ivy.checksums" value=""/>
  <settings defaultResolver="central"/>
  <resolvers><ibiblio name="central" m2compatible="true" usepoms="false"/></resolvers>
</ivysettings>
"""


class Jar(NamedTuple):
    """A line of `jars.txt`."""

    sha256: str
    organisation: str
    module: str
    revision: str

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.module}-{self.revision}.jar"


def listed() -> list[Jar]:
    """The jars of `jars.txt`."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    return [Jar(*line.split()) for line in lines if line and not line.startswith("#")]


def missing(folder: Path) -> list[Jar]:
    """Those of the jars that a folder has not, or has with other bytes."""
    return [jar for jar in listed() if _sha256(folder / jar.file) != jar.sha256]


def fetch(folder: Path) -> None:
    """Fetch the jars into a folder, unless all are there.

    Raises:
        SystemExit: One can't be had, or is not the one that is listed.
    """
    if not missing(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    # Beside their place, so that each gets there in one step.
    with tempfile.TemporaryDirectory(prefix=".fetched-", dir=folder) as work:
        fetched = Path(work, "jars")
        _run_ivy(Path(work), fetched)
        if wrong := missing(fetched):
            raise SystemExit(f"not as jars.txt lists them: {', '.join(jar.file for jar in wrong)}. Run it again.")
        for jar in listed():
            (fetched / jar.file).chmod(0o644)
            (fetched / jar.file).replace(folder / jar.file)


def _run_ivy(work: Path, fetched: Path) -> None:
    module = ET.Element("ivy-module", version="2.0")
    ET.SubElement(module, "info", organisation="audience-explorer", module="jars")
    dependencies = ET.SubElement(module, "dependencies")
    for jar in listed():
        ET.SubElement(
            dependencies, "dependency", org=jar.organisation, name=jar.module, rev=jar.revision, conf="*->default"
        )
    ET.ElementTree(module).write(work / "ivy.xml")
    (work / "settings.xml").write_text(_SETTINGS, encoding="utf-8")
    command = ["java", "-jar", str(_ivy()), "-warn", "-settings", "settings.xml", "-ivy", "ivy.xml", "-cache", "cache"]
    command += ["-retrieve", f"{fetched}/[artifact]-[revision].[ext]"]
    done = subprocess.run(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the jars of jars.txt can't be fetched:\n{done.stdout}")


def _ivy() -> Path:
    pyspark = find_spec("pyspark")
    places = pyspark.submodule_search_locations if pyspark else None
    found = [ivy for place in places or () for ivy in Path(place).glob("jars/ivy-*.jar")]
    if not found:
        raise SystemExit("Apache Spark, whose Ivy fetches the jars, is not installed: pip install pyspark")
    return found[0]


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(f"Usage: {sys.argv[0]} FOLDER")
    fetch(Path(sys.argv[1]).absolute())
