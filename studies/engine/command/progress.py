"""What a person sees while trials run: a live table on a terminal, else a line for each event."""

import json
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from studies.engine.command.plan_table import STYLES, duration
from studies.engine.records import Result
from studies.engine.running.events import Event


class Progress:
    """Shows events as they come; a context manager, so that the terminal is given back whole."""

    def __init__(self, console: Console, total: int, metric: str) -> None:
        """`total` trials are to be accounted for; `metric` is what is shown of a finished one."""
        self._console, self._total, self._metric = console, total, metric
        self._finished = self._found = 0
        self._running: dict[int, tuple[Event, float]] = {}
        self._live = Live(
            get_renderable=self._table, console=console, refresh_per_second=2, transient=True
        )

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, event: Event) -> None:
        """Take in one event."""
        if event.kind == "found":
            self._found += 1
            self._finished += 1
            return
        if event.slot is not None:
            self._running.pop(event.slot, None)
        if event.kind == "started":
            self._say_found()
            self._running[event.slot or 0] = (event, time.monotonic())
            if self._console.is_terminal:
                return
        if event.kind in ("done", "failed"):
            self._finished += 1
        self._console.print(self._line(event), soft_wrap=True, highlight=False)

    def _say_found(self) -> None:
        """Once, before the first trial: how much an earlier run has done."""
        if self._found:
            self._console.print(
                f"{self._found} of {self._total} trials have a result already", highlight=False
            )
            self._found = 0

    def _line(self, event: Event) -> Text:
        style = STYLES.get(event.kind, "yellow")
        text = Text(f"[{self._finished:>{len(str(self._total))}}/{self._total}] ")
        failure = None if event.result is None else event.result.failure
        pruned = failure is not None and failure.kind == "pruned"
        word = "pruned" if pruned else event.kind
        text.append(f"{word:<8}", style="dim" if pruned or event.kind == "started" else style)
        text.append(f" {event.trial.label}  seed {event.trial.seed}")
        if event.result is not None:
            text.append(f"  {self._found_text(event.result)}  {duration(event.result.seconds)}")
        if event.kind == "failed" and not pruned:
            text.append(f"\n        {event.run_dir / 'log.txt'}", style="dim")
        return text

    def _found_text(self, result: Result) -> str:
        if result.failure is not None and result.failure.kind == "pruned":
            return result.failure.message
        if result.failure is not None:
            return f"{result.failure.kind}: {result.failure.message}"
        return f"{self._metric} {result.metrics[self._metric]:.4f}"

    def _table(self) -> RenderableType:
        table = Table(box=None, pad_edge=False)
        for column in ("slot", "arm", "seed", "time", "latest"):
            table.add_column(column)
        for slot, (event, since) in sorted(list(self._running.items())):
            elapsed = duration(time.monotonic() - since)
            latest = _latest(event.run_dir / "metrics.jsonl")
            table.add_row(
                str(slot), Text(event.trial.label), str(event.trial.seed), elapsed, latest
            )
        return Group(table, Text(f"{self._finished} of {self._total} trials have a result"))


def _latest(metrics: Path) -> str:
    """The last whole line of a trial's metrics.jsonl in words."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, metrics.stat().st_size - 4000))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
        entry = json.loads(lines[-1])
    except (OSError, ValueError, IndexError):  # not there yet, or being written
        return ""
    if not isinstance(entry, dict):
        return ""
    values = [f"{k} {v:.4g}" for k, v in entry.items() if "/" in k and isinstance(v, int | float)]
    return f"step {entry.get('step', '?')}  {'  '.join(values[:3])}"
