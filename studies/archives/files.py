"""Files of the cache: written whole, and checked before they are used."""

import hashlib
import os
import sys
from pathlib import Path

_Mark = tuple[int, int, int, int]
_HASHES: dict[Path, tuple[_Mark, str]] = {}


def sha256_of(file: Path) -> str:
    """The sha256 of `file`, read once a process for as long as size, times and inode stay.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    with file.open("rb") as stream:
        stat = os.fstat(stream.fileno())
        mark = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        known = _HASHES.get(file)
        if known is None or known[0] != mark:
            known = mark, hashlib.file_digest(stream, "sha256").hexdigest()
            _HASHES[file] = known
    return known[1]


def is_whole(file: Path, size: int, sha256: str) -> bool:
    """Whether `file` is there and holds what it should.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return file.stat().st_size == size and sha256_of(file) == sha256
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return False


def say_damaged(file: Path, remedy: str) -> None:
    """One line on stderr: `file` is not what was written, and what is done about it."""
    sys.stderr.write(f"{file} is damaged; {remedy}\n")
