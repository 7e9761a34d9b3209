"""The README's code runs: its Python as it stands, its YAML through a plan with its plug-in."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def run(*command: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_adapter_block_runs(tmp_path: Path) -> None:
    (block,) = [b for b in blocks("python") if "get_peft_model" in b]
    (tmp_path / "block.py").write_text(block)
    assert "trainable params" in run(sys.executable, "block.py", cwd=tmp_path)


@pytest.fixture
def sech(tmp_path: Path) -> Path:
    (plugin,) = [b for b in blocks("python") if "register_basis" in b]
    (study,) = [b for b in blocks("yaml") if "sech" in b]
    (tmp_path / "my_basis.py").write_text(plugin)
    (tmp_path / "sech.yaml").write_text(study)
    return tmp_path


def test_basis_block_conforms(sech: Path) -> None:
    run(sys.executable, "-m", "basis_zoo", "check", "my_basis.py", cwd=sech)


def test_study_block_is_planned(sech: Path) -> None:
    (command,) = [b.split() for b in blocks("bash") if "--plugin" in b]
    command = [sys.executable, str(ROOT / command[1]), *command[2:], "--plan"]
    assert "basis=sech" in run(*command, cwd=sech)


def test_commands_name_flags_that_exist() -> None:
    shown = run(sys.executable, str(ROOT / "run_study.py"), "--help", cwd=ROOT)
    for block in blocks("bash"):
        for flag in re.findall(r"run_study\.py.*?(--[a-z-]+)", block):
            assert flag in shown


def test_named_files_exist() -> None:
    for path in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (ROOT / path).exists(), path
