"""Ablation studies: YAML questions, real backbones and tasks, and the engine that runs them.

`run`, `load` and `Study` do in Python what the command does; they are imported on first use, as
they need most of the engine.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.api import Findings, load, run
    from studies.engine.definition.study_builder import Study
    from studies.engine.errors import StudyError

_MODULES = {
    "Findings": "api",
    "Study": "engine.definition.study_builder",
    "StudyError": "engine.errors",
    "load": "api",
    "run": "api",
}

__all__ = ["Findings", "Study", "StudyError", "load", "run"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("basis_zoo.version").installed_version()
    if name in _MODULES:
        member = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = member
        return member
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
