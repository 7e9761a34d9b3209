"""Where results come from: devices and versions, each told once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from studies.engine.records import Result


def without_host(environment: Mapping[str, Any]) -> dict[str, Any]:
    """`environment` but the machine's name, which says nothing to the reader of a report."""
    return {k: environment[k] for k in sorted(environment) if k != "host"}


def distinct(values: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Those of `values` that hold something, each once, in their order."""
    unique: list[Mapping[str, Any]] = []
    for value in values:
        if value and value not in unique:
            unique.append(value)
    return tuple(unique)


def indices(done: Iterable[Result], environments: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """The places in `environments` of those that `done` come from."""
    known = (without_host(result.environment) for result in done)
    return tuple(sorted({environments.index(e) for e in known if e}))
