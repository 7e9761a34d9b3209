"""The settings of trials as what Optuna calls params: a number of a range, or one of some words."""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from studies.engine.definition.sections import Domain, Range
from studies.engine.labels import short_value

Settings = Mapping[str, Any]


def params(settings: Settings, paths: Collection[str]) -> dict[str, Any]:
    """Those of `settings` that are in `paths`; one that is null is as one that is not there."""
    return {
        path: _word(value)
        for path, value in settings.items()
        if path in paths and value is not None
    }


def space(settings: Iterable[Settings]) -> dict[str, Domain]:
    """What each of the params in `settings` may be: the numbers between its ends, or its words."""
    values: dict[str, dict[str, Any]] = {}
    for own in settings:
        for path, value in own.items():
            values.setdefault(path, {})[repr(value)] = value
    return {path: _domain(own.values()) for path, own in values.items()}


def _word(value: Any) -> Any:
    """`value` as Optuna takes it: of lists, and of numbers without end, their text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float | str) else short_value(value)


def _domain(values: Collection[Any]) -> Domain:
    kinds = {type(value) for value in values}
    if kinds <= {int, float}:
        return Range("int" if kinds == {int} else "float", min(values), max(values), log=False)
    return tuple(sorted(values, key=repr))
