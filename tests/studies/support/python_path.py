"""The environment of a subprocess that imports this repository, and whatever this process can."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PYTHON_PATH = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def environment(**changes: str) -> dict[str, str]:
    """That of this process with `changes`, and the repository first on the path of imports."""
    return os.environ | {"PYTHONPATH": PYTHON_PATH} | changes
