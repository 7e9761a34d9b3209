"""How the commands of this package begin and end."""

import sys
from collections.abc import Callable

from studies.archives import ArchiveError
from studies.output import lenient_output


def run(command: Callable[[], None]) -> int:
    """The exit code of `command`: 2 for wrong input, 1 for what cannot be had, told in a line."""
    lenient_output()
    try:
        command()
    except (ValueError, ArchiveError) as error:
        sys.stderr.write(f"{error}\n")
        return 2 if isinstance(error, ValueError) else 1
    return 0
