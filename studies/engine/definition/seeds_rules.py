"""The section `seeds`: a list, or seeds that are added until every claim is decided."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    TypeAdapter,
    ValidationInfo,
    WrapValidator,
    field_validator,
)

from studies.sections import Int, Section, check_rise

MOST = 10_000
"""Seeds of a study that goes on until it is decided: its trials are planned to the last."""


def _differ(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if repeated := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        raise ValueError(f"each seed once, got {', '.join(map(str, repeated))} repeatedly")
    return seeds


SeedList = Annotated[
    tuple[Annotated[Int, Field(ge=0, lt=2**32)], ...],
    Field(min_length=1),
    AfterValidator(_differ),
]


class UntilDecided(Section):
    """Instead of a list: how many seeds there are at least and at most.

    Every arm is trained with `at_least` seeds. Then all claims are judged, and the arms of those
    that are not decided get more seeds, look by look, until nothing is open or `at_most` is
    reached. All looks and claims together err in at most 5 % of studies.
    """

    at_least: Annotated[Int, Field(ge=2, le=MOST, examples=[5])]
    """Seeds of every arm, after which claims are judged for the first time."""
    at_most: Annotated[Int, Field(ge=2, le=MOST, examples=[40])]
    """Seeds of an arm whose claims stay open to the last look."""
    until: Literal["decided"]
    """What ends the study: that each claim is confirmed, refuted or bounded."""
    looks: Annotated[
        Annotated[tuple[Int, ...], Field(min_length=1)] | None, Field(examples=[[5, 10, 20, 40]])
    ] = None
    """After how many seeds claims are judged, from `at_least` to `at_most`; null: `at_least`,
    doubled as long as half as many again are left for the last look."""
    first: Int = Field(0, ge=0, lt=2**32)
    """The first seed; the others follow it one by one."""

    @field_validator("at_most")
    @classmethod
    def _is_no_less(cls, at_most: int, about: ValidationInfo) -> int:
        at_least = about.data.get("at_least")
        if at_least is not None and at_most < at_least:
            raise ValueError(f"expected at least {at_least}, as `at_least` says, got {at_most}")
        return at_most

    @field_validator("looks")
    @classmethod
    def _rise(cls, looks: tuple[int, ...] | None, about: ValidationInfo) -> tuple[int, ...] | None:
        ends = [about.data.get(key) for key in ("at_least", "at_most")]
        if looks is None or None in ends:  # of an end that is wrong itself enough is said
            return looks
        check_rise(looks, "numbers of seeds")
        if [looks[0], looks[-1]] != ends:
            raise ValueError(
                f"expected {ends[0]} (`at_least`) as the first look and {ends[1]} (`at_most`) as "
                f"the last, got {', '.join(map(str, looks))}"
            )
        return looks

    @field_validator("first")
    @classmethod
    def _leaves_room(cls, first: int, about: ValidationInfo) -> int:
        if first + (at_most := about.data.get("at_most", 0)) > 2**32:
            raise ValueError(f"{at_most} seeds from {first} on go beyond the last, {2**32 - 1}")
        return first

    @property
    def sizes(self) -> tuple[int, ...]:
        """After how many seeds claims are judged."""
        if self.looks is not None:
            return self.looks
        sizes = [self.at_least]
        while sizes[-1] < self.at_most:
            doubled = 2 * sizes[-1]  # a last look for a few seeds more costs its share of the error
            sizes.append(doubled if 3 * doubled <= 2 * self.at_most else self.at_most)
        return tuple(sizes)

    @property
    def seeds(self) -> tuple[int, ...]:
        """All that may be trained, in order."""
        return tuple(range(self.first, self.first + self.at_most))


_LIST = TypeAdapter(SeedList)


def _either(given: Any, _: Any) -> tuple[int, ...] | UntilDecided:
    """By itself pydantic would say of each why it is none of the two."""
    if isinstance(given, UntilDecided | Mapping):
        return UntilDecided.model_validate(given)
    if not isinstance(given, list | tuple):
        message = "expected a list, or {at_least: 5, at_most: 40, until: decided}"
        raise ValueError(f"{message}, got {given!r}")
    return _LIST.validate_python(given)


Seeds = Annotated[SeedList | UntilDecided, WrapValidator(_either)]
