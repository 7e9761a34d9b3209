"""A study that is built in Python: the keys of a study file as keyword arguments.

    study = Study("ranks", question="Which rank?", sweep={"adapter.r": [4, 8]}, ...)
    study.to_yaml("ranks.yaml")

It is read as the file is that it becomes, so it means the same and is refused by the same messages.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studies.engine.definition.yaml_source import as_yaml
from studies.engine.errors import StudyError
from studies.files import write_text


class Study:
    """A study file that is not written yet."""

    def __init__(self, name: str, **sections: Any) -> None:
        """`sections` are the other keys of docs/reference.md, and `profiles`, as plain values.

        Paths of `plugins` start at the current folder, as those of data and models do.

        Raises:
            StudyError: a value is nothing that YAML holds. Keys are checked when it is run.
        """
        self.name = name
        self._sections = {key: plain_data(value, key) for key, value in sections.items()}
        self._started = Path.cwd()

    def to_yaml(self, path: str | Path) -> Path:
        """Write the study to the file `path`, whose name is its own with `.yaml`.

        What was there is replaced. `plugins` are written by their paths from the file.

        Raises:
            StudyError: the file has another name.
            OSError: it cannot be written.
        """
        path = Path(path)
        if path.stem != self.name:
            raise StudyError(f"{path}: name: '{self.name}' must be the file's name, '{path.stem}'")
        text = self._text(path.resolve().parent)
        if not path.is_file() or path.read_bytes() != text.encode():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
        return path

    def _text(self, folder: Path) -> str:
        tree = {"name": self.name, **self._sections}
        if isinstance(files := tree.get("plugins"), list):  # what is none is refused when read
            own = self._started
            tree["plugins"] = [
                os.path.relpath((own / Path(file).expanduser()).resolve(), folder)
                if isinstance(file, str)
                else file
                for file in files
            ]
        return as_yaml(tree)

    def __repr__(self) -> str:
        return self._text(Path.cwd())


def plain_data(value: Any, key: str) -> Any:
    """`value`, the one of `key`, in what YAML holds; arrays and ranges become lists.

    Raises:
        StudyError: it cannot be told what it would be there.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise StudyError(f"{key}: a number must be finite, got {value}")
    if type(value) in (type(None), bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain_data(each, f"{key}.{name}") for name, each in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain_data(each, key) for each in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # an array, or a number out of one
        return plain_data(value.tolist(), key)
    raise StudyError(
        f"{key}: expected text, numbers, lists and mappings, got {type(value).__name__} {value!r}"
    )
