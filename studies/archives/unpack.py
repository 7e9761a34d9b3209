"""Take named members out of a zip or tar archive; no name in the archive decides a path."""

import errno
import gzip
import hashlib
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import IO

from studies.archives.archive import Archive, ArchiveError, Member

CHUNK = 1 << 20
NESTED_LIMIT = 1 << 30
"""Bytes that an archive inside an archive may have; it is read into memory."""

DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError,
    RuntimeError, ValueError, struct.error,
)  # fmt: skip
"""What the standard library raises of archives that are damaged, encrypted or of unknown kinds."""


Wanted = list[tuple[Member, Sequence[str]]]
"""Members of an archive, each with its names from there on."""


def unpack(archive: Archive, file: Path, folder: Path) -> None:
    """Write every member of `archive`, found in `file`, below `folder`.

    Raises:
        ArchiveError: a member is missing, is no regular file, or does not match size and sha256.
        OSError: `folder` cannot be written, e.g. the disk is full.
    """
    with file.open("rb") as stream:
        _take(stream, archive.filename, [(m, m.source) for m in archive.members], folder)


def _take(stream: IO[bytes], where: str, wanted: Wanted, folder: Path) -> None:
    """Write the members `wanted` as they come by in the archive `stream`.

    Looking a name up in a compressed tar reads all of it: minutes for many members.
    """
    left: dict[str, Wanted] = {}
    for member, (name, *inner) in wanted:
        left.setdefault(name, []).append((member, inner))
    odd = set()
    with _explained(where):
        for name, regular, content in _entries(stream):
            if name in left and regular:
                with content() as found:
                    _write(found, f"{where}: {name}", left.pop(name), folder)
                if not left:
                    return
            odd.add(name)
    for name in left:
        if name in odd:  # a link could name any other file
            raise ArchiveError(f"{where}: {name} is not a regular file; it is not unpacked")
        raise ArchiveError(f"{where} has no member {name}")


def _entries(stream: IO[bytes]) -> Iterator[tuple[str, bool, Callable[[], IO[bytes]]]]:
    """Name, whether it is a regular file, and content of all that a zip or tar archive holds."""
    is_zip = zipfile.is_zipfile(stream)
    stream.seek(0)
    if is_zip:
        with zipfile.ZipFile(stream) as zipped:
            for name in zipped.namelist():
                yield name, True, partial(zipped.open, name)
        return
    with tarfile.open(fileobj=stream, mode="r|*") as tarred:
        for entry in tarred:
            yield entry.name, entry.isreg(), partial(_content, tarred, entry)


def _content(tarred: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    content = tarred.extractfile(entry)
    assert content is not None, "it is a regular file"
    return content


def _write(content: IO[bytes], where: str, wanted: Wanted, folder: Path) -> None:
    """Write what is `wanted` of one file: itself, or what is in it if it is an archive."""
    if inside := [(member, inner) for member, inner in wanted if inner]:
        data = content.read(NESTED_LIMIT + 1)
        if len(data) > NESTED_LIMIT:
            raise ArchiveError(f"{where} is larger than {NESTED_LIMIT:,} bytes; it is not read")
        _take(io.BytesIO(data), where, inside, folder)
        content = io.BytesIO(data)
    before: Path | None = None
    for member in (member for member, inner in wanted if not inner):
        target = folder / member.target
        target.parent.mkdir(parents=True, exist_ok=True)
        with nullcontext(content) if before is None else before.open("rb") as source:
            _copy(source, member, target, where)
        before = target  # the stream is past it


def _copy(content: IO[bytes], member: Member, target: Path, where: str) -> None:
    """Write `content` to `target`, checking it on the way."""
    digest, written = hashlib.sha256(), 0
    with target.open("wb") as out:
        while chunk := content.read(min(CHUNK, member.size + 1 - written)):
            out.write(chunk)
            digest.update(chunk)
            written += len(chunk)
    if digest.hexdigest() != member.sha256:
        raise ArchiveError(
            f"{where} does not match its pinned sha256: expected "
            f"{member.sha256} ({member.size:,} bytes), got {digest.hexdigest()}. "
            f"Nothing of it was kept."
        )


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Say which archive is damaged."""
    try:
        yield
    except DAMAGED as error:
        raise ArchiveError(f"{where} is not a readable archive: {error}") from error
    except OSError as error:
        # bzip2 names no number, a wrong offset is an invalid seek; others are the disk's
        if error.errno in (None, errno.EINVAL):
            raise ArchiveError(f"{where} is not a readable archive: {error}") from error
        raise
