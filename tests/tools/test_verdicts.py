"""The tables of verdicts are those of the committed reports."""

from pathlib import Path

from tools import verdicts
from tools.results_index import RESULTS, read_reports

PAGE = Path(__file__).parents[2] / "docs" / "results.md"


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == verdicts.with_tables(page, PAGE.parent), (
        "run python -m tools.verdicts docs/results.md to make its tables again"
    )


def test_every_claim_of_every_report_is_there_once() -> None:
    claims = [claim for _, report in read_reports(RESULTS) for claim in report["claims"]]
    rows = [line for line in verdicts.tables(PAGE.parent).splitlines() if "report.md" in line]
    assert len(rows) == len(claims) > 0
