"""The stage before the seeds: every arm tries the same values, and validation chooses one.

`tune: {train.learning_rate: [1.0e-3, 4.0e-3], seeds: [100]}` runs arms × values × seeds as trials
like any other, takes for each arm the values with the best mean of `objective.select_on`, and only
then trains the seeds of the study with them. The test set is not looked at. With several tasks
every arm chooses on each of them by itself. An arm whose best is the smallest or largest value
gets, by `extend`, one beyond it, until its best lies inside. By `race` an arm's values that its
seeds do not tell apart get more seeds, round by round, until one is left (racing, as Maron and
Moore 1994 have it).
"""

import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
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
    """Each combination of values with its mean over its seeds; None where one of them failed."""
    trials: tuple[Trial, ...] = ()
    """The arm's trials of the study's seeds, where they are known already."""
    task: str = ""
    """On which of several tasks; empty where the study has one alone."""
    extended: bool = False
    """Whether it tried values beyond those that all arms had."""
    close: tuple[Mapping[str, Any], ...] = ()
    """Other settings within one standard error of the chosen ones, paired over the stage's seeds:
    which of them is the best is a matter of chance."""
    seeds: tuple[int, ...] = ()
    """How many seeds each of `scores` is over; more than the stage's own where there was a race."""

    @property
    def raced(self) -> bool:
        """Whether some values got more seeds than others."""
        return len({*self.seeds}) > 1

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
    """Keys of the tuning trials, those of the race last; none for the arm as the study has it, the
    last resort."""
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

    first: int | None = None
    """How many of its tuning trials score a candidate at first, the rest being the race's; None:
    all."""
    may_follow: tuple[Trial, ...] = ()
    """Tuning trials of the candidates beyond those that are listed, and of the race."""

    def choices(self, result_of: ResultOf) -> list[Choice]:
        """A choice for each arm of which every tuning trial has a result."""
        choices = (self.walk(arm, result_of)[0] for arm in self.arms)
        return [choice for choice in choices if choice is not None]

    def walk(
        self, arm: Sequence[Candidate], result_of: ResultOf
    ) -> tuple[Choice | None, list[str]]:
        """What one of `arms` chooses, and the keys of the tuning trials that it asks for so far.

        While some of these have no result it chooses nothing.
        """
        *tried, own = arm
        first = self.first or max((len(each.scored_by) for each in tried), default=0)
        counts = {i: first for i, each in enumerate(tried) if not each.beyond}
        results = dict[str, Result | None]()
        while True:
            keys = [key for i, count in counts.items() for key in tried[i].scored_by[:count]]
            results |= {key: result_of(key) for key in keys if key not in results}
            if None in results.values():
                return None, keys
            field = self._field(tried, counts, results)
            choice = field.choice(tried, own)
            more = field.further(tried, first, choice.edges)
            if not more:
                return choice, keys
            counts |= more

    def _field(
        self,
        tried: Sequence[Candidate],
        counts: Mapping[int, int],
        results: Mapping[str, Result | None],
    ) -> "_Field":
        metric = self.select_on_of.get(tried[0].cell[1], self.select_on)
        sign = 1 if self.direction == "maximize" else -1
        return _Field(
            {
                i: [sign * v for v in _values([results[k] for k in tried[i].scored_by[:n]], metric)]
                for i, n in counts.items()
            },
            counts,
            sign,
        )


class _Field:
    """The candidates of an arm that have been tried, by place, and how well each did by seed."""

    def __init__(
        self, values: Mapping[int, list[float]], counts: Mapping[int, int], sign: int
    ) -> None:
        """`values` are the better the larger, and none of a candidate of which a seed failed."""
        self._values, self._counts, self._sign = values, counts, sign
        known = [(len(own), statistics.fmean(own), -i) for i, own in values.items() if own]
        self._best = (
            -max(known)[2] if known else None
        )  # of the longest in the race; first of equals
        self._close = [i for i in values if self._is_close(i)]

    def choice(self, tried: Sequence[Candidate], own: Candidate) -> Choice:
        """The best; `own`, the arm as the study has it, where none gave a result."""
        arm, task = own.cell
        best = own if self._best is None else tried[self._best]
        return Choice(
            arm,
            best.settings,
            tuple((tried[i].settings, self._mean(i)) for i in self._counts),
            best.trials,
            task,
            extended=any(tried[i].beyond for i in self._counts),
            close=tuple(tried[i].settings for i in self._close),
            seeds=tuple(self._counts.values()),
        )

    def further(
        self, tried: Sequence[Candidate], first: int, edges: Mapping[str, str]
    ) -> dict[int, int]:
        """Candidates to be tried with more seeds, by place: how many each gets; none at the end."""
        if self._best is None:
            return {}
        if beyond := _beyond(tried, [tried[i] for i in self._counts], edges):
            return {tried.index(each): first for each in beyond}
        best = self._values[self._best]
        rivals = [i for i in self._close if self._values[i] != best[: len(self._values[i])]]
        if behind := [i for i in rivals if self._counts[i] < len(best)]:
            return dict.fromkeys(behind, len(best))
        more = min(2 * len(best), len(tried[self._best].scored_by))
        return dict.fromkeys([self._best, *rivals], more) if rivals and more > len(best) else {}

    def _mean(self, i: int) -> float | None:
        return self._sign * statistics.fmean(self._values[i]) if self._values[i] else None

    def _is_close(self, i: int) -> bool:
        """Whether the best is not better by more than a standard error, on the seeds they share.

        One seed tells nothing.
        """
        if self._best is None or self._best == i or len(self._values[i]) < 2:
            return False
        pairs = zip(self._values[self._best], self._values[i], strict=False)
        ahead = [best - value for best, value in pairs]
        return statistics.fmean(ahead) <= statistics.stdev(ahead) / math.sqrt(len(ahead))


def extension(title: str, trials: Sequence[Trial], known: Collection[Mapping[str, Any]]) -> str:
    """What is said when results ask for `trials` of an arm that has tried the settings `known`."""
    tried = {short_settings(trial.candidate): trial.candidate in known for trial in trials}
    more = "; ".join(name for name, before in tried.items() if before)
    new = "; ".join(name for name, before in tried.items() if not before)
    said = []
    if new:
        said.append(f"its best value so far is the last of a list, so it also tries {new}")
    if more:
        said.append(f"its seeds do not tell which is best of {more}, so these get more")
    return f"{title}: {'; '.join(said)}"


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
