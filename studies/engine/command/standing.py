"""How the arms stand while trials still run: means so far, and differences from the baseline."""

import statistics
from collections import Counter
from collections.abc import Callable, Sequence

from rich.table import Table
from rich.text import Text

from studies.engine.planning import runs
from studies.engine.records import Result, Trial

MOST_ROWS = 12
"""Arms that are shown; a live display that is higher than the terminal is cut."""


class Standing:
    """The values of trials that have ended, arm by arm."""

    def __init__(
        self, metric_of: Callable[..., str], baseline: str, planned: Sequence[Trial]
    ) -> None:
        """`planned` are the trials that are known beforehand, none of a search; `metric_of` says
        what is shown of trials of a task, see `stages.StudyStage`."""
        self._metric_of, self._baseline = metric_of, baseline
        self._planned = Counter(trial.label for trial in planned)
        self._ended: Counter[str] = Counter()
        self._values: dict[str, dict[tuple[str, int], float]] = {}
        """By arm, then by task and seed."""

    def take(self, trial: Trial, result: Result | None) -> None:
        """A trial has ended."""
        self._ended[trial.label] += 1
        value = runs.value_of(result, self._metric_of(trial.task))
        if value is not None:  # put in its place whole: the display's thread may be reading
            known, place = self._values.get(trial.label, {}), (trial.task, trial.seed)
            self._values[trial.label] = {**known, place: value}

    @property
    def arms(self) -> str:
        """How many arms have all their values, and how many never will; "" where arms are not known
        beforehand."""
        values = {arm: len(self._values.get(arm, {})) for arm in self._planned}
        whole = sum(values[arm] >= count for arm, count in self._planned.items())
        failed = sum(self._ended[arm] > count for arm, count in values.items())
        more = f", {failed} failed" if failed else ""
        return f"{whole} of {len(self._planned)} arms{more}" if self._planned else ""

    def line(self, arm: str) -> str:
        """The arm's mean so far, and its difference from the baseline over the trials of both."""
        own, gain = self._values.get(arm), self._gain(arm)
        if not own:
            return ""
        beside = "" if gain is None else f", {gain:+z.4f} vs {self._baseline}"
        return f"mean of {len(own)}: {statistics.fmean(own.values()):.4f}{beside}"

    def table(self) -> Table | None:
        """The arms that have a value; None where there is none, or arms come one by one."""
        known = [arm for arm in self._planned if arm in self._values]
        if not known:
            return None
        known.sort(key=lambda arm: arm != self._baseline)  # the baseline first
        gains = {arm: self._gain(arm) for arm in known}
        compared = any(gain is not None for gain in gains.values())
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("arm")
        several = any(task for values in self._values.values() for task, _ in values)
        against = [f"− {self._baseline}"] if compared else []
        for column in ("trials" if several else "seeds", self._metric_of(), *against):
            table.add_column(column, justify="right")
        for arm in known[:MOST_ROWS]:
            own, gain = self._values[arm], gains[arm]
            mean = f"{statistics.fmean(own.values()):.4f}"
            difference = "" if gain is None else f"{gain:+z.4f}"
            cells = (f"{len(own)}/{self._planned[arm]}", mean, difference)
            table.add_row(Text(arm), *cells[: len(table.columns) - 1])
        if more := known[MOST_ROWS:]:
            table.add_row(Text(f"and {len(more)} more", style="dim"))
        return table

    def _gain(self, arm: str) -> float | None:
        """The mean difference from the baseline over the tasks and seeds that both have."""
        own, base = self._values.get(arm, {}), self._values.get(self._baseline, {})
        shared = [own[place] - base[place] for place in own if place in base]
        return statistics.fmean(shared) if shared and arm != self._baseline else None
