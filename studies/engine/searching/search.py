"""The stage in which Optuna chooses the points of one arm: what a point is, and which is best.

Points are trained one after the other, each chosen from the results of those before it; what is
reported on test plays no part (docs/studies.md). The history of a search are its trials' files;
Optuna's database can be rebuilt from them.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from studies.engine.definition.points import Point, apply
from studies.engine.definition.sections import Domain, Range, Search
from studies.engine.definition.study import Study
from studies.engine.planning import runs
from studies.engine.planning.edits import finished
from studies.engine.planning.plan import prepared
from studies.engine.records import Result, Trial

Settings = Mapping[str, Any]
Make = Callable[[int, Settings], Trial]
"""From a point's number and settings to its trial."""


class Proposal(NamedTuple):
    """A point that a sampler asked for."""

    number: int
    point: int
    """Which point of the search it is, from 1; the same point asked again keeps it."""
    settings: dict[str, Any]
    running: bool
    """Whether the sampler waits for what it found."""


def plan_search(study: Study) -> Make:
    """What makes the trials of the study's search."""
    points, make = prepared(study)
    return make_point(study, next(p for p in points if p.arm == search_of(study).arm), make)


def make_point(study: Study, arm: Point, make: Callable[..., Trial]) -> Make:
    """What makes the trials of `study`'s search from the arm that it is about."""
    search = search_of(study)
    space = space_of(search)

    def point(number: int, settings: Settings) -> Trial:
        tried = replace(apply(arm, settings), swept={**arm.swept, **settings})
        about = {"candidate": dict(settings), "point": number, "asked": {space: number}}
        return make(search.seed, tried, stage="search", **about)

    return point


def search_of(study: Study) -> Search:
    """The section `search` of a study that has one."""
    assert study.search is not None
    return study.search


def space_of(search: Search) -> str:
    """8 hex digits of the search's space: a wider or a narrower one has a history of its own."""
    return _digits(sorted((path, repr(domain)) for path, domain in search.space.items()))


def identity(study: Study, make: Make) -> str:
    """8 hex digits of everything that the sampler's rows depend on: with others it begins anew."""
    search = search_of(study)
    low = lowest(search)
    lists = {path: d for path, d in search.space.items() if not isinstance(d, Range)}
    # a plug-in counts where any point may use it
    plugins = {h for p, d in lists.items() for v in d for h in make(1, low | {p: v}).plugin_hashes}
    more = (sorted(plugins),) if plugins else ()
    return _digits((search.space, search.objectives, make(1, low).key, *more))


def _digits(content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:8]


def lowest(search: Search) -> dict[str, Any]:
    """One point of the space: the lower end of each range, the first of each list."""
    return {p: d.low if isinstance(d, Range) else d[0] for p, d in search.space.items()}


def history(study: Study, make: Make, runs_dir: Path) -> list[tuple[Trial, Result]]:
    """Every point that ended, however it ended, in the order in which they were asked for.

    Points that were chosen from another space do not count, nor do those of an earlier version of
    the study, which would be other trials today.
    """
    search = search_of(study)
    ended = []
    for each in finished(runs.study_dir(study, runs_dir) / "trials"):
        trial = _point_of(search, each)
        if trial is None or trial.point is None:
            continue
        if make(trial.point, trial.candidate).key != trial.key:
            continue
        if (result := runs.result_of(trial, runs_dir)) is not None:
            ended.append((trial, result))
    return sorted(ended, key=lambda each: each[0].point or 0)


def _point_of(search: Search, trial: Trial) -> Trial | None:
    """`trial` where it is a point of `search`; files of version 1 name points by their arms."""
    old = re.fullmatch(rf"{re.escape(search.arm)} #(\d+)", trial.arm)
    if trial.schema_version == 1 and old and set(search.space) <= set(trial.swept):
        settings = {path: trial.swept[path] for path in search.space}
        about = {"arm": search.arm, "stage": "search", "candidate": settings, "point": int(old[1])}
        trial = trial.model_copy(update=about)
    if trial.stage != "search" or trial.arm != search.arm:
        return None
    if trial.asked:
        number = trial.asked.get(space_of(search))
        return None if number is None else trial.model_copy(update={"point": number})
    inside = trial.candidate.keys() == search.space.keys() and all(
        _contains(domain, trial.candidate[path]) for path, domain in search.space.items()
    )
    return trial if inside else None


def values(search: Search, result: Result) -> list[float] | None:
    """The objectives of a finished point; None where it failed, was pruned or lacks one."""
    objectives = [runs.value_of(result, objective.metric) for objective in search.objectives]
    known = [value for value in objectives if value is not None]
    return known if len(known) == len(objectives) else None


def best(search: Search, points: Sequence[tuple[Trial, Result]]) -> Trial | None:
    """The point with the best first objective; the other objectives, in order, break a tie."""
    scored = [(v, trial) for trial, result in points if (v := values(search, result)) is not None]
    return max(scored, key=lambda pair: _signed(search, pair[0]))[1] if scored else None


def front(search: Search, points: Sequence[Sequence[float]]) -> list[bool]:
    """Which of `points` are Pareto-optimal: none is as good in all objectives and better in one."""
    signed = [_signed(search, each) for each in points]

    def beaten(a: Sequence[float]) -> bool:
        return any(all(x >= y for x, y in zip(b, a, strict=True)) and b != a for b in signed)

    return [not beaten(each) for each in signed]


def _signed(search: Search, values: Sequence[float]) -> tuple[float, ...]:
    """The objectives such that more is better."""
    return tuple(
        value if objective.direction == "maximize" else -value
        for value, objective in zip(values, search.objectives, strict=True)
    )


def _contains(domain: Domain, value: Any) -> bool:
    if not isinstance(domain, Range):
        return any(value == each and type(value) is type(each) for each in domain)
    numbers = int if domain.kind == "int" else (int, float)
    return isinstance(value, numbers) and domain.low <= value <= domain.high
