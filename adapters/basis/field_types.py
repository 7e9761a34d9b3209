"""Checks that the fields of a dataclass have the types of their annotations."""

import functools
import math
import types
import typing
from typing import Any

from basis_zoo.registry import did_you_mean

_LIKE = {float: (float, int), list: (list, tuple, set), tuple: (tuple, list), Any: (object,)}
"""What is accepted for a type, since JSON has neither tuples nor sets."""


def check_field_types(settings: Any, of: type) -> None:
    """Check that fields of `settings` have the types that its class or base `of` itself annotates.

    Raises:
        ValueError: A value has another type, or is not finite.
    """
    for name, annotation in _own_types(of).items():
        value = getattr(settings, name)
        if not _fits(value, annotation):
            expected = getattr(annotation, "__name__", str(annotation))
            expected = expected if not typing.get_args(annotation) else str(annotation)
            raise ValueError(f"`{name}` must be {expected}, got {value!r}")


def require(condition: bool, name: str, expected: str, value: Any) -> None:
    """Raise ValueError for the option `name` unless `condition` holds."""
    if not condition:
        raise ValueError(f"`{name}` must be {expected}, got {value!r}")


def require_one_of(name: str, value: str, options: tuple[str, ...]) -> None:
    """Raise ValueError with the nearest of `options` unless the option `name` is one of them."""
    if value not in options:
        hint = did_you_mean(value, options)
        raise ValueError(f"`{name}` must be one of {', '.join(options)}, got {value!r}.{hint}")


@functools.cache
def _own_types(of: type) -> dict[str, Any]:
    """The annotations of the fields that `of` itself adds to its bases."""
    return {name: h for name, h in typing.get_type_hints(of).items() if name in of.__annotations__}


def _fits(value: Any, annotation: Any) -> bool:
    inner = typing.get_args(annotation)
    if isinstance(annotation, types.UnionType):
        return any(_fits(value, each) for each in inner)
    kind = typing.get_origin(annotation) or annotation
    if isinstance(value, bool) and kind not in (bool, Any):
        return False
    if not isinstance(value, _LIKE.get(kind, (kind,))):
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if kind is dict:
        return all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    if kind is list:
        return not inner or all(_fits(each, inner[0]) for each in value)
    if kind is tuple:
        pairs = zip(value, inner, strict=False)
        return len(value) == len(inner) and all(_fits(v, each) for v, each in pairs)
    return True
