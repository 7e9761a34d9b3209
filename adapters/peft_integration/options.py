"""Configurations whose options are asked for by name."""

import dataclasses
from typing import Any, Self

from basis_zoo.registry import did_you_mean


class KnownOptions:
    """A dataclass that says what an unknown option is called here, such as `lora_alpha`: `alpha`.

    Raises:
        TypeError: It has no such option.
    """

    def __new__(cls, *args: Any, **options: Any) -> Self:  # noqa: D102
        names = [f.name for f in dataclasses.fields(cls) if f.init]  # type: ignore[arg-type]
        for name in options:
            if name not in names:
                hint = did_you_mean(name, names) or f" help({cls.__name__}) lists its options"
                raise TypeError(f"{cls.__name__} has no option {name!r}.{hint}")
        return super().__new__(cls)
