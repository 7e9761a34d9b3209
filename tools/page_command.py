"""The command of a tool that writes one generated page."""

import argparse
from collections.abc import Callable
from pathlib import Path


def write_page(tool: str, page: Callable[[], str], home: str) -> None:
    """Write what `page` returns to the file that the command line names.

    Args:
        tool: The module's name in `tools`.
        page: Makes the page's text.
        home: Where the page lies in this repository.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m tools.{tool}", description=f"Write {home} anew."
    )
    parser.add_argument("file", type=Path, help=f"{home} in this repository")
    parser.parse_args().file.write_text(page(), encoding="utf-8")
