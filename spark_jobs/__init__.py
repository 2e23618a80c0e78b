"""The jobs of Audience Explorer: each computes one step, and knows nothing of Dagster but the Pipes protocol."""

# The distributions that a machine which runs jobs must have; their versions are in pyproject.toml. `pyspark` is Apache
# Spark itself, and brings what `pyspark-client` has; boto3 is the boot program's.
REQUIRES = (
    "boto3",
    "click",
    "dagster-pipes",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "pysail",
    "pyspark",
    "s3fs",
    "scikit-learn",
    "scipy",
    "universal-pathlib",
)
