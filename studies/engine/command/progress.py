"""What a person sees while trials run: a live display on a terminal, else a line for each event."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from studies.engine.command.plan_table import STYLES
from studies.engine.command.standing import Standing
from studies.engine.definition.train import Train, planned_steps
from studies.engine.labels import duration
from studies.engine.records import Trial
from studies.engine.running.events import Event

BAR = 24
"""Characters; with the counts beside it within the 80 of a small terminal."""


class Progress:
    """Shows events as they come; a context manager, so that the terminal is given back whole."""

    def __init__(
        self, console: Console, total: int, metric_of: Callable[..., str], standing: Standing
    ) -> None:
        """`total` trials are to be accounted for; `metric_of` a task is shown of finished ones."""
        self._console, self._total, self._metric_of = console, total, metric_of
        self._standing = standing
        self._finished = self._already_done = 0
        self._began: float | None = None
        self._running: dict[int, tuple[Event, float]] = {}
        self._live = Live(
            get_renderable=self._display, console=console, refresh_per_second=2, transient=True
        )

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, event: Event) -> None:
        """Take in one event."""
        if event.kind in ("found", "done", "failed"):
            self._finished += 1
            self._standing.take(event.trial, event.result)
        if event.kind == "found":
            self._already_done += 1
            return
        if event.slot is not None:
            self._running.pop(event.slot, None)
        if event.kind == "started":
            if self._began is None and self._already_done:  # by an earlier run
                already = f"{self._already_done} of {self._total} trials have a result already"
                self._console.print(already, highlight=False)
            self._began = self._began or time.monotonic()
            self._running[event.slot or 0] = (event, time.monotonic())
            if self._console.is_terminal:
                return
        self._console.print(self._line(event), soft_wrap=True, highlight=False)

    def _line(self, event: Event) -> Text:
        result, word = event.result, str(event.kind)
        if ended_on_purpose := result is not None and (result.pruned or result.changed):
            word = "pruned" if result.pruned else "changed"
        dim = word in ("pruned", "started")
        text = Text(f"[{self._finished:>{len(str(self._total))}}/{self._total}] ")
        text.append(f"{word:<8}", style="dim" if dim else STYLES.get(event.kind, "yellow"))
        text.append(f" {event.trial.title}  seed {event.trial.seed}")
        if result is not None:
            if result.failure is None:
                metric = self._metric_of(event.trial.task)
                finding = f"{metric} {result.metrics[metric]:.4f}"
            else:
                kind = "" if ended_on_purpose else f"{result.failure.kind}: "
                finding = f"{kind}{result.failure.message}"
            text.append(f"  {finding}  {duration(result.seconds)}")
            if not self._console.is_terminal:  # where there is no display that has it
                known = (self._standing.line(event.trial.label), self._left())
                if so_far := "; ".join(filter(None, known)):
                    text.append(f"  ({so_far})", style="dim")
        if word == "failed":
            text.append(f"\n        {event.run_dir / 'log.txt'}", style="dim")
        return text

    def _left(self) -> str:
        """How long the rest will take, at the pace of this command so far; "" where unknown."""
        ended, left = self._finished - self._already_done, self._total - self._finished
        if self._began is None or not ended or left <= 0:
            return ""
        seconds = left * (time.monotonic() - self._began) / ended
        return f"about {duration(seconds)} left"

    def _display(self) -> RenderableType:
        bar = ProgressBar(total=max(self._total, 1), completed=self._finished, width=BAR)
        counts = (f"{self._finished} of {self._total} trials", self._standing.arms, self._left())
        head = Table.grid(padding=(0, 2))
        head.add_row(bar, Text(" · ".join(part for part in counts if part)))
        parts = [self._standing.table(), self._trials(), head]
        return Group(*(part for part in parts if part is not None))

    def _trials(self) -> Table | None:
        """The trials that run, with how far each one is."""
        rows = []
        for _, (event, since) in sorted(list(self._running.items())):
            done, latest = _latest(event.run_dir / "metrics.jsonl")
            trial, seconds = event.trial, duration(time.monotonic() - since)
            rows.append((trial.title, str(trial.seed), seconds, _steps(trial, done), latest))
        if not rows:
            return None
        names = ("running", "seed", "time", "step", "latest")
        used = [i for i in range(len(names)) if any(row[i] for row in rows)]
        table = Table(*(names[i] for i in used), box=None, pad_edge=False, header_style="dim")
        for row in rows:
            table.add_row(*(Text(row[i]) for i in used))
        return table


def _steps(trial: Trial, step: int | None) -> str:
    """`120/360 (33%)`: how far the trial is, as far as its number of rows is known beforehand."""
    if step is None:
        return ""
    rows = trial.config.get("task", {}).get("train_rows")
    if not rows:
        return str(step)
    settings = Train.model_validate(trial.config["train"])
    total = planned_steps(settings, rows)
    return f"{step}/{total} ({min(1, step / total):.0%})"


def _latest(metrics: Path) -> tuple[int | None, str]:
    """The step of the last whole line of a trial's metrics.jsonl, and its values in words."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, metrics.stat().st_size - 4000))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
        entry = json.loads(lines[-1])
    except (OSError, ValueError, IndexError):  # not there yet, or being written
        return None, ""
    if not isinstance(entry, dict):
        return None, ""
    values = [f"{k} {v:.4g}" for k, v in entry.items() if "/" in k and isinstance(v, int | float)]
    step = entry.get("step")
    return step if type(step) is int else None, "  ".join(values[:1])
