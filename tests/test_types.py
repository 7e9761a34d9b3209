"""`mypy --strict` finds nothing in what pyproject.toml lists: packages, benchmarks, tools."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_types() -> None:
    """In a process of its own: freeing mypy's graph in this one takes as long as making it."""
    ran = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
