"""What files of the user's own hold, in one number: with another content, another number."""

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

from studies.archives.cache import cache_folder
from studies.archives.files import sha256_of
from studies.files import write_text

LARGE = 64 << 20
"""Bytes, all files together, from which on the number is kept for other processes."""
SETTLED = 5.0
"""Seconds after its last change from which on a file's time tells of the next one."""


def files_below(folder: Path) -> dict[str, Path]:
    """Every file below `folder`, by its path there; without hidden ones, such as `.git/...`."""
    files = {file.relative_to(folder): file for file in sorted(folder.rglob("*"))}
    return {
        path.as_posix(): file
        for path, file in files.items()
        if file.is_file() and not any(part.startswith(".") for part in path.parts)
    }


def content_of(files: Mapping[str, Path]) -> str | None:
    """The sha256 of the names and contents of `files`; None where there are none.

    That of large ones is kept in `<cache>/contents`, for as long as no file of them changes.

    Raises:
        OSError: a file cannot be read.
    """
    if not files:
        return None
    stats = {name: file.stat() for name, file in sorted(files.items())}
    if sum(stat.st_size for stat in stats.values()) < LARGE:
        return _read(files)
    marks = [
        (name, str(files[name].resolve()), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino)
        for name, s in stats.items()
    ]
    cached = cache_folder() / "contents" / _sha256(marks)
    with contextlib.suppress(OSError, ValueError):
        digest = json.loads(cached.read_bytes())
        if isinstance(digest, str):
            return digest
    digest = _read(files)
    if max(stat.st_ctime for stat in stats.values()) < time.time() - SETTLED:
        with contextlib.suppress(OSError):  # a full disk: read again the next time
            write_text(cached, json.dumps(digest))
    return digest


def _read(files: Mapping[str, Path]) -> str:
    return _sha256([(name, sha256_of(file)) for name, file in sorted(files.items())])


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
