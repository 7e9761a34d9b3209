"""Stream one archive to a file, hashing on the way."""

import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from studies.archives.archive import Archive
from studies.archives.web import Unreachable, Web, without_credentials
from studies.output import console

CHUNK = 1 << 18


def download(archive: Archive, address: str, destination: Path, web: Web) -> str:
    """Write the content behind `address` to `destination` and return its sha256.

    At most `archive.size + 1` bytes are written, so a wrong file cannot fill the disk.

    Raises:
        Unreachable: the connection failed.
        OSError: `destination` cannot be written, e.g. the disk is full.
    """
    digest, done = hashlib.sha256(), 0
    with web.open(address) as stream, destination.open("wb") as file, _progress(archive) as step:
        while done <= archive.size:
            try:
                chunk = stream.read(min(CHUNK, archive.size + 1 - done))
            except (OSError, HTTPException) as error:
                raise Unreachable(f"{without_credentials(address)}: {error}") from error
            if not chunk:
                break
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            step(len(chunk))
    return digest.hexdigest()


@contextmanager
def _progress(archive: Archive) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, two plain lines elsewhere; both on stderr."""
    if not sys.stderr.isatty():
        started = time.monotonic()
        sys.stderr.write(f"fetching {archive.filename} ({archive.size / 1e6:.1f} MB)\n")
        yield lambda count: None
        seconds = time.monotonic() - started
        sys.stderr.write(f"fetched {archive.filename} in {seconds:.1f} s\n")
        return
    # a machine that only works off trials has no terminal, and need not have rich
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=console(stderr=True)) as bar:
        task = bar.add_task(f"fetching {archive.requirement}", total=archive.size)
        yield lambda count: bar.advance(task, count)
