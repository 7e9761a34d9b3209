"""Figures of a study: the metric against what was swept, on each task, and learning curves.

Every plot function draws on a `Figure` of its own (no pyplot, nothing global); `save` writes it as
PNG and SVG, the same bytes for the same input.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from basis_zoo.drawing.layout import TEXT, finish, panels, wrapped
from basis_zoo.drawing.styles import PAPER, Style
from studies.engine.labels import short_value
from studies.engine.reporting.outcome import Arm, Outcome
from studies.engine.reporting.panels import (
    BASELINE,
    draw_baseline,
    draw_series,
    fit,
    half,
    labels,
    name_axes,
    series,
    styles,
    title,
)
from studies.engine.trials.metrics_file import is_number
from studies.engine.verdicts.statistics import Estimate

Curves = Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]
"""Metric to arm to points (step, mean over seeds)."""
OURS_LABEL, PAPER_LABEL = (
    "ours: mean, 95 % t interval, every seed",
    "paper, against its own baseline",
)
SEEDS: dict[str, Any] = {"alpha": 0.45, "ms": 4, "mew": 0}
"""Of the mark of one seed."""
_WIDEST, _WIDEST_OF_TASKS = 2.4, 1.6
"""Of an arm's name beside its row, in inches; of more than two panels the latter."""
_ABOUT_INTERVALS = (
    "Bars: 95 % t intervals over seeds; small dots: every seed. Grey band: the baseline's interval."
)


def plot_comparison(outcome: Outcome) -> Figure:
    """Each arm's mean, interval and seeds; beside it the difference from the baseline.

    Arms stand along the swept value where it is a number, in rows where it is not. The second
    panel also holds the paper's differences where the study names one of its tables.
    """
    placed = _places(outcome)
    return _rows(outcome) if placed is None else _sweep(outcome, *placed)


def plot_tasks(outcome: Outcome) -> Figure:
    """Every arm's difference from the baseline: a panel a task and one of the whole, a row an arm.

    An arm has one colour in all panels.
    """
    whole = f"mean over {len(outcome.tasks)} tasks" if outcome.is_mean else outcome.metric
    outcomes = {whole: outcome, **outcome.tasks}
    arms = [arm.name for arm in outcome.arms if not arm.is_baseline]
    names = [wrapped(name, TEXT, _WIDEST_OF_TASKS) for name in arms]
    height = max(1.6, 0.7 + 0.2 * sum(1 + name.count("\n") for name in names))
    figure, axes = panels(len(outcomes), columns=4, height=height, sharey=True)
    looks = styles(outcome)
    for each, (name, own) in zip(axes, outcomes.items(), strict=True):
        gains = {arm.name: arm.gain for arm in own.arms}
        each.axvline(0, label=f"{outcome.baseline} (baseline)", **BASELINE)
        for y, arm in enumerate(arms):
            _draw_interval(each, y, gains.get(arm, (None, None, None)), looks[arm])
        each.set(title=name, xlabel=f"Δ {own.metric}")
    _name_rows(axes[0], names)
    what = title(outcome, "every arm's difference from the baseline on each task")
    return finish(figure, what, "Bars: 95 % t intervals over seeds, paired by seed.")


def plot_learning_curves(outcome: Outcome, curves: Curves) -> Figure:
    """One panel a metric: its mean over seeds against the optimizer step, one line an arm."""
    figure, axes = panels(len(curves), columns=2, height=3.8)
    looks, names = styles(outcome), labels(outcome)
    for each, (metric, lines) in zip(axes, curves.items(), strict=True):
        for arm in outcome.arms:
            if points := lines.get(arm.name):
                each.plot(*zip(*points, strict=True), label=names[arm.name],
                          zorder=3 if arm.is_baseline else 2,
                          **looks[arm.name].line(len(points)))  # fmt: skip
        each.set(title=metric, xlabel="optimizer step", ylabel=f"{metric}, mean over seeds")
        each.xaxis.set_major_locator(MaxNLocator(integer=True))
    return finish(figure, title(outcome, "learning curves, means over seeds"))


def save(name: str, figure: Figure, folder: Path) -> tuple[Path, Path]:
    """Write `figure` to `folder` as NAME.png and NAME.svg and return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    figure.savefig(png, metadata={"Software": None}, pil_kwargs={"optimize": True})
    with mpl.rc_context({"svg.hashsalt": "basis-zoo"}):  # otherwise every SVG has other identifiers
        figure.savefig(svg, metadata={"Date": None})
    return png, svg


def _sweep(outcome: Outcome, places: Mapping[str, float], scale: str) -> Figure:
    """Arms along a numeric axis; each setting of everything else is a series of its own."""
    figure, (left, right) = panels(2, height=4.0)
    main, *_ = groups = series([a for a in outcome.arms if a.values], outcome.axis)
    arms = [a for own in groups if own is main or len(own) > 1 for a in own]
    arms += [outcome.reference] if outcome.reference else []
    # two seeds give an interval 4 times as wide as three: it may run out of the panel
    whole = [a for a in arms if len(a.values) > 2] or arms
    paper = [(places[a.name], d) for a in main if (d := a.published_difference) is not None]
    fit(left, [a.summary.estimate for a in whole], [v for a in arms for v in a.values.values()])
    fit(right, [a.gain for a in whole], [0.0, *(d for _, d in paper)])
    draw_baseline(outcome, left, right, level=True)
    looks = styles(outcome)
    for i, members in enumerate(groups):
        x = [_aside(places[a.name], i, list(places.values()), scale) for a in members]
        names = [members[0].name, *(a.name for a in members[1:][-1:])]
        label = OURS_LABEL if members is main else " … ".join(names)
        for place, arm in zip(x, members, strict=True):
            left.plot([place] * len(arm.values), list(arm.values.values()), "o",
                      color=looks[arm.name].colour, **SEEDS)  # fmt: skip
        draw_series(left, x, {a.name: a.summary.estimate for a in members}, looks, label)
        draw_series(
            right,
            x,
            {a.name: (0.0, None, None) if a.is_baseline else a.gain for a in members},
            looks,
            label,
        )
    for arm in _beside(outcome):
        look = looks[arm.name]
        for axes, (height, *_) in ((left, arm.summary.estimate), (right, arm.gain)):
            if height is not None:
                axes.axhline(height, color=look.colour, lw=1.4, ls=look.dashes,
                             label=f"{arm.name}: {arm.summary.mean:.3f}")  # fmt: skip
    if paper:
        right.plot(*zip(*paper, strict=True), "s:", color=PAPER, ms=5, lw=1.4, label=PAPER_LABEL)
    ticks = {places[a.name]: short_value(a.x) for members in groups for a in members}
    for axes in (left, right):
        _name_places(axes, ticks, outcome.axis or "", scale)
    name_axes(outcome, left, right, "y")
    note = f"{_ABOUT_INTERVALS} A triangle at an edge: an arm outside the panel, with its value."
    return finish(figure, title(outcome, "every arm and its difference from the baseline"), note)


def _aside(place: float, i: int, places: Sequence[float], scale: str) -> float:
    """`place` for the series `i`: beside that of the first one, or intervals would hide others."""
    steps = 0.012 * ((i + 1) // 2) * (1 if i % 2 else -1)
    low, high = min(places), max(places)
    return place * (high / low) ** steps if scale == "log" else place + steps * (high - low)


def _name_places(axes: Axes, ticks: Mapping[float, str], axis: str, scale: str) -> None:
    if scale == "log":
        axes.set_xscale("log", base=2)
    at = [math.log(place) if scale == "log" else place for place in sorted(ticks)]
    apart, named = 0.05 * (at[-1] - at[0]), [0]
    for i, place in enumerate(at):
        if place - at[named[-1]] > apart:  # labels of nearer places would run into each other
            named.append(i)
    marks = [sorted(ticks)[i] for i in named]
    axes.set_xticks(marks, labels=[ticks[place] for place in marks])
    axes.minorticks_off()
    axes.set_xlabel(f"{axis}{'' if scale == 'linear' else f' ({scale} scale)'}")


def _rows(outcome: Outcome) -> Figure:
    """One row an arm, for arms without a common number."""
    arms = [arm for arm in outcome.arms if arm.values]
    names = [wrapped(arm.name, TEXT, _WIDEST) for arm in arms]
    lines = sum(max(1.7, name.count("\n") + 1.0) for name in names)
    figure, (left, right) = panels(2, height=max(1.9, 0.8 + 0.17 * lines), sharey=True)
    looks = styles(outcome)
    for y, arm in enumerate(arms):
        look = looks[arm.name]
        left.plot(list(arm.values.values()), [y] * len(arm.values), "o", color=look.colour, **SEEDS)
        _draw_interval(left, y, arm.summary.estimate, look)
        _draw_interval(right, y, arm.gain, look)
        if (published := arm.published_difference) is not None:
            right.plot(published, y + 0.22, "s", color=PAPER, ms=5, label=PAPER_LABEL)
    draw_baseline(outcome, left, right, level=False)
    _name_rows(left, names)
    name_axes(outcome, left, right, "x")
    what = title(outcome, "every arm and its difference from the baseline")
    return finish(figure, what, _ABOUT_INTERVALS)


def _draw_interval(axes: Axes, y: float, estimate: Estimate, look: Style) -> None:
    """A mean with its interval in the row at `y`; nothing where it is not known."""
    mean, *ends = estimate
    if mean is not None:
        axes.errorbar(mean, y, xerr=half(*ends), fmt=look.marker, color=look.colour, ms=5.5,
                      capsize=3)  # fmt: skip


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """The first row on top."""
    axes.set_yticks(range(len(names)), labels=names)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _places(outcome: Outcome) -> tuple[dict[str, float], str] | None:
    """Arm to its place on the axis, and the scale; None where no axis of numbers makes sense."""
    arms = [arm for arm in outcome.arms if arm.values and is_number(arm.x)]
    values = sorted({float(arm.x) for arm in arms})
    if len(values) < (3 if _beside(outcome) else 2):
        return None
    positive = [v for v in values if v > 0]
    spans = len(positive) > 1 and positive[-1] / positive[0] >= 10
    if spans and positive != values:  # a zero has no place on a log axis: equal steps
        return {arm.name: float(values.index(float(arm.x))) for arm in arms}, "equal steps"
    return {arm.name: float(arm.x) for arm in arms}, "log" if spans else "linear"


def _beside(outcome: Outcome) -> list[Arm]:
    """Arms without a number on the axis, the baseline aside."""
    return [a for a in outcome.arms if a.values and not a.is_baseline and not is_number(a.x)]
