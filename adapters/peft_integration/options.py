"""What our PEFT configurations make of their options."""

import dataclasses
import inspect
from typing import Any, Self, TypeVar, cast

from basis_zoo.registry import did_you_mean

T = TypeVar("T")
Names = list[str] | str | None
"""Names of modules, or one pattern."""
Indices = list[int] | int | None


def setting(default: T, text: str) -> T:
    """A field of a configuration: its default, and what it means as PEFT and our pages show it."""
    metadata = {"help": text}
    if isinstance(default, dict):
        return cast(T, dataclasses.field(default_factory=default.copy, metadata=metadata))
    return dataclasses.field(default=default, metadata=metadata)


def as_sets(config: Any) -> None:
    """Make sets of the lists of modules in `config`, as PEFT keeps them."""
    for option in ("target_modules", "exclude_modules"):
        names = getattr(config, option)
        if isinstance(names, list | tuple):
            setattr(config, option, set(names))


class KnownOptions:
    """A dataclass that says what an unknown option is called here, such as `lora_alpha`: `alpha`.

    Raises:
        TypeError: It has no such option.
    """

    def __new__(cls, *args: Any, **options: Any) -> Self:  # noqa: D102
        parameters = inspect.signature(cls.__init__).parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for name in () if takes_any else options:
            if name not in parameters:
                hint = did_you_mean(name, parameters) or f" help({cls.__name__}) lists its options"
                # Python's words, by which PEFT knows a file that a later version has saved
                raise TypeError(
                    f"{cls.__name__} got an unexpected keyword argument {name!r}.{hint}"
                )
        return super().__new__(cls)
