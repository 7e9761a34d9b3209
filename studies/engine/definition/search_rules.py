"""What the section `search` may say: a space that the arm can have, metrics of validation."""

import math
from collections.abc import Iterator, Mapping, Sequence

from basis_zoo.registry import did_you_mean
from studies.engine.definition import checks
from studies.engine.definition.points import Point, Problems, is_choosable, no_arm, refusal
from studies.engine.definition.sections import Domain, Range, SearchObjective
from studies.engine.definition.study import Study
from studies.engine.definition.task_rules import COSTS


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
        problems.at(message, "search", *where)

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
        for message in _refused(objective, i == 0, metrics):
            problems.add(study.place("search", "objectives", i), f"search.objectives.{i}", message)
    arms = {point.arm: point for point in points}
    if search.arm not in arms:
        problem(no_arm(search.arm, arms), "arm")
        return
    for path, domain in search.space.items():
        where = ("search", "space", path)
        if path in arms[search.arm].factors:
            problem(f"the arm '{search.arm}' sets a multiple of it: remove that", "space", path)
        if is_choosable(path, problems, *where):
            # the arm with each value, each end of a range, by itself
            for value in (domain.low, domain.high) if isinstance(domain, Range) else domain:
                if why := refusal(arms[search.arm], path, value, checks.check_adapter):
                    problems.at(why, *where)


def _refused(objective: SearchObjective, first: bool, metrics: Mapping[str, str]) -> Iterator[str]:
    """Why the search cannot go by `objective`; the `first` one chooses."""
    metric, direction = objective.metric, objective.direction
    valid = [f"valid/{name}" for name in metrics]
    known = [*valid, *COSTS]
    if metric.startswith("test/"):
        yield f"choices are made on validation, never on test: valid/{metric[5:]}"
    elif metric not in (valid if first else known):
        hint = did_you_mean(metric, known)
        which = "the first objective is one of" if first else "Known:"
        yield f"'{metric}' cannot be searched by.{hint} {which} {', '.join(valid)}"
    better = metrics.get(metric.removeprefix("valid/"), direction)
    if better != direction:
        yield f"'{metric}' is to {better}, got {direction}"
