"""The jobs of Audience Explorer: each computes one step, and knows nothing of Dagster but the Pipes protocol."""

import os
import platform
from pathlib import Path

# The BLAS of numpy and scipy has other kernels for each kind of processor, and they round differently. With those that
# every x86-64 server has had since 2013, the same job gives the same bytes on all of them. It is read when numpy loads.
if platform.machine() == "x86_64":
    os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")

# The distributions that a machine which runs jobs must have; their versions are in pyproject.toml. boto3 is the boot
# program's as well.
REQUIRES = (
    "boto3",
    "click",
    "cloudpickle",
    "dagster-pipes",
    "jinja2",
    "loky",
    "numpy",
    "obstore",
    "pandas",
    "pyarrow",
    "pydantic",
    "pyspark",
    "scikit-learn",
    "scipy",
    "universal-pathlib",
)


def source_files() -> list[Path]:
    """The files that jobs run from: modules, and the templates of reports."""
    package = Path(__file__).parent
    return sorted([*package.rglob("*.py"), *package.rglob("templates/*")])
