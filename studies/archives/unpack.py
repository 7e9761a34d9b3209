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
from collections.abc import Iterator
from contextlib import contextmanager
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


def unpack(archive: Archive, file: Path, folder: Path) -> None:
    """Write every member of `archive`, found in `file`, below `folder`.

    Raises:
        ArchiveError: a member is missing, is no regular file, or does not match size and sha256.
        OSError: `folder` cannot be written, e.g. the disk is full.
    """
    left: dict[str, list[Member]] = {}
    for member in archive.members:
        if len(member.source) == 1:
            left.setdefault(member.source[0], []).append(member)
    if left and not zipfile.is_zipfile(file):
        _in_one_pass(archive, file, folder, left)
    for member in archive.members:
        if member.source[0] in left or len(member.source) > 1:
            with file.open("rb") as stream:
                _write(archive, member, stream, _target(folder, member))


def _in_one_pass(archive: Archive, file: Path, folder: Path, left: dict[str, list[Member]]) -> None:
    """Write plain members as they come by, and take them out of `left`.

    Looking a name up in a compressed tar reads all of it: minutes for many members.
    """
    with _explained(archive.filename), tarfile.open(file, "r|*") as outer:
        for entry in outer:
            if entry.name not in left or not entry.isreg():
                continue  # what remains in `left` is looked up, and refused, by name
            content = outer.extractfile(entry)
            assert content is not None
            first, *others = left.pop(entry.name)
            _copy(content, first, _target(folder, first), archive.filename)
            for other in others:  # the stream is past it
                with (folder / first.target).open("rb") as written:
                    _copy(written, other, _target(folder, other), archive.filename)
            if not left:
                return


def _target(folder: Path, member: Member) -> Path:
    target = folder / member.target
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _write(archive: Archive, member: Member, stream: IO[bytes], target: Path) -> None:
    *nested, name = member.source
    where = archive.filename
    for inner in nested:
        with _open(stream, inner, where) as content:
            data = content.read(NESTED_LIMIT + 1)
        where = f"{where}: {inner}"
        if len(data) > NESTED_LIMIT:
            raise ArchiveError(f"{where} is larger than {NESTED_LIMIT:,} bytes; it is not read")
        stream = io.BytesIO(data)
    with _open(stream, name, where) as content:
        _copy(content, member, target, where)


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
            f"{where}: {member.source[-1]} does not match its pinned sha256: expected "
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


@contextmanager
def _open(stream: IO[bytes], name: str, where: str) -> Iterator[IO[bytes]]:
    """The regular file `name` inside the zip or tar archive `stream`."""
    with _explained(where):
        if zipfile.is_zipfile(stream):
            stream.seek(0)
            with zipfile.ZipFile(stream) as outer:
                if name not in outer.namelist():
                    raise ArchiveError(f"{where} has no member {name}")
                with outer.open(name) as content:
                    yield content
            return
        stream.seek(0)
        with tarfile.open(fileobj=stream) as outer:
            if name not in outer.getnames():
                raise ArchiveError(f"{where} has no member {name}")
            entry = outer.getmember(name)
            if not entry.isreg():  # a link could name any other file
                raise ArchiveError(f"{where}: {name} is not a regular file; it is not unpacked")
            member = outer.extractfile(entry)
            assert member is not None, "it is a regular file"
            with member:
                yield member
