"""What every section of a study file is made of, and what is said of one that is wrong."""

import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Strict,
    StringConstraints,
    ValidationError,
    model_validator,
)

from basis_zoo.registry import did_you_mean

Int = Annotated[int, Strict()]
Float = Annotated[float, Strict()]
Bool = Annotated[bool, Strict()]
Statistic = Literal["mean", "median"]
"""What is taken over seeds."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"expected printable text on one line, got {text!r}")
    return text


Line = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_printable)
]
"""Printable text on one line."""


class Section(BaseModel):
    """Refuses unknown keys; a value that cannot be changed."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @classmethod
    def read(cls, section: str, entry: Any) -> Self:
        """`entry`, the file's `section`, validated.

        Raises:
            ValueError: a line for each wrong key, which says what was given and what is expected.
        """
        try:
            return cls.model_validate(entry)
        except ValidationError as error:
            lines = (
                f"{dotted((section, *each['loc']))}: {reason(each, cls)}"
                for each in error.errors(include_url=False)
            )
            raise ValueError("\n".join(lines)) from error


class NamedSection(Section):
    """A section that may be written as just its name; a key that is null is not given."""

    name: Line
    """A shipped name, a hub id, or a local file or folder."""

    @model_validator(mode="before")
    @classmethod
    def _given(cls, entry: Any) -> Any:
        if isinstance(entry, str):
            return {"name": entry}
        if isinstance(entry, Mapping):
            return {key: value for key, value in entry.items() if value is not None}
        return entry

    def given(self) -> dict[str, Any]:
        """The keys that were given: defaults are no part of a trial's configuration."""
        return self.model_dump(exclude_unset=True)


_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_type": "a whole number",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "model_type": "a mapping",
    "string_too_short": "text that is not empty",
    "string_type": "text",
    "too_short": "at least one value",
    "tuple_type": "a list",
}
"""Words for pydantic's types of error."""


def reason(error: Mapping[str, Any], model: type[BaseModel]) -> str:
    """What one of pydantic's errors about `model` says: what was expected, and what was given."""
    kind, given, context = error["type"], error.get("input"), error.get("ctx", {})
    if kind == "missing":
        return "required, but not given"
    if kind == "extra_forbidden":
        return unlike("unknown key", error["loc"][-1], fields_at(model, error["loc"][:-1]))
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        words = context["expected"].split("'")[1::2]
        hint = did_you_mean(given, words)
        one_of = "one of " if len(words) > 1 else ""
        return f"expected {one_of}{', '.join(words)}, got {_short(given)}.{hint}".rstrip(".")
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind].format(**context)}, got {_short(given)}"
    return f"{error['msg'][:1].lower()}{error['msg'][1:].rstrip('.')}, got {_short(given)}"


def check_rise(numbers: Sequence[int], what: str) -> None:
    """Raise `ValueError` where `numbers`, which are `what`, do not rise."""
    if list(numbers) != sorted(set(numbers)):
        got = ", ".join(map(str, numbers))
        raise ValueError(f"expected {what} that rise, each once, got {got}")


def unlike(message: str, name: object, known: Iterable[str], among: str = "Known") -> str:
    """`message`, which says that there is no `name`, with the nearest of `known`, and all."""
    known = list(known)
    return f"{message}.{did_you_mean(name, known)} {among}: {', '.join(known)}"


def dotted(location: Sequence[str | int]) -> str:
    """`location` as a study's author reads it: arms[1].set."""
    keys = (key for key in location if key != "[key]")  # pydantic's word for a mapping's key
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return text.removeprefix(".")


def fields_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Names of the keys that the model at `location` below `model` has."""
    kind: Any = model
    for key in location:
        if isinstance(key, int):
            continue
        info = getattr(kind, "model_fields", {}).get(key)
        kind = model_in(info.annotation) if info else None
    return list(getattr(kind, "model_fields", {}))


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation such as `Published | None` or `tuple[Arm, ...]` speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) is not None:
        return next((m for m in map(model_in, typing.get_args(annotation)) if m), None)
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
