"""Weights that come in another program's format, turned once into a folder transformers loads.

The folder `<cache>/converted/<name>-<tag>` is complete or absent and needs nothing else: a cache
that holds it can be carried to a machine without network and without the converter's packages. Its
`hashes.json` holds size and sha256 of each of its files, which are checked before each use.
"""

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from studies.archives import Archive, ArchiveError, cache_folder, tag_of
from studies.archives import fetch as fetch_archive
from studies.archives.contents import files_below
from studies.archives.files import is_whole, say_damaged, sha256_of
from studies.files import locked, replacing_folder

HASHES = "hashes.json"
"""The file of a converted folder that tells what the others are."""


class MissingPackage(ArchiveError):
    """An optional package is needed; the message says which and how to get it."""


@dataclass(frozen=True)
class Conversion:
    """How to make the folder."""

    run: Callable[[Sequence[Path], Path], None]
    """From the folders of the archives' members, in order, to an empty folder to be filled."""
    requires: tuple[str, ...]
    """Modules that `run` imports and that are not installed by default."""
    version: int = 1
    """Another version is another folder: raise it when `run` writes something else."""


def converted_folder(name: str, conversion: Conversion, archives: Sequence[Archive]) -> Path:
    """Where the converted weights are, or will be."""
    return cache_folder() / "converted" / f"{name}-{tag_of(conversion.version, archives)}"


def converted_hashes(folder: Path) -> dict[str, str] | None:
    """The sha256 of each file of a converted folder; None where one is damaged or missing.

    Raises:
        OSError: a file cannot be read.
    """
    try:
        files = json.loads((folder / HASHES).read_bytes())
        whole = all(is_whole(folder / file, *known) for file, known in files.items())
        return {file: sha256 for file, (_, sha256) in files.items()} if whole else None
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None


def convert(name: str, conversion: Conversion, archives: Sequence[Archive]) -> Path:
    """The folder, converted first where the cache lacks it or it is damaged.

    Two processes may call this at once.

    Raises:
        MissingPackage: the conversion has not been done yet and needs a package.
        studies.archives.ArchiveError: an archive cannot be had.
    """
    folder = converted_folder(name, conversion, archives)
    if converted_hashes(folder) is not None:
        return folder
    if folder.exists():
        say_damaged(folder, "it is converted again")
    require(conversion.requires, f"backbone {name} is converted once, which", "packaged")
    sources = [fetch_archive(archive) for archive in archives]
    with locked(folder.parent / f".{folder.name}.lock"):
        if converted_hashes(folder) is None:
            with replacing_folder(folder) as content:
                conversion.run(sources, content)
                files = files_below(content).items()
                hashes = {name: (file.stat().st_size, sha256_of(file)) for name, file in files}
                (content / HASHES).write_text(json.dumps(hashes, indent=1), encoding="utf-8")
    return folder


def require(modules: Sequence[str], purpose: str, extra: str) -> None:
    """Refuse early where one of `modules` is not installed.

    Raises:
        MissingPackage: names the module and the extra that brings it.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingPackage(
                f"{purpose} needs the package {module}, which is not installed. "
                f"Run: pip install 'basis-zoo[{extra}]' (or: pip install {module})"
            )
