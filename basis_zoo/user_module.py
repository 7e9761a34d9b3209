"""A Python file of a user, run as a module."""

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType


def load_module(path: Path) -> ModuleType:
    """The module in the file `path`, run now.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no Python file, or raises; the message has the line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(f"basis_zoo_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # someone else's code: whatever it raises is theirs to mend
        line = _line_in(error, path)
        raise ValueError(f"{path}{line}: {type(error).__name__}: {error}") from error
    return module


def _line_in(error: Exception, path: Path) -> str:
    """`:line` of the file's line that raised, or nothing."""
    if isinstance(error, SyntaxError):
        return f":{error.lineno or 1}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f":{own[-1]}" if own else ""
