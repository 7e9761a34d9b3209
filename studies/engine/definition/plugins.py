"""A researcher's own Python files: imported before a study is read and in every trial.

A study names them (`plugins: [my_basis.py]`), the command line (`--plugin FILE`), or an installed
package through the entry point group `basis_zoo.bases`. Nothing else in a study file runs code.
"""

import hashlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from traceback import extract_tb

from studies.engine.errors import StudyError

GROUP = "basis_zoo.bases"
_PREFIX = "basis_zoo_plugin_"


def load_plugins(files: Sequence[str | Path], hashes: Sequence[str] = ()) -> tuple[str, ...]:
    """Import the entry points of the group `basis_zoo.bases`, then `files`; once a process.

    Returns the sha256 of each file's content. `hashes`, where given, are what they must be: a
    trial refuses a plug-in that was edited after it was planned.

    Raises `StudyError` where a file is missing, changed, or fails to import.
    """
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:
            raise StudyError(
                f"plug-in '{entry.name}' ({entry.value}) of an installed package: "
                f"{type(error).__name__}: {error}. Repair or uninstall that package"
            ) from error
    found = tuple(_load(Path(file)) for file in files)
    for file, now, then in zip(files, found, hashes, strict=bool(hashes)):
        if now != then:
            raise StudyError(
                f"plug-in {file} was changed since this trial was planned: run the study again"
            )
    return found


def loaded() -> list[str]:
    """The files that this process has imported, each with a part of its content's sha256."""
    return sorted(name for name in sys.modules if name.startswith(_PREFIX))


def _load(file: Path) -> str:
    try:
        content = file.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StudyError(f"plug-in {file}: cannot be read: {reason}") from None
    digest = hashlib.sha256(content).hexdigest()
    name = f"{_PREFIX}{file.stem}_{digest[:12]}"
    if name in sys.modules:
        return digest
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
        line = _line_in(error, file)
        raise StudyError(
            f"plug-in {file}{line}: {type(error).__name__}: {error}. Nothing was started"
        ) from error
    return digest


def _line_in(error: BaseException, file: Path) -> str:
    """`:line` of the plug-in's line that raised, or nothing."""
    if isinstance(error, SyntaxError):
        return f":{error.lineno or 1}"
    own = str(file.resolve())
    lines = [at.lineno for at in extract_tb(error.__traceback__) if at.filename == own]
    return f":{lines[-1]}" if lines else ""
