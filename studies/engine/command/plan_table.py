"""The table of `--plan`: arms × seeds, how far each trial is, and how long the rest will take.

Several tasks stand below each other, each with its own count and time.
"""

import functools
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from studies.engine.labels import counted, duration
from studies.engine.planning import runs
from studies.engine.records import Result, Trial

STYLES = {"done": "green", "failed": "red", "running": "yellow", "waiting": "dim"}

MOST_SEEDS = 7
"""That are columns: more do not fit a terminal."""


def plan_table(trials: Sequence[Trial], runs_dir: Path, slots: Callable[[], int]) -> RenderableType:
    """Arms × seeds with the state of each trial, the counts, and how long the rest will take.

    Of more than `MOST_SEEDS` seeds an arm has the number of trials in each state.

    `slots` says how many run at once; asked only where it matters, as counting GPUs needs torch.
    """
    results = [runs.result_of(trial, runs_dir) for trial in trials]
    states = {
        (trial.label, trial.task, trial.seed): (
            result.status if result else runs.state_of(trial, runs_dir)
        )
        for trial, result in zip(trials, results, strict=True)
    }
    seeds = list(dict.fromkeys(trial.seed for trial in trials))
    many = len(seeds) > MOST_SEEDS
    table = Table()
    tasks = list(dict.fromkeys(trial.task for trial in trials))
    several = tasks != [""]
    columns = list(STYLES) if many else [f"seed {seed}" for seed in seeds]
    for column in (*(["task"] if several else []), "arm", *columns):
        table.add_column(column)
    for task in tasks:
        for i, arm in enumerate(dict.fromkeys(t.label for t in trials if t.task == task)):
            row = [str(states.get((arm, task, seed), "-")) for seed in seeds]
            cells = [(state, state) for state in row]
            if many:
                cells = [(str(row.count(state) or "-"), state) for state in STYLES]
            texts = [Text(text, style=STYLES.get(state, "dim")) for text, state in cells]
            table.add_row(*[Text(task if i == 0 else "")] * several, Text(arm), *texts)
        table.add_section()
    known, lines = list(zip(trials, results, strict=True)), []
    slots = functools.cache(slots)
    for task in tasks if several else ():
        counted = _counted([state for (_, on, _), state in states.items() if on == task])
        own = [(trial, result) for trial, result in known if trial.task == task]
        lines.append(f"{task}: {counted}; {estimate(own, slots)}")
    lines += [_counted(list(states.values())), estimate(known, slots)]
    name = f"{trials[0].study} ({trials[0].profile})"  # a table's own title is as narrow as it
    return Group(Text(name, style="italic"), table, *map(Text, lines))


def _counted(states: Sequence[str]) -> str:
    counts = {state: states.count(state) for state in STYLES}
    each = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    return f"{counted(len(states), 'trial')}: {each}"


def estimate(known: Sequence[tuple[Trial, Result | None]], slots: Callable[[], int]) -> str:
    """How long what is left will take, from the median time of finished trials, arm by arm."""
    seconds: dict[tuple[str, str], list[float]] = {}
    left: list[Trial] = []
    for trial, result in known:
        if result is None:
            left.append(trial)
        elif result.status == "done":
            seconds.setdefault(trial.cell, []).append(result.seconds)
    if not left:
        return "nothing left to run"
    every = [each for times in seconds.values() for each in times]
    if not every:
        return "no finished trial yet: no estimate"
    count = min(slots(), len(left))
    total = sum(statistics.median(seconds.get(trial.cell, every)) for trial in left) / count
    return f"about {duration(total)} left on {counted(count, 'slot')}"
