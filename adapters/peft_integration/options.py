"""What our PEFT configurations make of their options."""

import inspect
from typing import Any, Self

from basis_zoo.registry import did_you_mean


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
