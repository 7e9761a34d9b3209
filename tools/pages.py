"""What the tools that write generated pages share."""

import argparse
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path


def table_row(cells: Iterable[object]) -> str:
    """A row of a Markdown table, without the end of the line; pipes in cells are escaped."""
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def prose(text: str, indent: str = "") -> str:
    """`text` in lines of at most 100 characters, `indent` before each but the first."""
    return textwrap.fill(
        text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def replaced(page: str, begin: str, body: str, end: str) -> str:
    """`page` with `body` in place of what stands between its marks `begin` and `end`.

    Raises:
        ValueError: It lacks a mark.
    """
    start = page.index(begin) + len(begin)
    return f"{page[:start]}{body}{page[page.index(end, start) :]}"


def asked_file(tool: str, home: str) -> Path:
    """The file that the command line of `tools.<tool>` names, which lies at `home` here."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tools.{tool}", description=f"Write {home} anew."
    )
    parser.add_argument("file", type=Path, help=f"{home} in this repository")
    file: Path = parser.parse_args().file
    return file


def write_page(tool: str, page: Callable[[], str], home: str) -> None:
    """Write what `page` returns to the file that the command line names, see `asked_file`."""
    asked_file(tool, home).write_text(page(), encoding="utf-8")
