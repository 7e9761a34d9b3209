"""A registry answers by name and never overwrites."""

import dataclasses
import difflib
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` where a known name is close to `name`, else an empty string."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


class Registry(Generic[T]):
    """Names to classes of frozen dataclasses.

    Args:
        kind: What is registered, for messages: `basis family`.
        base: The class that every member must extend.
    """

    def __init__(self, kind: str, base: type[T]) -> None:
        self._kind = kind
        self._base = base
        self._members: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator that adds a member under `name`.

        Raises:
            ValueError: The name is taken or not a lower-case word.
            TypeError: The class does not extend the registry's base, or no name is given.
        """
        if not isinstance(name, str):
            raise TypeError(f"a {self._kind} needs a name, a string before its class; got {name!r}")

        def add(member: type[T]) -> type[T]:
            if not (isinstance(member, type) and issubclass(member, self._base)):
                raise TypeError(
                    f"{self._kind} {name!r} must be a subclass of {self._base.__name__}, "
                    f"got {member!r}"
                )
            if not (name.isidentifier() and name == name.lower()):
                raise ValueError(f"the name of a {self._kind} is a lower-case word, got {name!r}")
            taken = self._members.get(name)
            if taken is not None and _place(taken) != _place(member):
                raise ValueError(
                    f"{self._kind} {name!r} is already registered as {_place(taken)}; "
                    f"give {_place(member)} another name"
                )
            member.name = name  # type: ignore[attr-defined]
            self._members[name] = member
            return member

        return add

    def get(self, name: str, **options: Any) -> T:
        """An instance of the member `name` made with `options`.

        Raises:
            ValueError: Unknown name, unknown option, or an option the member refuses.
        """
        member = self.get_class(name)
        known = [f.name for f in dataclasses.fields(member) if f.init]  # type: ignore[arg-type]
        for option in options:
            if option not in known:
                raise ValueError(
                    f"{self._kind} {name!r} has no option {option!r}."
                    f"{did_you_mean(option, known)} Its options: {', '.join(known)}"
                )
        try:
            return member(**options)
        except TypeError as error:
            raise ValueError(f"{self._kind} {name!r} refuses {options}: {error}") from error

    def get_class(self, name: str) -> type[T]:
        """The class registered under `name`."""
        if name not in self._members:
            raise ValueError(
                f"unknown {self._kind} {name!r}.{did_you_mean(name, self._members)} "
                f"Registered: {', '.join(self.names())}"
            )
        return self._members[name]

    def names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._members)


def _place(member: type) -> str:
    return f"{member.__module__}.{member.__qualname__}"
