"""The stage in which Optuna chooses the points of one arm: what a point is, and which is best.

`search: {arm: phi, trials: 40, space: {...}, objectives: [...], seed: 100}` trains one point after
the other, each chosen from the results of those before it, all with one seed. The point with the
best first objective, which is measured on validation, then becomes the arm, and the seeds of the
study are trained with it: what is reported of the arm on test played no part in choosing it.

The history of a search are its trials' files; Optuna's database can be rebuilt from them.
"""

import hashlib
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from basis_zoo.registry import did_you_mean
from studies.engine import runs
from studies.engine.definition import checks
from studies.engine.definition.points import Point, Problems, is_choosable
from studies.engine.definition.sections import Domain, Range, Search
from studies.engine.definition.study import Study
from studies.engine.planning import tuning
from studies.engine.records import Cost, Result, Trial, read_trial, value_of

Settings = Mapping[str, Any]
Make = Callable[[int, Settings], Trial]
"""From a point's number and settings to its trial."""


def make_point(study: Study, arm: Point, make: Callable[[int, Point], Trial]) -> Make:
    """What makes the trials of `study`'s search from the arm that it is about."""
    search = wanted(study)

    def point(number: int, settings: Settings) -> Trial:
        tried = tuning.apply(arm, settings)
        name, swept = f"{arm.arm} #{number}", {**arm.swept, **settings}
        return make(search.seed, replace(tried, arm=name, swept=swept))

    return point


def wanted(study: Study) -> Search:
    """The section `search` of a study that has one."""
    assert study.search is not None
    return study.search


def settings_of(search: Search, trial: Trial) -> dict[str, Any]:
    """The searched settings of a point."""
    return {path: trial.swept[path] for path in search.space}


def identity(study: Study, make: Make) -> str:
    """8 hex digits of everything that a search's history depends on: another one is another."""
    search = wanted(study)
    lowest = {p: d.low if isinstance(d, Range) else d[0] for p, d in search.space.items()}
    content = repr((search.space, search.objectives, make(0, lowest).key))
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def ordinal(trial: Trial) -> int:
    """Which point of its search `trial` is."""
    return int(trial.arm.rpartition("#")[2])


def history(study: Study, make: Make, runs_dir: Path) -> list[tuple[Trial, Result]]:
    """Every point that ended, however it ended, in the order in which they were asked for.

    Points of an earlier version of the study, which would be other trials today, do not count.
    """
    search = wanted(study)
    found = []
    for file in (runs.study_dir(study, runs_dir) / "trials").glob("*/trial.json"):
        trial = read_trial(file.parent)
        is_point = re.fullmatch(rf"{re.escape(search.arm)} #\d+", trial.arm)
        if not is_point or not set(search.space) <= set(trial.swept):
            continue
        settings = settings_of(search, trial)
        inside = all(_contains(domain, settings[path]) for path, domain in search.space.items())
        if not inside or make(ordinal(trial), settings).key != trial.key:
            continue
        if (result := runs.result_of(trial, runs_dir)) is not None:
            found.append((ordinal(trial), trial, result))
    return [(trial, result) for _, trial, result in sorted(found, key=lambda each: each[0])]


def values(search: Search, result: Result) -> list[float] | None:
    """The objectives of a finished point; None where it failed, was pruned or lacks one."""
    if result.status != "done":
        return None
    found = [value_of(result, objective.metric) for objective in search.objectives]
    known = [value for value in found if value is not None]
    return known if len(known) == len(found) else None


def best(search: Search, points: Sequence[tuple[Trial, Result]]) -> Trial | None:
    """The point with the best first objective; the other objectives, in order, break a tie."""
    scored = [(v, trial) for trial, result in points if (v := values(search, result)) is not None]
    if not scored:
        return None
    return max(scored, key=lambda pair: _signed(search, pair[0]))[1]


def front(search: Search, found: Sequence[Sequence[float]]) -> list[bool]:
    """Which of `found` no other is as good as in all objectives and better than in one."""
    signed = [_signed(search, each) for each in found]

    def beaten(a: Sequence[float]) -> bool:
        return any(all(x >= y for x, y in zip(b, a, strict=True)) and b != a for b in signed)

    return [not beaten(each) for each in signed]


def _signed(search: Search, found: Sequence[float]) -> tuple[float, ...]:
    """The objectives such that more is better."""
    return tuple(
        value if objective.direction == "maximize" else -value
        for value, objective in zip(found, search.objectives, strict=True)
    )


def draw(space: Mapping[str, Domain], generator: random.Random) -> dict[str, Any]:
    """A random point of `space`."""
    return {path: _draw(domain, generator) for path, domain in space.items()}


def _draw(domain: Domain, generator: random.Random) -> Any:
    if not isinstance(domain, Range):
        return generator.choice(domain)
    if domain.kind == "int" and not domain.log:
        return generator.randint(int(domain.low), int(domain.high))
    if not domain.log:
        return generator.uniform(domain.low, domain.high)
    value = math.exp(generator.uniform(math.log(domain.low), math.log(domain.high)))
    return min(max(round(value), domain.low), domain.high) if domain.kind == "int" else value


def _contains(domain: Domain, value: Any) -> bool:
    if not isinstance(domain, Range):
        return any(value == each and type(value) is type(each) for each in domain)
    numbers = int if domain.kind == "int" else (int, float)
    return isinstance(value, numbers) and domain.low <= value <= domain.high


def size(space: Mapping[str, Domain]) -> float:
    """How many points `space` has."""
    return math.prod(
        (math.inf if domain.kind == "float" else domain.high - domain.low + 1)
        if isinstance(domain, Range)
        else len(domain)
        for domain in space.values()
    )


def check(
    study: Study, points: Sequence[Point], metrics: Mapping[str, str], problems: Problems
) -> None:
    """Report what the section `search` cannot mean; `metrics` are those of the task."""
    search = study.search
    if search is None:
        return

    def problem(message: str, *where: str | int) -> None:
        key = ".".join(map(str, ("search", *where)))
        problems.add(study.place("search", *where), key, message)

    if study.tune:
        problem("a study tunes or searches: remove `tune` or `search`")
    if study.match is not None and "adapter.r" in search.space:
        problem("`match` chooses the rank: search it or match it", "space", "adapter.r")
    if search.seed in study.seeds:
        problem(f"{search.seed} is one of `seeds`: what is chosen must be tried anew", "seed")
    if search.pruning is not None and study.train.eval_every is None:
        problem("needs validation on the way: set train.eval_every", "pruning")
    if search.trials > size(search.space):
        problem(f"the space has only {size(search.space):.0f} points", "trials")
    for i, objective in enumerate(search.objectives):
        _check_objective(objective.metric, objective.direction, i, metrics, problem)
    arms = {point.arm: point for point in points}
    if search.arm not in arms:
        hint = did_you_mean(search.arm, arms)
        problem(f"no arm is called '{search.arm}'.{hint} Arms: {', '.join(arms)}", "arm")
    else:
        _check_space(study, search, arms[search.arm], problems)


def _check_objective(
    metric: str,
    direction: str,
    i: int,
    metrics: Mapping[str, str],
    problem: Callable[..., None],
) -> None:
    known = [f"valid/{name}" for name in metrics]
    costs = [f"cost/{name}" for name in Cost.model_fields]
    where = ("objectives", i)
    if metric.startswith("test/"):
        problem(f"choices are made on validation, never on test: valid/{metric[5:]}", *where)
    elif metric not in (known if i == 0 else [*known, *costs]):
        hint = did_you_mean(metric, [*known, *costs])
        which = "the first objective is one of" if i == 0 else "Known:"
        problem(f"'{metric}' cannot be searched by.{hint} {which} {', '.join(known)}", *where)
    better = metrics.get(metric.removeprefix("valid/"), direction)
    if better != direction:
        problem(f"'{metric}' is to {better}, got {direction}", *where)


def _check_space(study: Study, search: Search, arm: Point, problems: Problems) -> None:
    """Build the arm with each value, each end of a range, of the space by itself."""
    for path, domain in search.space.items():
        place, key = study.place("search", "space", path), f"search.space.{path}"
        if not is_choosable(path, place, key, problems):
            continue
        ends = (domain.low, domain.high) if isinstance(domain, Range) else domain
        for value in ends:
            try:
                tried = tuning.apply(arm, {path: value})
                checks.check_adapter(dict(tried.config["adapter"]))
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                problems.add(place, key, f"{first['msg']}, got {value!r}")
            except ValueError as error:
                problems.add(place, key, f"{value!r}: {error}")
