"""Whether the ranges in pyproject.toml hold: a quick set of tests at their ends.

    python -m tools.supported_versions lowest python3.11
    python -m tools.supported_versions newest python3.13 --environment FOLDER

Each makes a virtual environment for that Python, with the lowest or the newest versions that
pyproject.toml allows, runs the tests there, and notes the outcome in `versions.json`, of which it
makes docs/versions.md. An environment with CUDA takes 6 GB; without --environment it is removed.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.pages import table_row

ROOT = Path(__file__).resolve().parents[1]
RECORDS = Path(__file__).with_name("versions.json")
PAGE = ROOT / "docs" / "versions.md"
PACKAGES = ("torch", "transformers", "peft")
TESTS = (
    "test_private_names.py",  # every private name of PEFT and torch that is used
    "test_peft_surface.py",  # PEFT, Trainer and transformers around the adapter
    "test_sharing_files.py",  # what is saved and loaded
    "test_notebook.py",  # a study, with Optuna and MLflow, from a family to its figures
)
VERSIONS = """\
import importlib.metadata as m, json, platform
found = {name: m.version(name) for name in %r}
print(json.dumps({"python": platform.python_version(), **found}))
"""

Record = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Try one environment; the exit code is that of its tests."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.supported_versions",
        description="Run a quick set of tests with the lowest or newest versions supported.",
    )
    parser.add_argument("end", choices=("lowest", "newest"), help="of the ranges in pyproject.toml")
    parser.add_argument("python", help="the interpreter, e.g. python3.13")
    parser.add_argument("--environment", type=Path, metavar="FOLDER",
                        help="where it is made, or already is, and stays")  # fmt: skip
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.environment or Path(temporary)
        interpreter = install(given.end, given.python, folder)
        record = try_tests(interpreter) | {"end": given.end}
    records = [*json.loads(RECORDS.read_text(encoding="utf-8")), record]
    latest = {(each["end"], _minor(each["python"])): each for each in records}
    RECORDS.write_text(json.dumps([latest[key] for key in sorted(latest)], indent=1) + "\n")
    PAGE.write_text(page(), encoding="utf-8")
    return 1 if record["failed"] else 0


def lowest() -> dict[str, str]:
    """The least version of each of `PACKAGES` that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = (re.match(r"([\w-]+)>=([\d.]+)", line) for line in project["dependencies"])
    least = {match[1]: match[2] for match in found if match}
    return {name: least[name] for name in PACKAGES}


def install(end: str, python: str, folder: Path) -> Path:
    """The interpreter of an environment in `folder` with the project and what its tests need."""
    interpreter = folder / "bin" / "python"
    if not interpreter.exists():
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
    pins = [f"{name}=={version}" for name, version in lowest().items()] if end == "lowest" else []
    pip = [str(interpreter), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *pins, "--editable", ".[test]"], cwd=ROOT, check=True)
    return interpreter


def try_tests(interpreter: Path) -> dict[str, Any]:
    """Versions of Python and `PACKAGES` there, the day, and how many tests passed and failed."""
    code = VERSIONS % (PACKAGES,)
    told = subprocess.run([interpreter, "-c", code], check=True, capture_output=True, text=True)
    command = [str(interpreter), "-m", "pytest", "-q", "-o", "addopts=", "--import-mode=importlib",
               "-p", "no:cacheprovider", "-m", "not gpu and not network",
               *(str(next((ROOT / "tests").rglob(name))) for name in TESTS)]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    sys.stdout.write(done.stdout)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    failed = counts.get("failed", 0) + counts.get("error", 0)
    return {
        **json.loads(told.stdout),
        "date": datetime.date.today().isoformat(),
        "passed": counts.get("passed", 0),
        "failed": failed or int(done.returncode != 0),
    }


def page() -> str:
    """The page, Markdown."""
    return "\n".join(_lines(json.loads(RECORDS.read_text(encoding="utf-8")))) + "\n"


def _lines(records: Sequence[Record]) -> Iterator[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    yield "# Supported versions"
    yield ""
    yield "Made by `python -m tools.supported_versions`; not to be edited by hand. `pyproject.toml`"
    asked = {re.split(r"[<>=]", line)[0]: line for line in project["dependencies"]}
    ranges = (f"python{project['requires-python']}", *(asked[name] for name in PACKAGES))
    yield f"allows {', '.join(f'`{line}`' for line in ranges)}."
    yield "Each row is an environment in which tests of the private names that we use, of PEFT's"
    yield "functions, of saved files and of a whole study ran on a CPU."
    yield ""
    yield f"| versions | Python | {' | '.join(PACKAGES)} | passed | failed | date |"
    yield "| --- | --- |" + " --- |" * len(PACKAGES) + " ---: | ---: | --- |"
    for each in records:
        columns = ("end", "python", *PACKAGES, "passed", "failed", "date")
        yield table_row(each[name] for name in columns)
    yield ""
    yield "Newer releases of torch are allowed and untried."
    yield "transformers 5.24 asks for PEFT 0.22 in its own `add_adapter` and `delete_adapter`,"
    yield "whatever the method; with an older PEFT use `get_peft_model` and `PeftModel`, which it"
    yield "leaves alone."


def _minor(version: str) -> str:
    return version.rpartition(".")[0]


if __name__ == "__main__":
    sys.exit(main())
