"""Ends points of a search that lag behind, by the median rule; no significance is tested on them.

At its latest validation step a point is compared with the values that finished points had at the
same step: worse than their median, it is ended (Golovin et al. 2017, section 3.2.2).
Optuna's pruners do not serve: they refuse studies with several objectives.
"""

import statistics
from pathlib import Path

from studies.engine.definition.sections import Search
from studies.engine.trials.metrics_file import read_metrics

Curve = dict[int, float]
"""Step to validation value."""


class Lagging:
    """Knows the curves of finished points, and which running point falls behind them."""

    def __init__(self, search: Search) -> None:
        assert search.pruning is not None
        self._rule, self._objective = search.pruning, search.objectives[0]
        self._finished: list[Curve] = []

    def finished(self, run_dir: Path) -> None:
        """Take in the curve of a point that ran to its end."""
        self._finished.append(self._curve(run_dir))

    def reason(self, run_dir: Path) -> str | None:
        """Why the running point in `run_dir` is to be ended; None where it is not."""
        curve = self._curve(run_dir)
        if not curve:
            return None
        step = max(curve)
        others = [other[step] for other in self._finished if step in other]
        if step < self._rule.steps or len(others) < self._rule.points:
            return None
        median = statistics.median(others)
        sign = 1 if self._objective.direction == "maximize" else -1
        if sign * curve[step] >= sign * median:
            return None
        return (
            f"{self._objective.metric} {curve[step]:.4g} at step {step} is worse than the median "
            f"{median:.4g} of {len(others)} finished points"
        )

    def _curve(self, run_dir: Path) -> Curve:
        file = run_dir / "metrics.jsonl"
        entries = read_metrics(file) if file.is_file() else []
        name = self._objective.metric
        return {int(entry["step"]): entry[name] for entry in entries if name in entry}
