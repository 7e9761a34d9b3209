"""The tables of verdicts are those of the committed reports."""

from pathlib import Path

import pytest

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


@pytest.mark.parametrize("mark", [verdicts.BEGIN, verdicts.END])
def test_a_page_without_a_mark_is_not_written_over(mark: str) -> None:
    page = PAGE.read_text(encoding="utf-8").replace(mark, "")
    with pytest.raises(ValueError, match="not found"):
        verdicts.with_tables(page, PAGE.parent)
