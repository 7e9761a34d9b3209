"""The page on the paper: nothing of the paper is missing, and verdicts are those of the reports."""

import json
import re
from pathlib import Path

import pytest

from tools import paper_page, results_index

COUNTS = {"Table": 27, "Figure": 17, "Equation": 6}
"""How many of each the paper has."""
CONFLICTS = [3, 6, 7, 12, 15, 19, 22, 23, 24, 26]
SHARING = [{"claim": "own phis beat LoRA (table 20: +3.6 points)", "word": "refuted"}]


def row(page: str, name: str) -> list[str]:
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
    return line.strip("| ").split(" | ")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results with one report, in place of the committed ones."""
    file = tmp_path / "sharing" / "gpu" / "report.json"
    file.parent.mkdir(parents=True)
    report = {"study": "sharing", "profile": "gpu", "claims": SHARING, "claims_changed": False}
    file.write_text(json.dumps(report))
    monkeypatch.setattr(results_index, "RESULTS", tmp_path)
    return file


def test_the_page_is_up_to_date() -> None:
    assert paper_page.PAGE.read_text(encoding="utf-8") == paper_page.page(), (
        "run python -m tools.paper_page to make it again"
    )


@pytest.mark.parametrize("word", COUNTS)
def test_none_is_missing(word: str) -> None:
    page = paper_page.PAGE.read_text(encoding="utf-8")
    found = re.findall(rf"^\| {word} (\d+) \|", page, re.MULTILINE)
    assert list(map(int, found)) == list(range(1, COUNTS[word] + 1))


def test_conflicts_are_told_at_their_tables() -> None:
    assert sorted({number for number, _ in paper_page.conflicts()}) == CONFLICTS
    page = paper_page.page()
    for number in range(1, COUNTS["Table"] + 1):
        assert ("**Conflict:**" in row(page, f"Table {number}")[1]) == (number in CONFLICTS)


def test_verdicts_are_those_of_the_reports(results: Path) -> None:
    page = paper_page.page()
    told = "“own phis beat LoRA”: refuted ([gpu](../results/sharing/gpu/report.md))"
    assert row(page, "Table 20")[3].split("<br>")[0] == told
    assert row(page, "Table 13")[3].split("<br>")[0] == "“sinc beats polynomials”: not run here"
    assert "confirmed" not in page and "not decided" not in page
    results.write_text(results.read_text().replace("false", "true"))
    assert "refuted, by a claim that was changed after results" in paper_page.page()


def test_claims_name_tables_alone_and_in_spans() -> None:
    assert paper_page.Claim("s", "two are alike (table 14: +0.4, tables 24-27)").tables == {
        14, 24, 25, 26, 27
    }  # fmt: skip
    assert paper_page.Claim("s", "a table of 12 rows").tables == set()


def test_a_claim_that_no_study_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = paper_page.read_contents()
    contents["claims"][0]["claims"] = {"sharing": ["own phi beats LoRA"]}
    monkeypatch.setattr(paper_page, "read_contents", lambda: contents)
    with pytest.raises(ValueError, match="Did you mean 'own phis beat LoRA'"):
        paper_page.page()
