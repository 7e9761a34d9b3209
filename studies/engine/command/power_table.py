"""The tables of `--power`: what numbers of seeds would find, told before they are spent."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from studies.engine.command.power_spread import of_results, stated
from studies.engine.definition.claim_rules import COLLAPSED
from studies.engine.definition.points import expand
from studies.engine.definition.study import ClaimRule, Study
from studies.engine.labels import counted
from studies.engine.records import Trial
from studies.engine.verdicts import power, sign_power
from studies.engine.verdicts.claims import seeds_if_none_collapses
from studies.engine.verdicts.looks import shares
from studies.engine.verdicts.power import MOST, SHARE, one_sided_level
from studies.engine.verdicts.spread import Spread
from studies.engine.verdicts.statistics import ALPHA

ROWS = (5, 10, 20, 40, 80, 160)
"""Numbers of seeds that are shown beside the study's own."""

Needed = Callable[[float], int | None]
"""From a one-sided level to the seeds that a test at it needs."""


def power_table(
    study: Study, trials: Sequence[Trial], runs_dir: Path, spread: float | None
) -> RenderableType:
    """What numbers of seeds would find, and what the claims need.

    The spread is `spread`, or that of results in `runs_dir` of the arms of `trials`; raises
    `StudyError` where there are none.
    """
    spreads = of_results(study, trials, runs_dir) if spread is None else stated(study, spread)
    arms = len({point.arm for point in expand(study)[0]})
    level = one_sided_level(len(study.claims), arms)
    title = Text(f"{study.name} ({study.profile})", style="italic")
    parts: list[RenderableType] = [title, Text("\n".join(_spread_lines(spreads.whole)))]
    parts.append(_by_seeds(study, spreads.whole.value, level))
    parts.append(Text("\n".join(_read(study, arms, level))))
    if study.claims:
        parts += [_by_claim(study, spreads.claims, level), Text("\n".join(_claims_read(study)))]
    return Group(*parts)


def _spread_lines(spread: Spread) -> list[str]:
    lines = [f"spread over seeds of a paired difference: {spread.value:.3g}, {spread.source}"]
    if spread.interval is not None:
        low, high = spread.interval
        lines.append(
            f"95% interval of it: {low:.3g} to {high:.3g}; at its ends the same is found with "
            f"{(low / spread.value) ** 2:.2g} to {(high / spread.value) ** 2:.2g} times the seeds"
        )
    return lines


def _by_seeds(study: Study, spread: float, level: float) -> Table:
    own, growing = study.looks, study.until_decided
    share = dict(zip(own, shares(len(own)), strict=True))
    table = Table()
    columns = ["seeds", "smallest difference found", "smallest bound"]
    columns += ["found at this look", "bound at this look"] if growing else []
    for column in columns:
        table.add_column(column, justify="right")
    for n in sorted({*ROWS, *own}):
        cells = list(_smallest(n, spread, level))
        if growing:
            cells += _smallest(n, spread, level * share[n]) if n in share else ("", "")
        name = f"{n} ({'at most' if growing else 'this study'})" if n == own[-1] else str(n)
        table.add_row(name, *cells)
    return table


def _smallest(n: int, spread: float, level: float, tests: ModuleType = power) -> tuple[str, str]:
    """What `n` seeds find, and what they bound where there is nothing to find."""
    smallest, bound = (of(n, level) * spread for of in (tests.detectable, tests.boundable))
    if math.isinf(smallest):
        return "none", "none"
    digits = max(0, 1 - math.floor(math.log10(spread / 4)))  # two of what most seeds find
    return f"{smallest:.{digits}f}", f"{bound:.{digits}f}"


def _read(study: Study, arms: int, level: float) -> list[str]:
    """How to read the table of seeds."""
    if study.claims:
        claims = counted(len(study.claims), "claim")
        test = f"one-sided at {level:.3g}: the {ALPHA:.0%} of all verdicts over {claims}"
    else:
        test = f"two-sided at {2 * level:.3g}, as there are no claims: each arm against "
        test += f"{study.baseline} at the {ALPHA:.0%} of all over {arms - 1}"
    lines = [
        f"in the unit of {study.objective_of().metric}, each in {SHARE:.0%} of studies; a bound is "
        "a difference that is ruled out where there truly is none",
        f"each test is {test} (Holm's first step)",
    ]
    if study.until_decided:
        lines.append(
            "a look has its share of that level; what an earlier look decides stays, so that all "
            "looks together find somewhat more"
        )
    return lines


def _by_claim(study: Study, spreads: Sequence[Spread | str], level: float) -> Table:
    table, last = Table(), study.looks[-1]
    share = shares(len(study.looks))[-1]
    columns = ["claim", "spread", f"{last} seeds find", "where nothing differs"]
    if fine := any(claim.resolution for claim in study.claims):
        columns.append("where it differs by the resolution")
    for column in columns:
        table.add_column(column)
    for claim, spread in zip(study.claims, spreads, strict=True):
        if claim.metric == COLLAPSED:
            spread = _counted(claim, level * share)
        cells = [spread, *["—"] * (len(columns) - 2)] if isinstance(spread, str) else []
        if not isinstance(spread, str):
            tests = sign_power if claim.statistic == "median" else power
            finds, bounds = _smallest(last, spread.value, level * share, tests)
            needs = _needs(claim, spread.value, tests)[: 1 + fine]
            decided = (_words(study, level, *each) if each else "—" for each in needs)
            size = f"±{bounds}" if claim.expect.endswith("within") else finds
            cells = [_spread(spread), size, *decided]
        table.add_row(claim.claim, *cells)
    return table


def _counted(claim: ClaimRule, level: float) -> str:
    """What a claim about collapsed runs needs, whose exact test has no spread."""
    if isinstance(claim.than, str):
        alone = sign_power.fewest(level)  # McNemar's test is one of signs
        return f"none, runs are counted: decided where one arm alone collapses with {alone} seeds"
    needed = seeds_if_none_collapses(claim, level)
    if needed is None:
        return "none, runs are counted: open if none collapses"
    return f"none, runs are counted: decided with {needed} seeds if none collapses"


def _spread(spread: Spread) -> str:
    if spread.interval is None:
        return f"{spread.value:.3g}"
    low, high = spread.interval
    return f"{spread.value:.3g} [{low:.2g}, {high:.2g}], {spread.source}"


def _needs(
    claim: ClaimRule, spread: float, tests: ModuleType
) -> tuple[tuple[str, Needed] | None, tuple[str, Needed] | None]:
    """The word on a claim whose number is truly 0, or truly the resolution beyond the margin, with
    the seeds that it needs; None where no number of seeds decides."""
    confirmed, refuted = "confirmed", "refuted"
    if claim.expect.startswith("not_"):
        confirmed, refuted = refuted, confirmed
    margin, resolution = claim.margin / spread, (claim.resolution or 0.0) / spread
    if claim.expect.endswith("within"):
        return (confirmed, lambda level: tests.seeds_to_bound(margin, level)), None
    none: tuple[str, Needed] | None = None
    some: tuple[str, Needed] | None = None
    if resolution:
        some = confirmed, lambda level: tests.seeds_needed(resolution, level)
        none = "bounded", lambda level: tests.seeds_to_bound(resolution, level)
    if margin:
        none = refuted, lambda level: tests.seeds_needed(margin, level)
    return none, some


def _words(study: Study, level: float, word: str, needed: Needed) -> str:
    n: int | None = None
    for size, share in zip(study.looks, shares(len(study.looks)), strict=True):
        n = needed(level * share)
        if study.until_decided and n is not None and n <= size:
            return f"{word} at {size}"
    return f"more than {MOST:,}" if n is None else f"{word} with {n}"


def _claims_read(study: Study) -> list[str]:
    claims = study.claims
    lines = {
        f"a claim is decided with so many seeds, or at the look of so many, in {SHARE:.0%} of "
        "studies; ± is the smallest bound on a claim `within`": True,
        "a claim about a median is planned as if differences were normal; a collapsed run is one "
        "seed against the arm, however deep it falls": any(c.statistic == "median" for c in claims),
        "all of it is over seeds alone: claims that are tested over test rows too (keep: "
        "predictions) may need more": "predictions" in study.keep,
        "— for a claim that has neither `margin` nor `resolution`: where nothing differs, no "
        "number of seeds decides it": any(c.resolution is None and c.margin == 0 for c in claims),
    }
    return [line for line, holds in lines.items() if holds]
