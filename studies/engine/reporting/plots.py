"""Figures of a study: the metric against what was swept, and learning curves.

Every plot function draws on a `Figure` of its own (no pyplot, nothing global); `save` writes it as
PNG and SVG, the same bytes for the same input.
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
    difference_of,
    draw_series,
    fit,
    half,
    mean_of,
    new_figure,
    ramp,
    shared_legend,
)
from studies.engine.trials.metrics_file import is_number

Curves = Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]
"""Metric to arm to points (step, mean over seeds)."""


def plot_comparison(outcome: Outcome) -> Figure:
    """Each arm's mean, interval and seeds; beside it the difference to the baseline.

    Arms stand along the swept value where it is a number, in rows where it is not. The second
    panel also holds the paper's differences where the study names one of its tables.
    """
    with mpl.rc_context(STYLE):
        return _rows(outcome) if _places(outcome) is None else _sweep(outcome)


def plot_learning_curves(outcome: Outcome, curves: Curves) -> Figure:
    """One panel a metric: its mean over seeds against the optimizer step, one line an arm."""
    with mpl.rc_context(STYLE):
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


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
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
    figure = new_figure(outcome, width=10.4, height=4.8)
    left, right = figure.subplots(1, 2)
    series, beside = _series(outcome), _beside(outcome)
    main, baseline = series[0], _baseline(outcome)
    shown = main + ([baseline] if baseline else [])
    # two seeds give an interval 4 times as wide as three: it may run out of the panel
    whole = [a for a in shown if len(a.values) > 2] or shown
    seeds = [value for arm in shown for value in arm.values.values()]
    fit(left, [mean_of(a) for a in whole], seeds)
    paper = [(places[a.name], d) for a in main if (d := a.published_difference) is not None]
    fit(right, [difference_of(a) for a in whole], [0.0, *(d for _, d in paper)])
    name = f"{outcome.baseline} (baseline)"
    if baseline:
        left.axhline(baseline.summary.mean, color=BASELINE, lw=1.2, ls="--", label=name)
        if baseline.summary.low is not None:
            left.axhspan(baseline.summary.low, baseline.summary.high, color=BASELINE, alpha=0.12,
                         lw=0)  # fmt: skip
    right.axhline(0, color=BASELINE, lw=1.2, ls="--", label=name)
    colours = _colours(outcome)
    for members in series:
        x, colour = [places[a.name] for a in members], colours[members[0].name]
        label = "ours: mean, 95 % t interval, every seed" if members is main else _label(members)
        for place, arm in zip(x, members, strict=True):
            left.plot([place] * len(arm.values), list(arm.values.values()), "o", color=colour,
                      alpha=0.55, ms=4.5, mew=0)  # fmt: skip
        draw_series(left, x, members, mean_of, colour, label)
        draw_series(right, x, members, difference_of, colour, label)
    for arm in beside:
        for axes, (height, *_) in ((left, mean_of(arm)), (right, difference_of(arm))):
            if height is not None:
                axes.axhline(height, color=colours[arm.name], lw=1.2, ls="-.",
                             label=f"{arm.name}: {arm.summary.mean:.3f}")  # fmt: skip
    if paper:
        right.plot(*zip(*paper, strict=True), "s:", color=PAPER, ms=5, lw=1.4,
                   label="paper, to its own baseline")  # fmt: skip
    for axes in (left, right):
        if scale == "log":
            axes.set_xscale("log", base=2)
        ticks = {places[a.name]: f"{a.x:g}" for members in series for a in members}
        axes.set_xticks(list(ticks), labels=list(ticks.values()))
        axes.minorticks_off()
        axes.set_xlabel(f"{outcome.axis}{'' if scale == 'linear' else f' ({scale} scale)'}")
    left.set(title=_title(outcome), ylabel=outcome.metric)
    right.set(title="difference to the baseline, paired by seed", ylabel=f"Δ {outcome.metric}")
    shared_legend(figure)
    return figure


def _rows(outcome: Outcome) -> Figure:
    """One row an arm, for arms without a common number."""
    arms = [arm for arm in outcome.arms if arm.values]
    figure = new_figure(outcome, width=10.4, height=1.9 + 0.4 * max(len(arms), 3))
    left, right = figure.subplots(1, 2, sharey=True)
    name = f"{outcome.baseline} (baseline)"
    for y, arm in enumerate(arms):
        colour = BASELINE if arm.is_baseline else OURS
        left.plot(list(arm.values.values()), [y] * len(arm.values), "o", color=colour, alpha=0.55,
                  ms=4.5, mew=0)  # fmt: skip
        label = None if arm.is_baseline else "ours: mean, 95 % t interval, every seed"
        for axes, (mean, *ends) in ((left, mean_of(arm)), (right, difference_of(arm))):
            if mean is not None:
                axes.errorbar(mean, y, xerr=half(*ends), fmt="D", color=colour, ms=5, capsize=3,
                              label=label)  # fmt: skip
        if (published := arm.published_difference) is not None:
            right.plot(published, y + 0.22, "s", color=PAPER, ms=5,
                       label="paper, to its own baseline")  # fmt: skip
    if baseline := _baseline(outcome):
        left.axvline(baseline.summary.mean, color=BASELINE, lw=1.2, ls="--", label=name)
        if baseline.summary.low is not None:
            left.axvspan(baseline.summary.low, baseline.summary.high, color=BASELINE, alpha=0.12,
                         lw=0)  # fmt: skip
    right.axvline(0, color=BASELINE, lw=1.2, ls="--", label=name)
    left.set_yticks(range(len(arms)), labels=[arm.name for arm in arms])
    left.set_ylim(len(arms) - 0.4, -0.6)
    left.set(title=_title(outcome), xlabel=outcome.metric)
    right.set(title="difference to the baseline, paired by seed", xlabel=f"Δ {outcome.metric}")
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


def _baseline(outcome: Outcome) -> Arm | None:
    return next((arm for arm in outcome.arms if arm.is_baseline and arm.values), None)


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


def _title(outcome: Outcome) -> str:
    better = "higher" if outcome.direction == "maximize" else "lower"
    return f"{outcome.metric} ({better} is better)"


def _label(members: Sequence[Arm]) -> str:
    names = [arm.name for arm in members]
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
