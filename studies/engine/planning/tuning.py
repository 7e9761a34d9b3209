"""The stage before the seeds: every arm tries the same values, and validation chooses one.

`tune: {train.learning_rate: [1.0e-3, 4.0e-3], seeds: [100]}` runs arms × values × seeds as trials
like any other, takes for each arm the values with the best mean (or median, `statistic`) of
`objective.select_on`, and only then trains the seeds of the study with them. The test set is not
looked at. With several tasks every arm chooses on each of them by itself. An arm whose best is the
smallest or largest value gets, by `extend`, one beyond it, until its best lies inside. By `race` an
arm's values that its seeds do not tell apart get more seeds, round by round, until one is left
(racing, as Maron and Moore 1994 have it).
"""

import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from studies.engine.labels import on_task, short_settings
from studies.engine.planning import runs
from studies.engine.records import Record, Result, Trial
from studies.sections import Statistic

ResultOf = Callable[[str], Result | None]
"""From a trial's key to its result."""


@dataclass(frozen=True)
class Choice:
    """What validation chose for one arm."""

    arm: str
    settings: Mapping[str, Any]
    """Dotted settings; {} where no value gave a result, and the arm keeps the study's own."""
    scores: tuple[tuple[Mapping[str, Any], float | None], ...]
    """Each combination of values with its mean over its seeds, or their median; None where a first
    one failed."""
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
    """How many seeds each of `scores` is over."""
    first: int = 0
    """How many all values had before the race."""
    statistic: Statistic = "mean"
    """Of its seeds, by which a combination was chosen."""

    @property
    def raced(self) -> bool:
        """Whether some values got more seeds than the first ones."""
        return any(count > self.first for count in self.seeds)

    @property
    def edges(self) -> dict[str, str]:
        """Chosen settings that are the "smallest" or "largest" of three or more that were tried: a
        better one may lie beyond."""
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
        """The mean, or the median, of what was chosen."""
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
    statistic: Statistic = "mean"
    """Of its seeds, by which an arm takes its values."""
    arms: tuple[tuple[Candidate, ...], ...]
    """By arm and task; the last candidate of each is the last resort."""
    select_on_of: dict[str, str] = Field(default_factory=dict)
    """By task, where the study has several."""

    first: int | None = None
    """How many of its tuning trials score a candidate at first, the rest being the race's; None:
    all."""
    may_follow: tuple[Trial, ...] = ()
    """Tuning trials of the candidates beyond those that are listed, and of the race."""

    def metric_of(self, task: str) -> str:
        """What is chosen by on `task`."""
        return self.select_on_of.get(task, self.select_on)

    def choices(self, result_of: ResultOf) -> list[Choice]:
        """A choice for each arm of which every tuning trial has a result."""
        choices = (self.walk(arm, result_of)[0] for arm in self.arms)
        return [choice for choice in choices if choice is not None]

    def walk(
        self, arm: Sequence[Candidate], result_of: ResultOf
    ) -> tuple[Choice | None, list[str]]:
        """What one of `arms` chooses, nothing while a trial that it asks for has no result; and the
        keys of the tuning trials that it asks for so far."""
        *tried, own = arm
        first = self.first or max((len(each.scored_by) for each in tried), default=0)
        counts = {i: first for i, each in enumerate(tried) if not each.beyond}
        metric = self.metric_of(own.cell[1])
        sign = 1 if self.direction == "maximize" else -1
        results = dict[str, Result | None]()
        while True:
            keys = [key for i, count in counts.items() for key in tried[i].scored_by[:count]]
            results |= {key: result_of(key) for key in keys if key not in results}
            if None in results.values():
                return None, keys
            values = dict[int, list[float]]()
            for i, count in counts.items():
                found = [runs.value_of(results[k], metric) for k in tried[i].scored_by[:count]]
                ended = found.index(None) if None in found else count  # at the first that failed
                known = [sign * value for value in found[:ended] if value is not None]
                values[i] = known if len(known) >= first else []
            field = _Field(tried, values, counts, sign, first, self.statistic)
            choice = field.choice(own)
            more = field.further(choice.edges)
            if not more:
                return choice, keys
            counts |= more


@dataclass
class _Field:
    """The candidates of an arm that have been tried, by place, and how well each did by seed."""

    tried: Sequence[Candidate]
    values: Mapping[int, list[float]]
    """The better the larger: those before a failed seed, none where one of the `first` failed."""
    counts: Mapping[int, int]
    """How many each was asked for."""
    sign: int
    first: int
    statistic: Statistic

    def __post_init__(self) -> None:
        self.center = statistics.median if self.statistic == "median" else statistics.fmean
        known = [(len(own), self.center(own), -i) for i, own in self.values.items() if own]
        # of those with the most seeds, and of equals the first
        self.best = -max(known)[2] if known else None
        self.close = [i for i in self.values if self._is_close(i)]

    def choice(self, own: Candidate) -> Choice:
        """The best; `own`, the arm as the study has it, where none gave a result."""
        arm, task = own.cell
        best = own if self.best is None else self.tried[self.best]
        return Choice(
            arm,
            best.settings,
            tuple(
                (self.tried[i].settings, self.sign * self.center(own) if own else None)
                for i, own in self.values.items()
            ),
            best.trials,
            task,
            extended=any(self.tried[i].beyond for i in self.counts),
            close=tuple(self.tried[i].settings for i in self.close),
            seeds=tuple(len(self.values[i]) or n for i, n in self.counts.items()),
            first=self.first,
            statistic=self.statistic,
        )

    def further(self, edges: Mapping[str, str]) -> dict[int, int]:
        """Candidates to be tried with more seeds, by place: how many each gets; none at the end."""
        if self.best is None:
            return {}
        if beyond := _beyond(self.tried, self.counts, edges):
            return dict.fromkeys(beyond, self.first)
        best = self.values[self.best]
        # what does the same whatever the seed has learned nothing, and more seeds tell no more
        rivals = [i for i in self.close if len({*best, *self.values[i]}) > 1]
        if behind := [i for i in rivals if self.counts[i] < len(best)]:
            return dict.fromkeys(behind, len(best))
        more = min(2 * len(best), len(self.tried[self.best].scored_by))
        racing = [self.best, *rivals] if rivals else []
        return {i: more for i in racing if self.counts[i] < more}

    def _is_close(self, i: int) -> bool:
        """Whether the best is not better by more than a standard error, on at least two seeds."""
        if self.best is None or self.best == i or len(self.values[i]) < 2:
            return False
        pairs = zip(self.values[self.best], self.values[i], strict=False)
        ahead = [best - value for best, value in pairs]
        if self.statistic == "median":
            wins, losses = (sum(sign * each > 0 for each in ahead) for sign in (1, -1))
            return wins - losses <= math.sqrt(wins + losses)
        return statistics.fmean(ahead) <= statistics.stdev(ahead) / math.sqrt(len(ahead))


def extension(title: str, trials: Sequence[Trial], known: Collection[Mapping[str, Any]]) -> str:
    """What is said when results ask for `trials` of an arm that has tried the settings `known`."""
    tried = {short_settings(trial.candidate): trial.candidate in known for trial in trials}
    more = [name for name, before in tried.items() if before]
    new = "; ".join(name for name, before in tried.items() if not before)
    said = []
    if new:
        said.append(f"its best value so far is the last of a list, so it also tries {new}")
    if len(more) > 1:
        said.append(f"its seeds do not tell which is best of {'; '.join(more)}, so these get more")
    elif more:
        said.append(f"{more[0]} is close to its best, so it gets as many seeds")
    return f"{title}: {'; '.join(said)}"


def _beyond(
    tried: Sequence[Candidate], asked: Collection[int], edges: Mapping[str, str]
) -> list[int]:
    """Places in `tried` of the next value at one of the `edges`, else with what was `asked`."""
    known = {path: [tried[i].settings[path] for i in asked] for path in tried[0].settings}
    for path, end in edges.items():
        sign = 1 if end == "largest" else -1
        last = max(sign * value for value in known[path])
        further = [v for each in tried if (v := sign * each.settings[path]) > last]
        known[path] += [sign * min(further)] if further else []
    return [
        i
        for i, candidate in enumerate(tried)
        if i not in asked and all(candidate.settings[path] in known[path] for path in known)
    ]
