"""What a search found, as values: every point, the Pareto set, and what each setting decides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studies.engine.definition.sections import Search
from studies.engine.definition.study import Study
from studies.engine.records import Result, Trial, value_of
from studies.engine.searching import search

FEW_POINTS = 10
"""Below this many finished points importances say nothing."""


@dataclass(frozen=True)
class SearchPoint:
    """One point."""

    name: str
    settings: Mapping[str, Any]
    state: str
    """done, pruned or failed."""
    values: tuple[float, ...]
    """The objectives; empty unless done."""
    reported: float | None
    """The study's metric, on test: not looked at by the search."""
    message: str
    """Why it is not done."""
    on_front: bool
    chosen: bool


@dataclass(frozen=True)
class SearchOutcome:
    """A whole search, however far it is."""

    arm: str
    sampler: str
    trials: int
    seed: int
    metrics: tuple[str, ...]
    """The objectives."""
    directions: tuple[str, ...]
    reported: str
    """The study's metric."""
    points: tuple[SearchPoint, ...]
    """In the order in which they were asked for."""
    importances: tuple[Mapping[str, float], ...]
    """For each objective, setting to share ({} where none decides it); empty where too few points
    are done."""

    @property
    def front(self) -> tuple[SearchPoint, ...]:
        """The Pareto set, the best first objective first."""
        sign = -1 if self.directions[0] == "maximize" else 1
        members = (point for point in self.points if point.on_front)
        return tuple(sorted(members, key=lambda point: sign * point.values[0]))


def state(spec: Search, result: Result) -> str:
    """How a point ended: done, pruned or failed."""
    if search.values(spec, result) is not None:
        return "done"
    return "pruned" if result.pruned else "failed"


def gather(study: Study, history: Sequence[tuple[Trial, Result]]) -> SearchOutcome:
    """The search of `study` whose ended points are `history`."""
    spec = search.search_of(study)
    values = {t.key: tuple(v) for t, r in history if (v := search.values(spec, r)) is not None}
    on_front = dict(zip(values, search.front(spec, list(values.values())), strict=True))
    chosen = search.best(spec, history)
    done = [(trial.candidate, values[trial.key]) for trial, _ in history if trial.key in values]
    shares: Sequence[Mapping[str, float]] = ()
    if len(done) >= FEW_POINTS:
        from studies.engine.searching.optuna_storage import importances  # with Optuna

        shares = importances(spec, done)
    return SearchOutcome(
        arm=spec.arm,
        sampler=spec.sampler,
        trials=spec.trials,
        seed=spec.seed,
        metrics=tuple(objective.metric for objective in spec.objectives),
        directions=tuple(objective.direction for objective in spec.objectives),
        reported=study.objective.metric,
        points=tuple(
            SearchPoint(
                name=trial.label,
                settings=trial.candidate,
                state=state(spec, result),
                values=values.get(trial.key, ()),
                reported=value_of(result, study.objective.metric),
                message="" if result.failure is None else result.failure.message,
                on_front=on_front.get(trial.key, False),
                chosen=chosen is not None and trial.key == chosen.key,
            )
            for trial, result in history
        ),
        importances=tuple(shares),
    )
