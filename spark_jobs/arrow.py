"""pyarrow as the jobs use it."""

import sys


def leave_pandas_out() -> None:
    """Keep pyarrow from importing pandas in this process; whoever imports pandas still gets it.

    Where pandas is installed (PySpark needs it), pyarrow imports it at the first array from numpy, to ask whether what
    it was given is pandas'. No job has any, and the import takes longer than a small job, and 40 MB in every process.
    """
    if "pandas" in sys.modules:
        return
    import numpy as np
    import pyarrow as pa

    sys.meta_path.insert(0, _NotFound)
    try:
        # Arrays from numpy and those to numpy each look for pandas once, and remember that it is not there.
        pa.array(np.zeros(1))
        pa.array([True]).to_numpy(zero_copy_only=False)
    finally:
        sys.meta_path.remove(_NotFound)


class _NotFound:
    """Finds no pandas."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:  # noqa: ARG004
        if name == "pandas":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
