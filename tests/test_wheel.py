"""The wheel works without the repository: built from the tracked files, away from them."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = ("adapters", "basis_zoo", "studies")
MODULES = [  # those that people start; what trials start themselves has no help
    "studies.engine.work",
    *sorted(
        ".".join(file.relative_to(ROOT).parent.parts)
        for package in PACKAGES
        for file in (ROOT / package).rglob("__main__.py")
    ),
]
BUILD = "from setuptools import build_meta; build_meta.build_wheel({!r})"
RUN = """\
import adapters, basis_zoo, studies

if __name__ == "__main__":  # trials start processes of their own
    less = {"train.epochs": 2, "tune.train.learning_rate": [0.01]}
    one = ["arm=lora", "seed=1", "task=matrix_random"]
    found = studies.run("approximation", seeds=[1], set=less, only=one, runs="runs")
    done = found.trials[found.trials.status == "done"]
    print(*(p.__version__ for p in (adapters, basis_zoo, studies)))
    print(studies.__file__, *sorted(set(done.stage)))
"""
PLANS = """\
import sys
from studies.engine.command import cli
from studies.engine.definition.shipped import shipped_studies
sys.exit(sum(cli.main([name, "--plan"]) for name in shipped_studies()))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools writes beside its sources, and takes what it left there."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    leave = shutil.ignore_patterns("__pycache__")
    for name in (*PACKAGES, "results", "tools", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=leave)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-c", BUILD.format(str(folder))]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index",
               "--no-compile", "--target", str(target), str(wheel)]  # fmt: skip
    subprocess.run(command, check=True)
    return target


@pytest.fixture
def run(site: Path, tmp_path: Path):
    """Runs a command in an empty folder, with the installed wheel and without the repository."""

    def command(*words: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return command


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        [metadata] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        about = archive.read(metadata).decode()
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == sources
    assert wheel.name.split("-")[1] == PROJECT["version"]
    assert "License-Expression: MIT" in about and "Requires-Dist: peft" in about


def test_the_script_lists_and_plans_studies_by_name(site: Path, run) -> None:
    script = [sys.executable, str(site / "bin" / "basis-zoo-study")]
    names = {line.split()[0] for line in run(*script, "list").splitlines()}
    assert names == {file.stem for file in (ROOT / "studies").glob("*.yaml")}
    assert "usage: basis-zoo-study" in run(*script, "--help")
    assert "waiting" in run(*script, "grid_size", "--plan")


@pytest.mark.thorough  # tests/studies/test_quick.py asks the same without a wheel
@pytest.mark.parametrize("module", MODULES)
def test_every_command_helps(module: str, run) -> None:
    assert f"usage: python -m {module}" in run(sys.executable, "-m", module, "--help")


@pytest.mark.thorough
def test_a_shipped_study_runs_by_name(site: Path, tmp_path: Path, run) -> None:
    (tmp_path / "script.py").write_text(RUN)
    *_, versions, told = run(sys.executable, "script.py").splitlines()
    assert set(versions.split()) == {PROJECT["version"]}
    assert told.split() == [str(site / "studies" / "__init__.py"), "seeds", "tune"]
    [report] = tmp_path.glob("runs/approximation/*/report/report.md")
    assert "Which matrices can phi(BA) be" in report.read_text(encoding="utf-8")


@pytest.mark.thorough
def test_every_shipped_study_is_planned_by_name(run) -> None:
    run(sys.executable, "-c", PLANS)
