"""Pieces that the figures of a study are drawn from: styles of its arms, marks, limits, titles."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.axes import Axes

from basis_zoo.drawing.layout import TEXT
from basis_zoo.drawing.styles import GREY, INK, Style, arm_styles
from studies.engine.labels import span
from studies.engine.reporting.outcome import Arm, Outcome
from studies.engine.trials.metrics_file import is_number
from studies.engine.verdicts.statistics import Estimate

Kept = TypeVar("Kept")
BASELINE: dict[str, Any] = {"color": INK, "lw": 1.2, "ls": "--"}
"""Of a line that stands for the baseline."""


def about(outcome: Outcome) -> str:
    """Study, profile and number of seeds, of which arms may differ: a line of every title."""
    counts = [arm.summary.n for arm in outcome.arms if arm.summary.n] or [len(outcome.seeds)]
    least, most = min(counts), max(counts)
    seeds = "1 seed" if most == 1 else f"{span(least, most)} seeds"
    return f"{outcome.name} ({outcome.profile}), {seeds}"


def title(outcome: Outcome, what: str) -> str:
    """Of a figure that shows `what`: the study's question is above it."""
    return f"{outcome.question}\n{what}; {about(outcome)}"


def styles(outcome: Outcome) -> dict[str, Style]:
    """Arm to style, for all figures of a report; the arms of a numeric sweep on one scale."""
    sweeps = [{a.name: float(a.x) for a in own} for own in series(outcome.arms, outcome.axis)]
    swept = [sweep for sweep in sweeps if len(sweep) > 2]  # two values need no scale
    return arm_styles([arm.name for arm in outcome.arms], outcome.baseline, swept)


def first_kept(
    outcome: Outcome, trials_dir: Path, read: Callable[[Path], Kept | None]
) -> dict[str, tuple[Path, Kept]]:
    """Arm to the folder of its first trial that kept what `read` finds there, and to that."""
    kept: dict[str, tuple[Path, Kept]] = {}
    for arm in outcome.arms:
        for folder in (trials_dir / arm.keys[seed] for seed in arm.values):
            if arm.name not in kept and (found := read(folder)) is not None:
                kept[arm.name] = folder, found
    return kept


def file_names(names: Iterable[str], odd: str) -> dict[str, str]:
    """Each of `names` as a part of a file's, without what matches `odd`; no two have the same."""
    files: dict[str, str] = {}
    for name in names:
        plain = re.sub(odd, "_", name).strip("_")[:60] or "unnamed"
        numbered = itertools.chain((plain,), (f"{plain}_{i}" for i in itertools.count(2)))
        files[name] = next(file for file in numbered if file not in files.values())
    return files


def labels(outcome: Outcome) -> dict[str, str]:
    """Arm to its name in a legend: the baseline says that it is."""
    return {a.name: f"{a.name} (baseline)" if a.is_baseline else a.name for a in outcome.arms}


def series(arms: Iterable[Arm], axis: str | None) -> list[list[Arm]]:
    """Arms with a number on the axis, grouped by everything else that was set.

    The longest without the baseline comes first, then the others by their length.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Arm]] = {}
    for arm in arms:
        if is_number(arm.x):
            rest = tuple(sorted((k, repr(v)) for k, v in arm.swept.items() if k != axis))
            groups.setdefault(rest, []).append(arm)
    for members in groups.values():
        members.sort(key=lambda arm: arm.x)
    longest = sorted(groups.values(), key=len, reverse=True)
    first = next((own for own in longest if not any(arm.is_baseline for arm in own)), None)
    return sorted(longest, key=lambda own: own is not first)


def draw_baseline(outcome: Outcome, left: Axes, right: Axes, *, level: bool) -> None:
    """The baseline's mean with its interval on the left, 0 on the right; `level` or upright."""
    line, span = (Axes.axhline, Axes.axhspan) if level else (Axes.axvline, Axes.axvspan)
    style = BASELINE | {"label": f"{outcome.baseline} (baseline)"}
    arm = outcome.reference
    if arm is not None and arm.summary.mean is not None:
        _, low, high = arm.summary.estimate
        line(left, arm.summary.mean, **style)
        if low is not None and high is not None:
            span(left, low, high, color=INK, alpha=0.08, lw=0)
    line(right, 0, **style)


def name_axes(outcome: Outcome, left: Axes, right: Axes, values: str) -> None:
    """Titles, and what the axis of `values` (x or y) shows."""
    label = f"{values}label"
    left.set(title=f"{outcome.title} ({outcome.better} is better)", **{label: outcome.metric})
    paired = "difference from the baseline, paired by seed"
    right.set(title=paired, **{label: f"Δ {outcome.metric}"})


def draw_series(
    axes: Axes,
    places: Sequence[float],
    estimates: Mapping[str, Estimate],
    looks: Mapping[str, Style],
    label: str,
) -> None:
    """Means of arms joined by a line; what lies outside the panel is said at its edge."""
    low, high = axes.get_ylim()
    first = next(iter(looks[name] for name in estimates))
    inside = []
    for x, (name, (mean, *ends)) in zip(places, estimates.items(), strict=True):
        if mean is None:
            continue
        colour, marker = looks[name].colour, looks[name].marker
        if low <= mean <= high:
            inside.append((x, mean))
            axes.errorbar(x, mean, yerr=half(*ends), color=colour, fmt=marker, ms=6, capsize=3,
                          lw=1.4, zorder=3)  # fmt: skip
            continue
        edge, shape, shift = (low, "v", 9) if mean < low else (high, "^", -14)
        axes.plot(x, edge, shape, color=colour, ms=8, clip_on=False, zorder=4)
        axes.annotate(f"{mean:.3f}", (x, edge), xytext=(0, shift), ha="center",
                      textcoords="offset points", color=colour, fontsize=TEXT)  # fmt: skip
    alone = len(estimates) == 1
    axes.plot(*zip(*inside, strict=True) if inside else ((), ()), color=first.colour if alone
              else GREY, ls=first.dashes, marker=first.marker, ms=5, lw=1.2, label=label,
              zorder=2)  # fmt: skip


def fit(axes: Axes, estimates: Sequence[Estimate], values: Sequence[float] = ()) -> None:
    """y limits that hold `estimates` and `values`, whatever else is drawn."""
    ends = [*values, *(v for e in estimates for v in e if v is not None)]
    if ends:
        span = (max(ends) - min(ends)) or max(abs(max(ends)), 1.0) * 0.1
        axes.set_ylim(min(ends) - 0.09 * span, max(ends) + 0.09 * span)


def nan_for_none(values: Iterable[float | None]) -> list[float]:
    """`values` as matplotlib draws them: it leaves NaN out."""
    return [math.nan if value is None else value for value in values]


def half(low: float | None, high: float | None) -> float | None:
    """Half the width of an interval, as matplotlib wants it; None where there is no interval."""
    return None if low is None or high is None else (high - low) / 2
