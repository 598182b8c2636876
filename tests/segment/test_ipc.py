"""Rows as streams, and what Arrow is kept from importing."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from mishards.segment.ipc import from_stream, keep_pandas_out, to_stream
import numpy as np, pyarrow as pa

keep_pandas_out()
rows = pa.record_batch({"a": pa.array(np.arange(3))})
assert from_stream(to_stream(rows)).column(0).to_numpy().tolist() == [0, 1, 2]
assert "pandas" not in sys.modules, "pandas was imported"
assert not any(type(finder).__name__ == "_NoPandas" for finder in sys.meta_path), "the import hook stayed"
try:
    import pandas
except ModuleNotFoundError as error:
    assert "no pandas here" not in str(error), "the program itself cannot import pandas any more"
"""


def test_arrow_works_without_pandas() -> None:
    """Once Arrow has looked and found none it does not look again; who wants pandas later still gets it."""
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
