"""The environment of a subprocess that imports this repository, and whatever this process can."""

import os

from studies.engine.running import slots

PYTHON_PATH = slots.environment(0, 1)["PYTHONPATH"]
"""As a dispatcher sets it: this checkout first."""


def environment(**changes: str) -> dict[str, str]:
    """That of this process with `changes`, and the repository first on the path of imports."""
    return os.environ | {"PYTHONPATH": PYTHON_PATH} | changes
