"""A report of which nothing has changed is printed again, and made anew after any change."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from python_path import environment

from studies.engine.command import cli
from studies.engine.definition import answers
from studies.engine.reporting import report
from studies.engine.tracking import mlflow_client

HEAVY = ("torch", "transformers", "datasets", "peft", "mlflow", "matplotlib", "optuna", "pandas",
         "scipy", "sqlalchemy")  # fmt: skip
WATCH = f"""
import sys
from studies.engine.command import cli
code = cli.main(["s.yaml", "--report"])
print("IMPORTED", code, *sorted({{name.split(".")[0] for name in sys.modules}} & set({HEAVY})))
"""
FOLDER = Path("runs/s/embedded")
Reported = Callable[[], tuple[int, str, bool]]


@pytest.fixture
def reported(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Reported:
    """Runs `--report`: exit code, what was printed, and whether the report was made anew."""
    made: list[Any] = []
    real = report.draft

    def draft(*arguments: Any) -> Any:
        made.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(report, "draft", draft)
    blank = {"comparison": Figure()}  # to draw takes most of the time of a report
    monkeypatch.setattr(report.Draft, "figures", blank)

    def command() -> tuple[int, str, bool]:
        made.clear()
        capsys.readouterr()
        code = cli.main(["s.yaml", "--report"])
        return code, capsys.readouterr().out, bool(made)

    return command


@pytest.mark.slow
def test_the_text_is_the_same_either_way(reported: Reported) -> None:
    again = reported()
    (FOLDER / "delivered.json").unlink()
    anew = reported()
    assert again == (cli.DONE, anew[1], False) and anew[2]
    assert "Report: runs/s/embedded/report/report.md" in anew[1] and "MLflow: mlflow ui" in anew[1]
    assert reported() == again


@pytest.mark.slow
@pytest.mark.thorough
def test_it_needs_nothing_heavy(reported: Reported) -> None:
    assert reported()[0] == cli.DONE

    def command() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", WATCH], text=True, capture_output=True, check=True,
            env=environment(),
        )  # fmt: skip
        return done.stdout.rpartition("IMPORTED ")[2].split()

    command()  # asks peft what there is, and leaves the answers
    assert command() == ["0"]


def edit_a_result() -> None:
    file = next((FOLDER / "trials").glob("*/result.json"))
    result = json.loads(file.read_text())
    result["metrics"]["test/accuracy"] = 0.125
    file.write_text(json.dumps(result))


def edit_a_curve() -> None:
    next((FOLDER / "trials").glob("*/")).joinpath("metrics.jsonl").write_text("")


def edit_the_report() -> None:
    file = FOLDER / "report" / "report.md"
    file.write_text(file.read_text() + "by hand\n")


def edit_the_claims() -> None:
    file = FOLDER / "claims.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"direction": "minimize"}))


def edit_the_study() -> None:
    file = Path("s.yaml")
    file.write_text(file.read_text().replace("Which?", "Whose?"))


def comment_in_the_study() -> None:
    file = Path("s.yaml")
    file.write_text(f"# its file is an artifact\n{file.read_text()}")


def ask_the_page(query: str) -> None:
    connection = sqlite3.connect("runs/mlflow.db")
    with connection:
        assert connection.execute(query).rowcount
    connection.close()


CHANGES: dict[str, Callable[[], object]] = {
    "result": edit_a_result,
    "curve": edit_a_curve,
    "report edited": edit_the_report,
    "figure removed": lambda: (FOLDER / "report" / "comparison.png").unlink(),
    "claims": edit_the_claims,
    "question": edit_the_study,
    "comment": comment_in_the_study,
    "run deleted": lambda: ask_the_page("UPDATE runs SET lifecycle_stage = 'deleted'"),
    "view lost": lambda: ask_the_page("DELETE FROM experiment_tags"),
    "no page": lambda: Path("runs/mlflow.db").unlink(),
    "no artifacts": lambda: shutil.rmtree("runs/mlartifacts"),
    "broken": lambda: (FOLDER / "delivered.json").write_text("[1]"),
}


@pytest.mark.slow
def test_what_changed_is_made_anew(reported: Reported) -> None:
    for name, change in CHANGES.items():
        assert not reported()[2], f"before {name}"
        change()
        assert reported()[2], name


@pytest.mark.slow
def test_other_code_and_another_store_are_not_trusted(
    reported: Reported, mlflow_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(mlflow_database, "other.db")  # making its tables takes seconds
    with monkeypatch.context() as patch:
        patch.setenv(mlflow_client.VARIABLE, "sqlite:///other.db")
        assert reported()[2] and reported()[2]
    real = answers.code_hash
    with monkeypatch.context() as patch:
        patch.setattr(answers, "code_hash", lambda *about: f"{real(*about)} and more")
        assert reported()[2] and not reported()[2]
        patch.setattr(answers, "code_hash", lambda *about: None)
        assert reported()[2] and reported()[2]


def test_the_code_that_counts_is_all_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own_code" / "inner").mkdir(parents=True)
    files = [tmp_path / "own_code" / name for name in ("__init__.py", "inner/a.py", "inner/b.yaml")]
    for file in files:
        file.write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    found = {answers.code_hash(("numpy",), ("own_code",))}
    for file in files:
        file.write_text("# another")
        found.add(answers.code_hash(("numpy",), ("own_code",)))
    assert len(found) == 4
    assert answers.code_hash(("numpy", "no-such-package"), ()) is None
