"""How the commands of this package begin and end."""

import io
import sys
from collections.abc import Callable


def lenient_output() -> None:
    """Make standard output and error show `?` for what they cannot show: it ends no study."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def run(command: Callable[[], None]) -> int:
    """The exit code of `command`: 2 for wrong input, 1 for what cannot be had, told in a line."""
    from studies.archives import ArchiveError

    lenient_output()
    try:
        command()
    except (ValueError, ArchiveError) as error:
        sys.stderr.write(f"{error}\n")
        return 2 if isinstance(error, ValueError) else 1
    return 0
