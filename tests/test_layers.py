"""Imports point one way: the contracts of pyproject.toml, checked as a part of the tests."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_import_keeps_to_its_layer() -> None:
    script = "from importlinter.cli import lint_imports_command as run; run()"
    command = [sys.executable, "-c", script]
    done = subprocess.run([*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
