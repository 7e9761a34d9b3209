"""Seeds until decided: which look a study has come to, and which trials it asks for.

Every arm is trained with the seeds of the first look. Once all these trials have ended, done or
failed, the claims are judged, and the arms of those that are open get the seeds of the next look,
on the task that a claim names or on all; and so on, until no claim is open or the last look has
ended. A claim whose arms have no finished seed in common gets none: more would fail like these. All
of it follows from the results that are there: stopped, killed, continued or imported, a study comes
to the same looks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studies.engine.definition.contrasts import trend_points, weighted_sum
from studies.engine.definition.study import Study
from studies.engine.labels import counted
from studies.engine.records import Result, Trial

if TYPE_CHECKING:  # scipy takes a second
    from studies.engine.verdicts.claims import Verdict

MOST_SHOWN = 5
"""Arms that a line names."""
Cell = tuple[str, str]
"""Arm and task."""
Judge = Callable[[Sequence[tuple[Trial, Result]]], "Sequence[Verdict]"]
"""From trials that have ended to a verdict on each of the study's claims."""


@dataclass(frozen=True)
class Look:
    """The look that a study has come to."""

    number: int
    """From 1, of `count`."""
    count: int
    before: int
    """Seeds of the look before; 0 at the first."""
    size: int
    """Seeds of the arms of open claims at this look."""
    trials: tuple[Trial, ...]
    """Those of this look and of all before it, in the order of the plan."""
    missing: tuple[Trial, ...]
    """Those of them that have not ended."""
    untuned: tuple[str, ...]
    """Arms whose trials are not known before their tuning has ended."""
    arms: tuple[str, ...]
    """Those that get seeds at this look."""
    claims: int
    open: tuple[str, ...]
    """Claims that the looks which have ended do not decide."""
    at_most: int
    """How many trials there are if the open claims stay so."""

    @property
    def ended(self) -> bool:
        """Whether the study is done: of a look that has ended, the next one is the look."""
        return not self.missing and not self.untuned

    @property
    def name(self) -> str:
        """look 2 of 4"""
        return f"look {self.number} of {self.count}"

    @property
    def begins(self) -> str:
        """Why there is this look, and what it runs; "" where it has ended."""
        if self.ended:
            return ""
        trials = f"{counted(len(self.missing), 'trial')} now, at most {self.at_most} in all"
        if not self.before:
            return f"{self.name}: {self.size} seeds of every arm; {trials}"
        more = f"{self.size - self.before} more for {_listed(self.arms)}"
        return f"{self.name}: {self._open} after {self.before} seeds: {more}; {trials}"

    @property
    def stands(self) -> str:
        """What the looks that have ended decide, and what the next verdicts wait for."""
        if self.ended and not self.open:
            return f"{self.name}: every claim is decided after {self.size} seeds"
        named = "".join(f"\n  open: {claim}" for claim in self.open)
        if self.ended:
            why = "the most that `seeds` allows"
            if self.number < self.count:
                its = "its" if len(self.open) == 1 else "their"
                why = f"as {its} arms have no finished seed in common: once the cause is repaired, "
                why += "--retry-failed goes on"
            return f"{self.name}: {self._open} after {self.size} seeds, {why}{named}"
        arms = list(dict.fromkeys(trial.title for trial in self.missing))
        what = {counted(len(self.missing), "trial"): arms, "the tuning": self.untuned}
        lacks = " and ".join(f"{each} of {_listed(of)}" for each, of in what.items() if of)
        after = f"{self._open} after {self.before} seeds; " if self.before else ""
        waits = f"{after}claims are judged next once this look has ended, which lacks {lacks}"
        return f"{self.name}: {waits}{named if self.before else ''}"

    @property
    def plan(self) -> str:
        """What is to run, and for which claims; where nothing is, how it ended."""
        if self.ended:
            return self.stands
        named = "".join(f"\n  open: {claim}" for claim in self.open) if self.before else ""
        return f"{self.begins}{named}"

    @property
    def _open(self) -> str:
        are = "is" if len(self.open) == 1 else "are"
        return f"{len(self.open)} of {counted(self.claims, 'claim')} {are} open"


def reached(
    study: Study,
    planned: Sequence[Trial],
    result_of: Mapping[str, Result | None],
    judge: Judge,
    untuned: Sequence[str] = (),
) -> Look:
    """The first look that has not ended; the last one where nothing more is to be done.

    `planned` has the trials of all seeds, one seed after the other, but those of `untuned` arms,
    which have yet to choose their settings. `result_of` a key is None where the trial has not
    ended. `judge` is asked at most once a look.
    """
    looks, place = study.looks, {seed: i for i, seed in enumerate(study.seeds)}
    sizes = {trial.cell: looks[0] for trial in planned}
    cells = _cells_of_claims(study)
    still = growing = list(range(len(study.claims)))
    for number, size in enumerate(looks):
        own = [trial for trial in planned if place[trial.seed] < sizes[trial.cell]]
        missing = [trial for trial in own if result_of[trial.key] is None]
        if missing or untuned:
            break
        ended = [(trial, result) for trial in own if (result := result_of[trial.key])]
        verdicts = judge(ended)
        still = [i for i, verdict in enumerate(verdicts) if verdict.open]
        growing = [i for i in still if verdicts[i].n]
        if not growing or size == looks[-1]:
            break
        sizes |= dict.fromkeys({cell for i in growing for cell in cells[i]}, looks[number + 1])
    grown = {cell for i in growing for cell in cells[i]}
    return Look(
        number=number + 1,
        count=len(looks),
        before=looks[number - 1] if number else 0,
        size=size,
        trials=tuple(own),
        missing=tuple(missing),
        untuned=tuple(untuned),
        arms=_names(study, [cell for cell, count in sizes.items() if count == size]),
        claims=len(cells),
        open=tuple(study.claims[i].claim for i in still),
        at_most=len(own) + sum(looks[-1] - sizes[cell] for cell in grown if cell in sizes),
    )


def _cells_of_claims(study: Study) -> list[set[Cell]]:
    """Arms and tasks that each claim is about."""
    points, tasks = trend_points(study), [task.name for task in study.tasks] or [""]
    cells = []
    for claim in study.claims:
        arms = [t.of for t in weighted_sum(claim, points).terms if isinstance(t.of, str)]
        on = tasks if claim.task is None else [claim.task]
        cells.append({(arm, task) for arm in arms for task in on})
    return cells


def _names(study: Study, cells: Sequence[Cell]) -> tuple[str, ...]:
    """The arms in `cells`; of several tasks with those, where these are not all."""
    tasks: dict[str, list[str]] = {}
    for arm, task in cells:
        tasks.setdefault(arm, []).append(task)
    every = max(len(study.tasks), 1)
    return tuple(
        arm if len(own) == every else f"{arm} on {', '.join(own)}" for arm, own in tasks.items()
    )


def _listed(arms: Sequence[str]) -> str:
    more = f" and {len(arms) - MOST_SHOWN} more" if len(arms) > MOST_SHOWN else ""
    return f"{', '.join(arms[:MOST_SHOWN])}{more}"
