"""The stage before the seeds: every arm tries the same values, and validation chooses one.

`tune: {train.learning_rate: [1.0e-3, 4.0e-3], seeds: [100]}` runs arms × values × seeds as trials
like any other, takes for each arm the values with the best mean of `objective.select_on`, and only
then trains the seeds of the study with them. No arm gets more seeds than another, and the test set
is not looked at. With several tasks every arm chooses on each of them by itself. An arm whose best
is the smallest or largest value gets, by `extend`, one beyond it, until its best lies inside.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from studies.engine.labels import on_task, short_settings
from studies.engine.records import Record, Result, Trial

ResultOf = Callable[[str], Result | None]
"""From a trial's key to its result."""


@dataclass(frozen=True)
class Choice:
    """What validation chose for one arm."""

    arm: str
    settings: Mapping[str, Any]
    """Dotted settings; {} where no value gave a result, and the arm keeps the study's own."""
    scores: tuple[tuple[Mapping[str, Any], float | None], ...]
    """Each combination of values with its mean; None where a seed failed."""
    trials: tuple[Trial, ...] = ()
    """The arm's trials of the study's seeds, where they are known already."""
    task: str = ""
    """On which of several tasks; empty where the study has one alone."""
    extended: bool = False
    """Whether it tried values beyond those that all arms had."""
    close: tuple[Mapping[str, Any], ...] = ()
    """Other settings within one standard error of the chosen ones, paired over the stage's seeds:
    which of them is the best is a matter of chance."""

    @property
    def edges(self) -> dict[str, str]:
        """Chosen settings that are the "smallest" or "largest" of at least three that were tried.

        A better one may lie beyond.
        """
        found: dict[str, str] = {}
        for path, value in self.settings.items():
            tried = [settings[path] for settings, _ in self.scores]
            if all(type(each) in (int, float) for each in tried) and len(set(tried)) > 2:
                found |= {path: "smallest"} if value == min(tried) else {}
                found |= {path: "largest"} if value == max(tried) else {}
        return found

    @property
    def cell(self) -> tuple[str, str]:
        """Arm and task."""
        return self.arm, self.task

    @property
    def title(self) -> str:
        """The arm, and on which of several tasks."""
        return on_task(self.arm, self.task)

    @property
    def score(self) -> float | None:
        """The mean of what was chosen."""
        return next((score for settings, score in self.scores if settings == self.settings), None)


class Candidate(Record):
    """Values that an arm may keep: what scores them, and what it then runs."""

    scored_by: tuple[str, ...]
    """Keys of the tuning trials; none for the arm as the study has it, the last resort."""
    trials: tuple[Trial, ...]
    """The arm's trials of the study's seeds."""
    settings: dict[str, Any]
    """The values, by dotted path; none in the last resort."""
    beyond: bool = False
    """Whether it is tried only once an arm's best is the value before it."""

    @property
    def cell(self) -> tuple[str, str]:
        """Arm and task."""
        return self.trials[0].cell

    @property
    def title(self) -> str:
        """The arm, and on which of several tasks."""
        return on_task(*self.cell)


class Tuning(Record):
    """What each arm may run once its tuning trials have ended."""

    select_on: str
    direction: Literal["maximize", "minimize"]
    arms: tuple[tuple[Candidate, ...], ...]
    """By arm and task; the last candidate of each is the last resort."""
    select_on_of: dict[str, str] = Field(default_factory=dict)
    """By task, where the study has several."""

    may_follow: tuple[Trial, ...] = ()
    """Tuning trials of the candidates beyond those that are listed."""

    def choices(self, result_of: ResultOf) -> list[Choice]:
        """A choice for each arm of which every tuning trial has a result."""
        choices = (self.walk(arm, result_of)[0] for arm in self.arms)
        return [choice for choice in choices if choice is not None]

    def walk(
        self, arm: Sequence[Candidate], result_of: ResultOf
    ) -> tuple[Choice | None, list[Candidate]]:
        """What one of `arms` chooses, and the candidates that its results ask for.

        While some of these have no result it chooses nothing.
        """
        *tried, own = arm
        asked, results = list[Candidate](), dict[str, Result | None]()
        more = [candidate for candidate in tried if not candidate.beyond]
        while more:
            asked += more
            results |= {key: result_of(key) for each in more for key in each.scored_by}
            if None in results.values():
                return None, asked
            choice = self._choice(asked, own, results)
            more = _beyond(tried, asked, choice.edges)
        return choice, asked

    def _choice(
        self, tried: Sequence[Candidate], own: Candidate, results: Mapping[str, Result | None]
    ) -> Choice:
        arm, task = own.cell
        metric = self.select_on_of.get(task, self.select_on)
        values = [_values([results[key] for key in c.scored_by], metric) for c in tried]
        scores = [statistics.fmean(own) if own else None for own in values]
        sign = 1 if self.direction == "maximize" else -1
        known = [(sign * score, -i) for i, score in enumerate(scores) if score is not None]
        place = -max(known)[1] if known else -1  # the first of equals
        best = tried[place] if known else own
        close = [c.settings for c, each in zip(tried, values, strict=True)
                 if known and c is not best and _is_close(each, values[place])]  # fmt: skip
        pairs = tuple((c.settings, score) for c, score in zip(tried, scores, strict=True))
        beyond = any(candidate.beyond for candidate in tried)
        return Choice(arm, best.settings, pairs, best.trials, task, beyond, tuple(close))


def extension(title: str, trials: Sequence[Trial]) -> str:
    """What is said when an arm's results ask for `trials` beyond the listed values."""
    values = dict.fromkeys(short_settings(trial.candidate) for trial in trials)
    tries = "; ".join(values)
    return f"{title}: its best value so far is the last of a list, so it also tries {tries}"


def _beyond(
    tried: Sequence[Candidate], asked: Sequence[Candidate], edges: Mapping[str, str]
) -> list[Candidate]:
    """Those of `tried` with the next value at one of the `edges`, else with what was `asked`."""
    known = {path: [each.settings[path] for each in asked] for path in asked[0].settings}
    for path, end in edges.items():
        sign = 1 if end == "largest" else -1
        last = max(sign * value for value in known[path])
        further = [v for each in tried if (v := sign * each.settings[path]) > last]
        known[path] += [sign * min(further)] if further else []
    reached = [c for c in tried if all(c.settings[path] in known[path] for path in known)]
    return [candidate for candidate in reached if candidate not in asked]


def _values(results: Sequence[Result | None], metric: str) -> list[float]:
    """`metric` of each seed; nothing where a seed failed."""
    values = [
        result.metrics.get(metric, math.nan)
        for result in results
        if result is not None and result.status == "done"
    ]
    whole = len(values) == len(results) and all(map(math.isfinite, values))
    return values if whole else []


def _is_close(values: Sequence[float], best: Sequence[float]) -> bool:
    """Whether the mean difference is at most its standard error; one seed tells nothing."""
    if not values or len(values) < 2:
        return False
    differences = [b - v for b, v in zip(best, values, strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return abs(statistics.fmean(differences)) <= error
