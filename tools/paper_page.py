"""The page that goes through the LR-LoRA paper: what is where here, and what came of it.

    python -m tools.paper_page                     # write docs/paper.md anew

What the paper has, and the files that run or show it, are in `paper.yaml`. Verdicts are read from
the committed reports, conflicts within the paper from `studies.published`. A study's claim that
names a table, as in "(table 12: +5.3)", is listed at that table without being in `paper.yaml`.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from studies import published
from studies.sections import unlike
from tools import results_index
from tools.pages import table_row

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "paper.md"
CONTENTS = Path(__file__).with_name("paper.yaml")
SECTIONS = {"tables": "Table", "figures": "Figure", "equations": "Equation"}
NOT_RUN = "not run here"

Entry = Mapping[str, Any]


@dataclass
class Claim:
    """A claim of one of our studies, with what the committed reports say of it."""

    study: str
    text: str
    verdicts: dict[str, list[str]] = field(default_factory=dict)
    """Links to the reports that decide on it, by verdict."""

    @property
    def tables(self) -> set[int]:
        """Numbers of the paper's tables that it names, as in "table 12" and "tables 24-27"."""
        spans = re.findall(r"\btables? (\d+)(?:-(\d+))?", self.text)
        return {n for low, high in spans for n in range(int(low), int(high or low) + 1)}

    def __str__(self) -> str:
        verdicts = (f"{word} ({', '.join(links)})" for word, links in self.verdicts.items())
        return f"“{_head(self.text)}”: {', '.join(verdicts) or NOT_RUN}"


def main() -> int:
    """Write the page; the exit code."""
    description = f"Write docs/{PAGE.name} anew."
    argparse.ArgumentParser(prog="python -m tools.paper_page", description=description).parse_args()
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
    return 0


def page() -> str:
    """The page as Markdown.

    Raises:
        ValueError: `paper.yaml` names a claim that no study and no report has.
    """
    contents, claims = read_contents(), read_claims()
    against = list(conflicts())
    lines = [str(contents["introduction"])]
    for section, word in SECTIONS.items():
        lines += [f"## {section.capitalize()}", "", *_head_of(word.lower(), "shows")]
        for number, entry in contents[section].items():
            matching: list[Claim] = []
            if section == "tables":
                matching = [claim for claim in claims.values() if number in claim.tables]
                entry = dict(entry, conflicts=[note for table, note in against if table == number])
            lines.append(_row(f"{word} {number}", entry, [*matching, *_listed(claims, entry)]))
        lines.append("")
    lines += ["## Claims", "", *_head_of("section", "says")]
    for entry in contents["claims"]:
        lines.append(_row(str(entry["section"]), entry, _listed(claims, entry)))
    return "\n".join(lines) + "\n"


def read_contents() -> dict[str, Any]:
    """What the paper has, as `paper.yaml` lists it."""
    contents: dict[str, Any] = yaml.safe_load(CONTENTS.read_text(encoding="utf-8"))
    return contents


def read_claims() -> dict[tuple[str, str], Claim]:
    """Every claim of the studies and of the reports, by study and by its words before "("."""
    claims: dict[tuple[str, str], Claim] = {}
    for file in sorted((ROOT / "studies").glob("*.yaml")):
        for rule in yaml.safe_load(file.read_text(encoding="utf-8")).get("claims", ()):
            claims[file.stem, _head(rule["claim"])] = Claim(file.stem, rule["claim"])
    for folder, report in results_index.read_reports(results_index.RESULTS):
        study = report["study"]
        link = f"[{report['profile']}](../results/{folder}/report.md)"
        for entry in report["claims"]:
            new = Claim(study, entry["claim"])
            claim = claims.setdefault((study, _head(new.text)), new)
            claim.verdicts.setdefault(_word(entry, report), []).append(link)
    return claims


def conflicts() -> Iterator[tuple[int, str]]:
    """Number of each table that another part of the paper contradicts, and how."""
    for name, table in {**published.tables(), **published.other_tables()}.items():
        if (numbers := re.match(r"table_(\d+)_(?:(\d+)_)?", name)) and table.get("note"):
            yield from ((int(n), table["note"]) for n in numbers.groups() if n)


def _head_of(first: str, second: str) -> list[str]:
    return [f"| {first} | {second} | here | verdict here |", "|---|---|---|---|"]


def _row(name: str, entry: Entry, claims: list[Claim]) -> str:
    sentences = [entry["shows"], *(f"**Conflict:** {note}." for note in entry.get("conflicts", ()))]
    files = dict.fromkeys([*(f"studies/{claim.study}.yaml" for claim in claims), *entry["here"]])
    links = "<br>".join(f"[{file}](../{file})" for file in files)
    cells = [name, " ".join(sentences), links or "nothing", _verdict(claims, entry)]
    return table_row(cells)


def _verdict(claims: list[Claim], entry: Entry) -> str:
    parts = list(map(str, claims))
    if "drawn" in entry:
        parts.append(f"[drawn](../results/{entry['drawn']})")
    if any(file.startswith("tests/") for file in entry["here"]):
        parts.append("tested")
    if entry.get("setting"):
        parts.append("a setting: nothing to decide")
    return "<br>".join(parts) or NOT_RUN


def _listed(claims: Mapping[tuple[str, str], Claim], entry: Entry) -> list[Claim]:
    """The claims that `entry` itself names."""
    listed = []
    for study, heads in entry.get("claims", {}).items():
        own_heads = [head for name, head in claims if name == study]
        for head in heads:
            if head not in own_heads:
                message = f"{CONTENTS.name}: {study} has no claim {head!r}"
                raise ValueError(unlike(message, head, own_heads))
            listed.append(claims[study, head])
    return listed


def _word(claim: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    after = ", by a claim that was changed after results were there"
    return f"{claim['word']}{after if report['claims_changed'] else ''}"


def _head(claim: str) -> str:
    return claim.partition(" (")[0]


if __name__ == "__main__":
    sys.exit(main())
