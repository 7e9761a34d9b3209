"""What settings and their values are called in tables."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from studies.engine.errors import one_line


def flat(nested: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """The values of nested mappings by dotted path."""
    settings: dict[str, Any] = {}
    for name, value in nested.items():
        path = f"{before}{name}"
        settings |= flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return settings


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Each dotted path's last part, or the whole path where two end alike."""
    paths = list(paths)
    lasts = [path.rpartition(".")[2] for path in paths]
    return {
        path: last if lasts.count(last) == 1 else path
        for path, last in zip(paths, lasts, strict=True)
    }


def short_value(value: Any) -> str:
    """`value` in a few characters: 0.001, query+value, true."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "+".join(short_value(item) for item in value)
    if isinstance(value, dict):
        return ",".join(f"{key}:{short_value(item)}" for key, item in value.items())
    return one_line(str(value))


def short_settings(settings: Mapping[str, Any]) -> str:
    """`learning_rate=0.001 r=8` for dotted settings and their values."""
    names = short_names(settings)
    return " ".join(f"{names[path]}={short_value(value)}" for path, value in settings.items())


def on_task(name: str, task: str) -> str:
    """`name`, and on which of several tasks: `lora on sarcasm`."""
    return f"{name} on {task}" if task else name


def duration(seconds: float) -> str:
    """`seconds` as a person says it: 48 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def counted(number: int, what: str) -> str:
    """1 trial, 2 trials."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def numbers(given: Iterable[int]) -> str:
    """`0 to 3, 7, 9`: whole numbers in order, three and more in a row as a span."""
    ordered = sorted(set(given))
    rows = [
        [number for _, number in row]
        for _, row in itertools.groupby(enumerate(ordered), lambda pair: pair[1] - pair[0])
    ]
    return ", ".join(
        span(row[0], row[-1]) if len(row) > 2 else ", ".join(map(str, row)) for row in rows
    )


def span(low: object, high: object) -> str:
    """`3 to 12`, or `3` where both are."""
    return f"{low}" if low == high else f"{low} to {high}"
