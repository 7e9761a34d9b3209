"""Runs a command that cannot outlive the process that started it: `leash.py PARENT_PID COMMAND...`.

A script of its own, not a hook between fork and exec: the parent has threads (a live table, an
HTTP client), and Python code in a forked child of a threaded process may deadlock.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1


def leashed(command: Sequence[str]) -> list[str]:
    """The command that runs `command` for as long as this process lives."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def tie_to(parent: int) -> None:
    """Have this process die with the one that started it, which is `parent`."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the leash was on
        sys.exit(1)


def main() -> None:
    """Tie this process to its parent, then become the command."""
    tie_to(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
