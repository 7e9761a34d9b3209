"""docs/tasks.md, "Your own data": its file and its study go from a plan to a verdict."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest

from studies.engine.command.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## Your own data") : PAGE.index("## All tasks")]


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    assert found is not None, f"no {language} block in the walk-through"
    return found[1]


@pytest.fixture
def reviews(
    tmp_path: Path, tiny_bert: Path, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's file, with more rows like its own, and its study, on a small model."""
    monkeypatch.chdir(tmp_path)
    with tiny_csv.open(encoding="utf-8") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    with Path("reviews.csv").open("w", newline="", encoding="utf-8") as file:
        file.write(block("csv"))
        csv.writer(file).writerows(rows)
    study = block("yaml")
    assert "backbone: minilm\n" in study
    Path("reviews.yaml").write_text(
        study.replace("backbone: minilm\n", f"backbone: {{name: {tiny_bert}}}\n")
    )


def test_from_a_file_to_a_verdict(reviews: None, trained_here: None, capsys: Any) -> None:
    assert main(["reviews.yaml", "--plan"]) == 0
    plan = capsys.readouterr()
    assert "./reviews.csv: rows of train 200, valid 60, test 100" in plan.err
    assert "6 trials: 6 waiting" in plan.out
    assert main(["reviews.yaml"]) == 0
    out = capsys.readouterr().out
    verdict = r"(confirmed|refuted|not decided): The nonlinearity costs less than five points"
    assert re.search(verdict, out), out
    assert "sinc" in out and "Report: runs/reviews/embedded/report/report.md" in out
