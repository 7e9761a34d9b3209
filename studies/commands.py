"""How `python -m studies.tasks` and `python -m studies.backbones` end."""

import sys
from collections.abc import Callable

from studies.archives import ArchiveError


def run(command: Callable[[], None]) -> int:
    """The exit code of `command`: 2 for wrong input, 1 for what cannot be had, told in a line."""
    try:
        command()
    except (ValueError, ArchiveError) as error:
        sys.stderr.write(f"{error}\n")
        return 2 if isinstance(error, ValueError) else 1
    return 0
