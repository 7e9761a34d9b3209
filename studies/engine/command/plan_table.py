"""The table of `--plan`: arms × seeds, how far each trial is, and how long the rest will take."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from studies.engine.planning import runs
from studies.engine.records import Result, Trial

STYLES = {"done": "green", "failed": "red", "running": "yellow", "waiting": "dim"}


def plan_table(trials: Sequence[Trial], runs_dir: Path, slots: Callable[[], int]) -> RenderableType:
    """Arms × seeds with the state of each trial, the counts, and how long the rest will take.

    `slots` says how many run at once; asked only where it matters, as counting GPUs needs torch.
    """
    results = [runs.result_of(trial, runs_dir) for trial in trials]
    states = {
        (trial.label, trial.seed): result.status if result else runs.state_of(trial, runs_dir)
        for trial, result in zip(trials, results, strict=True)
    }
    seeds = list(dict.fromkeys(trial.seed for trial in trials))
    table = Table(title=f"{trials[0].study} ({trials[0].profile})", title_justify="left")
    table.add_column("arm")
    for seed in seeds:
        table.add_column(f"seed {seed}")
    for arm in dict.fromkeys(trial.label for trial in trials):
        cells = []
        for seed in seeds:
            state = states.get((arm, seed))
            cells.append(Text(state or "-", style=STYLES.get(state or "", "dim")))
        table.add_row(Text(arm), *cells)
    counts = {state: list(states.values()).count(state) for state in STYLES}
    known = list(zip(trials, results, strict=True))
    summary = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    return Group(table, Text(f"{len(trials)} trials: {summary}"), Text(estimate(known, slots)))


def estimate(known: Sequence[tuple[Trial, Result | None]], slots: Callable[[], int]) -> str:
    """How long what is left will take, from the median time of finished trials, arm by arm."""
    seconds: dict[str, list[float]] = {}
    left: list[Trial] = []
    for trial, result in known:
        if result is None:
            left.append(trial)
        elif result.status == "done":
            seconds.setdefault(trial.arm, []).append(result.seconds)
    if not left:
        return "nothing left to run"
    every = [each for times in seconds.values() for each in times]
    if not every:
        return "no finished trial yet: no estimate"
    count = slots()
    total = sum(statistics.median(seconds.get(trial.arm, every)) for trial in left) / count
    return f"about {duration(total)} left on {count} slot{'s' if count > 1 else ''}"


def duration(seconds: float) -> str:
    """`seconds` as a person says it: 48 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
