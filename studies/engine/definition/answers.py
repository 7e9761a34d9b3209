"""What the packages said of adapters before, kept in the user's cache: asking takes seconds.

torch, transformers and peft take seconds to import, and say the same of the same adapter for as
long as they, the zoo and the plug-ins stay as they are. So a process asks each question once, and a
command leaves its answers to the next one, in a file whose name is a hash of all of these.
Refusals are not kept: they are read once and then repaired.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

from studies.archives.cache import cache_folder
from studies.engine.definition import plugins
from studies.files import write_text

PACKAGES = ("torch", "transformers", "peft", "numpy")
"""Whose versions an answer depends on."""
SOURCES = ("adapters", "basis_zoo", "studies.backbones", "studies.engine.definition")
"""Whose content it depends on, and where the questions are: in a checkout these change without a
version."""
MOST_ANSWERS, MOST_FILES = 20_000, 4

Given = TypeVarTuple("Given")
Answer = TypeVar("Answer")

_known: dict[str, Any] = {}
_open: "list[_Cache]" = []
"""What is kept between commands, while one keeps it."""


def once(ask: Callable[[*Given], Answer]) -> Callable[[*Given], Answer]:
    """`ask`, a question about values that JSON can hold, asked once for each of them.

    What it raises is raised each time anew.
    """

    @functools.wraps(ask)
    def cached(*given: *Given) -> Answer:
        canonical = json.dumps([ask.__name__, *given], sort_keys=True, default=repr)
        key = hashlib.sha256(canonical.encode()).hexdigest()[:32]
        for store in _open if key not in _known else ():
            store.read()
        if key not in _known:
            _known[key] = ask(*json.loads(canonical)[1:])
        answer: Answer = _known[key]
        return answer

    return cached


@contextlib.contextmanager
def cache() -> Iterator[None]:
    """Know what earlier commands were answered, and leave what is asked inside to later ones."""
    store = _Cache()
    _open.append(store)
    try:
        yield
    finally:
        _open.remove(store)
        store.write()


class _Cache:
    """The answers of commands before this one, read on the first question."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._before: dict[str, Any] | None = None

    def read(self) -> None:
        """Make them known; by now the study's plug-ins are loaded, on which they depend."""
        if self._before is None:
            self._file = _file()
            self._before = _read(self._file) if self._file is not None else {}
            _known.update(self._before)

    def write(self) -> None:
        """Add what is known by now; a cache that cannot be written only costs time."""
        new = {key: answer for key, answer in _known.items() if key not in (self._before or {})}
        if self._file is None or not new:
            return
        with contextlib.suppress(OSError):
            answers = [*_read(self._file).items(), *new.items()][-MOST_ANSWERS:]
            write_text(self._file, json.dumps(dict(answers)))
            files = sorted(self._file.parent.glob("*.json"), key=lambda each: each.stat().st_mtime)
            for old in files[:-MOST_FILES]:
                old.unlink(missing_ok=True)


def folder() -> Path:
    """Where answers are kept."""
    return cache_folder() / "answers"


def _file() -> Path | None:
    """The file of what the answers depend on; None where that is not known."""
    about = code_hash(PACKAGES, SOURCES)
    return None if about is None else folder() / f"{about[:16]}.json"


def code_hash(packages: Iterable[str], sources: Iterable[str]) -> str | None:
    """A hash of Python, the loaded plug-ins, the versions of `packages` and the files of `sources`.

    None where it is not known.
    """
    if plugins.installed():  # one may be under work
        return None
    about = hashlib.sha256(f"{platform.python_version()} {plugins.loaded()}".encode())
    try:
        for package in packages:
            about.update(f"{package} {importlib.metadata.version(package)};".encode())
        for file in _files(sources):
            about.update(hashlib.sha256(file.read_bytes()).digest())
    except (OSError, importlib.metadata.PackageNotFoundError):  # said where it is needed
        return None
    return about.hexdigest()


def _files(packages: Iterable[str]) -> Iterator[Path]:
    """Code and tables."""
    for package in packages:
        spec = importlib.util.find_spec(package)
        for place in spec.submodule_search_locations or () if spec else ():
            for end in ("py", "yaml"):
                yield from sorted(Path(place).rglob(f"*.{end}"))


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):  # none yet, or cut by a full disk: it is asked anew
        return {}
    return content if isinstance(content, dict) else {}
