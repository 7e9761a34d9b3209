r"""What a claim is about, as one weighted sum of arms: $d = \sum_i w_i\, y_i$ for each seed.

Every form of a claim is such a sum. `arm` against `than` is $y_a - y_b$; `beyond` takes a second
difference off; `contrast` gives the weights themselves; and `trend` is the least-squares slope of
the arms' values over $x_i$, the swept setting or its log2, which is linear in them too:

$$w_i = \frac{x_i - \bar x}{\sum_j (x_j - \bar x)^2}$$
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from studies.engine.definition.points import Point, expand, no_arm, value_at
from studies.engine.definition.study import ClaimRule, Study, Trend
from studies.engine.labels import flat, short_value

Where = tuple[str, ...]
"""Keys that lead from a claim down to what is meant."""


class NoTrend(ValueError):
    """The arms of a study have no such trend."""

    def __init__(self, message: str, *where: str) -> None:
        super().__init__(message)
        self.where: Where = where


@dataclass(frozen=True)
class Term:
    """A number in a sum."""

    weight: float
    of: str | float
    """The arm whose number it is, or the number."""
    metric: str | None = None
    """Which number of the arm; None: the study's objective."""
    unit: "Term | None" = None
    """The number in whose size this one is measured, as a share of it."""


@dataclass(frozen=True)
class WeightedSum:
    """What a claim says something of, for each seed that all its arms share."""

    terms: tuple[Term, ...]
    text: str
    """In symbols."""


def weighted_sum(claim: ClaimRule, points: Sequence[Point]) -> WeightedSum:
    """What `claim` is about, in a study whose arms are `points`.

    Raises `NoTrend` where it is a trend, and the study has not the arms for it.
    """
    than = [] if claim.than is None else [Term(-1.0, claim.than, claim.metric)]
    if claim.trend is not None:
        return _trend(claim, claim.trend, points)
    if claim.contrast is not None:
        given = [Term(weight, arm, claim.metric) for arm, weight in claim.contrast.items()]
        return WeightedSum((*given, *than), _symbols([*given, *than]))
    assert claim.arm is not None and claim.than is not None, "ClaimRule asks for both"
    terms = _difference(claim, claim.arm, claim.than)
    if claim.beyond is not None:
        taken_off = _difference(claim, claim.beyond.arm, claim.beyond.than)
        terms += [replace(term, weight=-term.weight) for term in taken_off]
    share = f" as a share of {_name(terms[1])}" if claim.relative else ""
    return WeightedSum(tuple(terms), f"{_symbols(terms)}{share}")


def trend_points(study: Study) -> list[Point]:
    """The arms that trends are about; none where no claim is about a trend."""
    points = expand(study)[0] if any(claim.trend is not None for claim in study.claims) else []
    return [point for point in points if point.task == points[0].task]  # alike on each task


def problems(claim: ClaimRule, points: Sequence[Point]) -> Iterator[tuple[Where, str]]:
    """What is wrong with the arms that `claim` names, in a study whose arms are `points`."""
    arms = [point.arm for point in points]
    named: list[tuple[Where, Any]] = [(("arm",), claim.arm), (("than",), claim.than)]
    if claim.beyond is not None:
        named += [(("beyond", key), getattr(claim.beyond, key)) for key in ("arm", "than")]
    named += [(("contrast", arm), arm) for arm in claim.contrast or ()]
    unknown = [(where, arm) for where, arm in named if isinstance(arm, str) and arm not in arms]
    for where, arm in unknown:
        yield where, no_arm(arm, arms)
    if claim.trend is not None and not unknown:
        try:
            _trend(claim, claim.trend, points)
        except NoTrend as error:
            yield ("trend", *error.where), str(error)


def _difference(claim: ClaimRule, arm: str, than: str | float) -> list[Term]:
    base = Term(-1.0, than, claim.than_metric or claim.metric)
    pair = [Term(1.0, arm, claim.metric), base]
    return [replace(term, unit=base) for term in pair] if claim.relative else pair


def _symbols(terms: Sequence[Term]) -> str:
    """`all` − 2 `attention` + `lora`; a metric is named where it is not that of the first."""
    parts = []
    for term in terms:
        sign = "+" if term.weight > 0 else "−"
        factor = "" if abs(term.weight) == 1 else f"{abs(term.weight):g} "
        other = f" (its {term.metric})" if term.metric != terms[0].metric else ""
        parts.append(f"{sign} {factor}{_name(term)}{other}")
    return " ".join(parts).removeprefix("+ ")


def _name(term: Term) -> str:
    return f"`{term.of}`" if isinstance(term.of, str) else f"{term.of:g}"


def _trend(claim: ClaimRule, trend: Trend, points: Sequence[Point]) -> WeightedSum:
    """The slope over the arms that differ from `claim.arm` in one setting alone.

    From it is taken that over the arms of `claim.than`, or the number `claim.than`.
    """
    along = _series(trend, points, claim.arm)
    terms = _slope(trend, along, claim.metric)
    text = f"slope of {_ends(along)}"
    if isinstance(claim.than, str):
        other = _series(trend, points, claim.than)
        if sorted(along.values()) != sorted(other.values()):
            values = [", ".join(f"{v:g}" for v in sorted(s.values())) for s in (along, other)]
            raise NoTrend(
                f"the arms like '{claim.than}' have other values of {trend.over} than those that "
                f"they are compared with: {values[1]} instead of {values[0]}", "over"
            )  # fmt: skip
        opposite = _slope(trend, other, claim.than_metric or claim.metric)
        terms += [replace(term, weight=-term.weight) for term in opposite]
        text += f" − slope of {_ends(other)}"
    elif claim.than is not None:
        terms.append(Term(-1.0, claim.than, claim.metric))
        text += f" − {claim.than:g}"
    step = "per doubling" if trend.scale == "log2" else "per unit"
    return WeightedSum(tuple(terms), f"{text}, {step} of {trend.over}")


def _ends(series: dict[str, float]) -> str:
    first, *_, last = sorted(series, key=series.__getitem__)
    return f"`{first}` … `{last}`"


def _slope(trend: Trend, series: dict[str, float], metric: str | None) -> list[Term]:
    """The least-squares slope of the metric of the arms in `series` over their values."""
    if trend.scale == "log2":
        lowest = min(series, key=series.__getitem__)
        if series[lowest] <= 0:
            raise NoTrend(
                f"log2 takes numbers above 0, and the arm '{lowest}' has {trend.over}: "
                f"{series[lowest]:g}; say scale: linear, or leave the arm out", "scale"
            )  # fmt: skip
        series = {arm: math.log2(value) for arm, value in series.items()}
    middle = math.fsum(series.values()) / len(series)
    square = math.fsum((x - middle) ** 2 for x in series.values())
    return [Term((x - middle) / square, arm, metric) for arm, x in series.items()]


def _series(trend: Trend, points: Sequence[Point], arm: str | None) -> dict[str, float]:
    """Arms that differ in `trend.over` alone, with their values of it: those with `arm`, if given.

    Raises `NoTrend` where these are fewer than three, of several groups, or values are no numbers.
    """
    groups: dict[str, list[Point]] = {}
    for point in points:
        if value_at(point.config, trend.over) is not None:
            groups.setdefault(_rest(point, trend.over), []).append(point)
    candidates = [
        group
        for group in groups.values()
        if (len(group) > 2 if arm is None else any(point.arm == arm for point in group))
    ]
    if len(candidates) > 1:
        examples = " or ".join(f"arm: {group[0].arm}" for group in candidates)
        raise NoTrend(
            f"{len(candidates)} groups of arms differ in {trend.over} alone; say which is meant by "
            f"one of its arms, {examples}", "over"
        )  # fmt: skip
    group = candidates[0] if candidates else max(groups.values(), key=len, default=[])
    if len(group) < 3:
        have = ", ".join(short_value(value_at(point.config, trend.over)) for point in group)
        like = "arms" if arm is None else f"arms like '{arm}'"
        raise NoTrend(
            f"a slope needs three values, and the {like} that differ in {trend.over} alone have "
            f"{have or 'none'}", "over"
        )  # fmt: skip
    series = {point.arm: value_at(point.config, trend.over) for point in group}
    for name, value in series.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            has = f"the arm '{name}' has {trend.over}: {short_value(value)}"
            raise NoTrend(f"a slope needs numbers, and {has}", "over")
    return {name: float(value) for name, value in series.items()}


def _rest(point: Point, path: str) -> str:
    """The configuration of `point` without the setting at `path`."""
    without = (f"{path}.", "match.")
    settings = flat(point.config).items()
    rest = {key: value for key, value in settings if not f"{key}.".startswith(without)}
    return json.dumps(rest, sort_keys=True, default=repr)
