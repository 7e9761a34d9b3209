"""Standard output and error, for people."""

import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a machine that only works off trials need not have rich
    from rich.console import Console


def lenient_output() -> None:
    """Make standard output and error show `?` for what they cannot show: it ends no study."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def console(*, stderr: bool = False) -> "Console":
    """Standard output, or error, for people: in a notebook plain lines of text.

    There an output says that it is a terminal, and shows each change of a display anew.
    """
    from rich.console import Console

    terminal = False if Console().is_jupyter else None
    return Console(stderr=stderr, force_jupyter=False, force_terminal=terminal)
