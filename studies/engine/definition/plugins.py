"""A researcher's own Python files: imported before a study is read and in every trial.

A study names them (`plugins: [my_basis.py]`), the command line (`--plugin FILE`), or an installed
package through the entry point group `basis_zoo.bases`. Nothing else in a study file runs code. A
trial is given the files that it uses, and their content is part of its key; an installed package,
as torch, is not.
"""

import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from traceback import extract_tb
from typing import Any

from basis_zoo.registry import foreign
from studies.engine.errors import ChangedError, StudyError

GROUP = "basis_zoo.bases"
_PREFIX = "basis_zoo_plugin_"


@dataclass(frozen=True)
class Plugin:
    """A file that was imported."""

    file: Path
    sha256: str
    """Of its content."""
    names: frozenset[str] = frozenset()
    """What it registered; of one that registers nothing, what it does is for every trial."""
    words: frozenset[str] = frozenset()
    """Of its text: a name among them may be looked up by it."""


_IMPORTED: dict[str, Plugin] = {}
"""By the name of its module."""


def used_by(config: Mapping[str, Any], plugins: Sequence[Plugin]) -> tuple[Plugin, ...]:
    """Those of `plugins` that a trial with `config` uses, in their order.

    These are the ones whose names `config` has, penalties' among them, the ones that register
    nothing, and the ones whose names stand in the text of these.
    """
    if not plugins:
        return ()
    known = {*_texts(config), *config["train"].get("penalties", ())}
    used: set[Plugin] = set()
    while more := {p for p in plugins if p not in used and (not p.names or p.names & known)}:
        used |= more
        known = known.union(*(plugin.words for plugin in more))
    return tuple(plugin for plugin in plugins if plugin in used)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def load_plugins(files: Sequence[str | Path], hashes: Sequence[str] = ()) -> tuple[Plugin, ...]:
    """Import the entry points of the group `basis_zoo.bases`, then `files`; once a process.

    `hashes`, where given, are those of the files' contents: a trial refuses a plug-in that was
    edited after it was planned.

    Raises `StudyError` where a file is missing, changed, or fails to import.
    """
    for entry in installed():
        try:
            entry.load()
        except Exception as error:
            raise StudyError(
                f"plug-in '{entry.name}' ({entry.value}) of an installed package: "
                f"{type(error).__name__}: {error}. Repair or uninstall that package"
            ) from error
    planned: Sequence[str | None] = hashes or [None] * len(files)
    return tuple(_load(Path(file), then) for file, then in zip(files, planned, strict=True))


@cache
def installed() -> tuple[EntryPoint, ...]:
    """What installed packages offer; read once, since asking all of them takes 20 ms."""
    return tuple(entry_points(group=GROUP))


def loaded() -> list[str]:
    """The files that this process has imported, each with a part of its content's sha256."""
    return sorted(_IMPORTED)


def _load(file: Path, planned: str | None) -> Plugin:
    """Import `file`, whose content must have the sha256 `planned` where that is given."""
    try:
        content = file.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        looked = "" if file.is_absolute() else f" (looked for {file.absolute()})"
        raise StudyError(f"plug-in {file}: cannot be read: {reason}{looked}") from None
    digest = hashlib.sha256(content).hexdigest()
    if planned not in (None, digest):
        raise ChangedError(
            f"plug-in {file} was changed since this trial was planned: run the same command again"
        )
    name = f"{_PREFIX}{file.stem}_{digest[:12]}"
    if name not in _IMPORTED:
        words = frozenset(re.findall(r"\w+", content.decode(errors="replace")))
        before = foreign()
        _import(file, name)
        names = frozenset(each for _, each in foreign() - before)
        _IMPORTED[name] = Plugin(file.resolve(), digest, names, words)
    return replace(_IMPORTED[name], file=file.resolve())  # it may have been copied


def _import(file: Path, name: str) -> None:
    """Run `file` as the module `name`; raises `StudyError` where it fails."""
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    if spec is None or spec.loader is None:
        raise StudyError(f"plug-in {file}: not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it is being executed
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # SystemExit too: a plug-in does not end the study
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        line, text = _line_in(error, file), str(error).replace(name, file.stem).rstrip(".")
        raise StudyError(
            f"plug-in {file}{line}: {type(error).__name__}: {text}. Nothing was started"
        ) from error


def _line_in(error: BaseException, file: Path) -> str:
    """`:line` of the plug-in's line that raised, or nothing."""
    if isinstance(error, SyntaxError):
        return f":{error.lineno or 1}"
    own = str(file.resolve())
    lines = [at.lineno for at in extract_tb(error.__traceback__) if at.filename == own]
    return f":{lines[-1]}" if lines else ""
