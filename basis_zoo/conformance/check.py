"""What a check is, and the list of all of them."""

from collections.abc import Callable
from dataclasses import dataclass

from basis_zoo.basis import Basis
from basis_zoo.conformance.subject import Subject


class ConformanceError(AssertionError):
    """A family does not do what the contract or its own claims say."""


def require(condition: bool, message: str) -> None:
    """Raise `ConformanceError` with `message` unless `condition` holds."""
    if not condition:
        raise ConformanceError(message)


def at_most(measured: float, limit: float, what: str) -> str:
    """One line with the measured number.

    Raises:
        ConformanceError: It exceeds the limit, or is NaN.
    """
    require(measured <= limit, f"{what} is {measured:.2g}, more than {limit:.2g}")
    return f"{what} {measured:.1e}"


@dataclass(frozen=True)
class Check:
    """One property that a family must have."""

    name: str
    run: Callable[[Subject], str]
    """Returns one line with what was measured; raises when the property is missing."""
    applies: Callable[[Basis], bool]
    per_grid: bool
    """Whether the property is asked for on every grid, or once."""
    slow: bool
    """Whether it takes more than a second."""

    def __call__(self, subject: Subject) -> str:
        """Run it."""
        return self.run(subject)


ALL_CHECKS: list[Check] = []
"""All checks in the order in which they run."""


def check(
    applies: Callable[[Basis], bool] = lambda basis: True,
    *,
    per_grid: bool = False,
    slow: bool = False,
) -> Callable[[Callable[[Subject], str]], Check]:
    """Decorator that makes `check_<name>` a `Check` called `<name>` and lists it."""

    def add(run: Callable[[Subject], str]) -> Check:
        entry = Check(run.__name__.removeprefix("check_"), run, applies, per_grid, slow)
        ALL_CHECKS.append(entry)
        return entry

    return add
