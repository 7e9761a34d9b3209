"""Imports point one way: the contracts of pyproject.toml, checked as a part of the tests."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_every_import_keeps_to_its_layer() -> None:
    script = "from importlinter.cli import lint_imports_command as run; run()"
    command = [sys.executable, "-c", script]
    done = subprocess.run([*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


FOLDERS = {
    "adapters",
    "basis_zoo",
    "bench",
    "docs",
    "examples",
    "results",
    "studies",
    "tests",
    "tools",
}


def test_the_repository_holds_no_folder_that_a_run_left() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not in a checkout")
    tops = {line.partition("/")[0] for line in done.stdout.splitlines() if "/" in line}
    assert {top for top in tops if not top.startswith(".")} == FOLDERS
