"""The section `tune`: values that every arm tries before the seeds, and what it may get more."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from studies.sections import Int, Section, Statistic


class Tune(Section):
    """The stage before the seeds in which every arm tries the same values; validation chooses.

    Its other keys are dotted settings, each with a list of values; every combination is tried.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]]

    seeds: Annotated[
        tuple[Annotated[Int, Field(ge=0, lt=2**32)], ...],
        Field(min_length=1, examples=[[100, 101]]),
    ]
    """Those of the stage, none of the study's own `seeds`."""
    extend: Int = Field(0, ge=0, le=8)
    """How many more values an arm may get beyond each end of a list, one at a time, while its best
    is the last one. Each continues the list by the ratio of the two values before, whole numbers
    rounded; only lists of at least three numbers above zero are continued."""
    race: Int = Field(0, ge=0, le=1000)
    """How many seeds a value gets at most, those that follow the last one: an arm's values within
    one standard error of its best get more, in rounds of twice as many, until one is left. 0: none
    gets more than `seeds`."""

    statistic: Statistic = "mean"
    """By what of its seeds a value is chosen. `median` suits claims about medians: one run that
    falls to chance then hardly moves the choice, and values are close where wins and losses, paired
    by seed, differ by at most the root of their number, the standard error of a fair coin."""

    @property
    def race_seeds(self) -> tuple[int, ...]:
        """The seeds of the race, in their order."""
        last = max(self.seeds)
        return tuple(range(last + 1, last + 1 + max(0, self.race - len(self.seeds))))

    @property
    def values(self) -> dict[str, tuple[Any, ...]]:
        """What every arm tries, by dotted setting."""
        return dict(self.__pydantic_extra__)

    @property
    def listed(self) -> list[dict[str, Any]]:
        """Every combination of these values."""
        return _combinations(self.values)

    @property
    def further(self) -> list[dict[str, Any]]:
        """The combinations beyond these that an arm may come to by `extend`."""
        known, values = self.listed, self.values
        every = _combinations({path: (*values[path], *self.beyond(path)) for path in values})
        return [settings for settings in every if settings not in known]

    def beyond(self, path: str) -> tuple[float, ...]:
        """What an arm may try of the setting `path` after its values, the nearest first."""
        tried = self.values[path]
        if len(set(map(str, tried))) < 3 or any(
            type(v) not in (int, float) or v <= 0 for v in tried
        ):
            return ()
        values = sorted(tried)
        ends = ((values[1], values[0]), (values[-2], values[-1]))
        return tuple(
            value for before, last in ends for value in _continued(before, last, self.extend)
        )

    @model_validator(mode="after")
    def _tries_something(self) -> "Tune":
        if not self.values:
            raise ValueError("nothing to tune: give a setting, e.g. train.learning_rate: [...]")
        if self.race and len(self.seeds) < 2:
            raise ValueError("`race` needs two `seeds` at least: one says nothing of its spread")
        if 0 < self.race <= len(self.seeds):
            count = len(self.seeds)
            raise ValueError(f"`race` is how many seeds there are at most, and `seeds` are {count}")
        if self.race_seeds and self.race_seeds[-1] >= 2**32:
            raise ValueError(f"`race` comes to seeds beyond the last, {2**32 - 1}")
        return self


def _combinations(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]


def _continued(before: float, last: float, count: int) -> Iterator[float]:
    """Values that go on from `last` by its ratio to `before`, as long as they differ."""
    whole = type(before) is type(last) is int
    for _ in range(count):
        exact = last * (last / before)
        if not math.isfinite(exact):
            return
        before, last = last, round(exact) if whole else float(f"{exact:.6g}")
        if last in (0, before):
            return
        yield last
