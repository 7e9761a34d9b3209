"""The verdicts of all committed reports, sorted by what came of them.

python -m tools.verdicts docs/results.md      # write the tables of that page anew
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.pages import asked_file, replaced, table_row
from tools.results_index import RESULTS, WORDS, difference, read_reports

BEGIN, END = "<!-- verdicts: begin -->\n", "<!-- verdicts: end -->"
_HEAD = (
    "| claim, written before the run | difference [interval] | seeds | report |\n|---|---|---|---|"
)


def with_tables(page: str, folder: Path) -> str:
    """`page`, which lies in `folder`, with the tables of today's reports between its marks."""
    return replaced(page, BEGIN, tables(folder), END)


def tables(folder: Path) -> str:
    """A table for each word, with links that start at `folder`."""
    reports = read_reports(RESULTS)
    claims = [(at, report, claim) for at, report in reports for claim in report["claims"]]
    lines = [f"\n{len(claims)} claims in {len(reports)} reports."]
    for word in WORDS:
        rows = [_row(at, report, claim, folder) for at, report, claim in claims
                if claim["word"] == word]  # fmt: skip
        if rows:
            lines += [f"\n### {word.capitalize()}: {len(rows)}\n", _HEAD, *rows]
    return "\n".join([*lines, "\n"])


def _row(at: str, report: Mapping[str, Any], claim: Mapping[str, Any], folder: Path) -> str:
    link = os.path.relpath(RESULTS / at / "report.md", folder)
    report_link = f"[{report['study']} ({report['profile']})]({link})"
    return table_row([claim["claim"], difference(claim), claim["n"], report_link])


if __name__ == "__main__":
    file = asked_file("verdicts", "docs/results.md")
    file.write_text(with_tables(file.read_text("utf-8"), file.resolve().parent), encoding="utf-8")
