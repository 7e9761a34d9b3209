"""Figures of a study: the metric against what was swept, and learning curves.

Every plot function draws on a `Figure` of its own (no pyplot, nothing global) in the style that is
in force, see `panels.STYLE`; `save` writes it as PNG and SVG, the same bytes for the same input.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from studies.engine.reporting.outcome import Arm, Outcome
from studies.engine.reporting.panels import (
    BASELINE,
    OTHERS,
    OURS,
    PAPER,
    STYLE,
    draw_baseline,
    draw_series,
    fit,
    half,
    name_axes,
    new_figure,
    pair,
    ramp,
    shared_legend,
)
from studies.engine.trials.metrics_file import is_number

Curves = Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]
"""Metric to arm to points (step, mean over seeds)."""
OURS_LABEL, PAPER_LABEL = "ours: mean, 95 % t interval, every seed", "paper, to its own baseline"
SEEDS = {"alpha": 0.55, "ms": 4.5, "mew": 0}
"""Of the mark of one seed."""


def plot_comparison(outcome: Outcome) -> Figure:
    """Each arm's mean, interval and seeds; beside it the difference to the baseline.

    Arms stand along the swept value where it is a number, in rows where it is not. The second
    panel also holds the paper's differences where the study names one of its tables.
    """
    return _rows(outcome) if _places(outcome) is None else _sweep(outcome)


def plot_learning_curves(outcome: Outcome, curves: Curves) -> Figure:
    """One panel a metric: its mean over seeds against the optimizer step, one line an arm."""
    figure = new_figure(outcome, width=5.2 * max(len(curves), 1.4), height=4.4)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    colours = _line_colours(outcome)
    for axes, (metric, lines) in zip(panels, curves.items(), strict=True):
        for arm in outcome.arms:
            if points := lines.get(arm.name):
                axes.plot(
                    *zip(*points, strict=True),
                    color=colours[arm.name],
                    marker="o" if len(points) < 12 else None,
                    ms=3.5,
                    lw=2.2 if arm.is_baseline else 1.4,
                    ls="--" if arm.is_baseline else "-",
                    label=f"{arm.name} (baseline)" if arm.is_baseline else arm.name,
                )
        axes.set(title=metric, xlabel="optimizer step", ylabel=f"{metric}, mean over seeds")
    shared_legend(figure)
    return figure


def save(name: str, figure: Figure, folder: Path) -> tuple[Path, Path]:
    """Write `figure` to `folder` as NAME.png and NAME.svg and return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with mpl.rc_context(STYLE):
        figure.savefig(png, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None})
    return png, svg


def _sweep(outcome: Outcome) -> Figure:
    """Arms along a numeric axis; each setting of everything else is a series of its own."""
    places, scale = _places(outcome)
    figure, left, right = pair(outcome)
    main, *_ = series = _series(outcome)
    shown = main + ([outcome.reference] if outcome.reference else [])
    # two seeds give an interval 4 times as wide as three: it may run out of the panel
    whole = [a for a in shown if len(a.values) > 2] or shown
    paper = [(places[a.name], d) for a in main if (d := a.published_difference) is not None]
    fit(left, [a.summary.estimate for a in whole], [v for a in shown for v in a.values.values()])
    fit(right, [a.gain for a in whole], [0.0, *(d for _, d in paper)])
    draw_baseline(outcome, left, right, level=True)
    colours = _colours(outcome)
    for members in series:
        x, colour = [places[a.name] for a in members], colours[members[0].name]
        label = OURS_LABEL if members is main else _label(members)
        for place, arm in zip(x, members, strict=True):
            left.plot([place] * len(arm.values), list(arm.values.values()), "o", color=colour,
                      **SEEDS)  # fmt: skip
        draw_series(left, x, {a.name: a.summary.estimate for a in members}, colour, label)
        draw_series(right, x, {a.name: a.gain for a in members}, colour, label)
    for arm in _beside(outcome):
        for axes, (height, *_) in ((left, arm.summary.estimate), (right, arm.gain)):
            if height is not None:
                axes.axhline(height, color=colours[arm.name], lw=1.2, ls="-.",
                             label=f"{arm.name}: {arm.summary.mean:.3f}")  # fmt: skip
    if paper:
        right.plot(*zip(*paper, strict=True), "s:", color=PAPER, ms=5, lw=1.4, label=PAPER_LABEL)
    for axes in (left, right):
        if scale == "log":
            axes.set_xscale("log", base=2)
        ticks = {places[a.name]: f"{a.x:g}" for members in series for a in members}
        axes.set_xticks(list(ticks), labels=list(ticks.values()))
        axes.minorticks_off()
        axes.set_xlabel(f"{outcome.axis}{'' if scale == 'linear' else f' ({scale} scale)'}")
    name_axes(outcome, left, right, "y")
    shared_legend(figure)
    return figure


def _rows(outcome: Outcome) -> Figure:
    """One row an arm, for arms without a common number."""
    arms = [arm for arm in outcome.arms if arm.values]
    figure, left, right = pair(outcome, height=1.9 + 0.4 * max(len(arms), 3), sharey=True)
    for y, arm in enumerate(arms):
        colour = BASELINE if arm.is_baseline else OURS
        left.plot(list(arm.values.values()), [y] * len(arm.values), "o", color=colour, **SEEDS)
        label = None if arm.is_baseline else OURS_LABEL
        for axes, (mean, *ends) in ((left, arm.summary.estimate), (right, arm.gain)):
            if mean is not None:
                axes.errorbar(mean, y, xerr=half(*ends), fmt="D", color=colour, ms=5, capsize=3,
                              label=label)  # fmt: skip
        if (published := arm.published_difference) is not None:
            right.plot(published, y + 0.22, "s", color=PAPER, ms=5, label=PAPER_LABEL)
    draw_baseline(outcome, left, right, level=False)
    left.set_yticks(range(len(arms)), labels=[arm.name for arm in arms])
    left.set_ylim(len(arms) - 0.4, -0.6)
    name_axes(outcome, left, right, "x")
    shared_legend(figure)
    return figure


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


def _series(outcome: Outcome) -> list[list[Arm]]:
    """Arms on the axis, grouped by everything else that was set; the longest series first."""
    groups: dict[tuple, list[Arm]] = {}
    for arm in outcome.arms:
        if arm.values and is_number(arm.x):
            rest = tuple(sorted((k, repr(v)) for k, v in arm.swept.items() if k != outcome.axis))
            groups.setdefault(rest, []).append(arm)
    for members in groups.values():
        members.sort(key=lambda arm: arm.x)
    return sorted(groups.values(), key=len, reverse=True)


def _beside(outcome: Outcome) -> list[Arm]:
    """Arms without a number on the axis, the baseline aside."""
    return [a for a in outcome.arms if a.values and not a.is_baseline and not is_number(a.x)]


def _colours(outcome: Outcome) -> dict[str, str]:
    """Arm to colour; arms of one series share theirs."""
    series, others = _series(outcome), cycle(OTHERS)
    colours = {arm.name: OURS for arm in (series[0] if series else [])}
    for members in series[1:]:
        colours |= dict.fromkeys((arm.name for arm in members), next(others))
    return colours | {arm.name: next(others) for arm in _beside(outcome)}


def _line_colours(outcome: Outcome) -> dict[str, str]:
    """Arm to colour where every arm has a line: a ramp along the axis, else all distinct."""
    colours = _colours(outcome) | {a.name: BASELINE for a in outcome.arms if a.is_baseline}
    for members in _series(outcome):
        if len(members) > 1:
            names = (arm.name for arm in members)
            colours |= dict(zip(names, ramp(len(members)), strict=True))
    return colours


def _label(members: Sequence[Arm]) -> str:
    names = [arm.name for arm in members]
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
