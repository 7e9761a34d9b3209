"""How a worker process is spoken to: run folders on stdin, keys of ended trials on a pipe."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RETIRES = "retires"
"""Follows the key of a worker's last trial."""


def run_dirs() -> Iterator[Path]:
    """The folders that stdin names, until it ends; a path may hold anything but NUL.

    Whoever else reads stdin, finds it empty.
    """
    source, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    name = b""
    while byte := os.read(source, 1):
        if byte == b"\0":
            yield Path(os.fsdecode(name))
            name = b""
        else:
            name += byte


@contextmanager
def output_to(log: Path) -> Iterator[None]:
    """stdout and stderr of this process, libraries in C included, go to `log`."""
    copies = [os.dup(descriptor) for descriptor in (1, 2)]
    with log.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, before in zip((1, 2), copies, strict=True):
            os.dup2(before, descriptor)
            os.close(before)
