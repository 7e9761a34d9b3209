"""Figures of what was evaluated after training: kept parameters, and the loss along a direction."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from basis_zoo.drawing.layout import finish, panels
from basis_zoo.drawing.styles import INK
from studies.engine.reporting.outcome import Outcome
from studies.engine.reporting.panels import half, labels, nan_for_none, styles, title


def figures(outcome: Outcome) -> dict[str, Figure]:
    """Figures by file name; none where nothing was evaluated after training."""
    drawn = {}
    if any(point.parameters for arm in outcome.after for point in arm.curve):
        drawn["kept_parameters"] = _kept_parameters(outcome)
    if any(arm.landscape for arm in outcome.after):
        drawn["landscape"] = _landscape(outcome)
    return drawn


def _kept_parameters(outcome: Outcome) -> Figure:
    """The metric, and what of it is lost, against the parameters that PARA keeps."""
    figure, (left, right) = panels(2, height=4.0)
    looks, names = styles(outcome), labels(outcome)
    arms = [arm for arm in outcome.after if arm.curve]
    for place, arm in enumerate(arms):
        # intervals of arms of one size would lie on each other
        shift = 1 + 0.03 * (place - (len(arms) - 1) / 2)
        curve = [point for point in arm.curve if point.parameters]  # 0 has no place on a log axis
        x = [point.parameters * shift for point in curve]
        look = looks[arm.arm]
        style = look.line(1) | {"ms": 4.5, "capsize": 3, "label": names[arm.arm]}
        for axes, estimates in (
            (left, [point.summary.estimate for point in curve]),
            (right, [point.difference.estimate for point in curve]),
        ):
            ends = [half(low, high) or 0.0 for _, low, high in estimates]
            means = nan_for_none(mean for mean, *_ in estimates)
            axes.errorbar(x, means, yerr=ends, **style)
        left.axhline(*nan_for_none([arm.trained.mean]), color=look.colour, lw=1.0, ls=":")
    right.axhline(0, color=INK, lw=1.0, ls=":")
    sizes = {round(point.parameters) for arm in arms for point in arm.curve} - {0}
    for axes in (left, right):
        _log_ticks(axes, sorted(sizes))
    left.set(title=outcome.metric, ylabel=outcome.metric)
    right.set(title="difference from the arm as trained, paired by seed",
              ylabel=f"Δ {outcome.metric}")  # fmt: skip
    note = (
        "Bars: 95 % t intervals over seeds. Dotted: the arm as trained. Arms of one size are drawn "
        "a little apart."
    )
    return finish(figure, title(outcome, "what is lost where PARA keeps fewer parameters"), note)


def _landscape(outcome: Outcome) -> Figure:
    """Validation loss against the step along the direction, one panel an arm."""
    arms = [arm for arm in outcome.after if arm.landscape]
    figure, axes_of = panels(len(arms), sharex=True)
    looks, names = styles(outcome), labels(outcome)
    for axes, arm in zip(axes_of, arms, strict=True):
        steps = [step for step, _ in arm.landscape]
        estimates = zip(*(summary.estimate for _, summary in arm.landscape), strict=True)
        means, low, high = map(nan_for_none, estimates)
        look = looks[arm.arm]
        axes.plot(steps, means, **look.line(len(steps)))
        if not any(map(math.isnan, low)):
            axes.fill_between(steps, low, high, color=look.colour, alpha=0.15, lw=0)
        axes.axvline(0, color=INK, lw=1.0, ls=":")
        axes.set(title=names[arm.arm], xlabel="step, in norms of the parameters",
                 ylabel="valid/loss")  # fmt: skip
    note = "Lines: mean over seeds. Bands: its 95 % t interval. Dotted: the trained parameters."
    return finish(figure, title(outcome, "loss along one random direction"), note, legend=False)


def _log_ticks(axes: Axes, values: list[int]) -> None:
    """A log axis labelled at `values`."""
    axes.set_xscale("log", base=2)
    axes.set_xlabel("parameters kept (log scale)")
    ticks = [values[0]]
    for value in values[1:]:
        if value / ticks[-1] > 1.5:  # arms of nearly one size share a tick
            ticks.append(value)
    axes.set_xticks(ticks, labels=[f"{tick / 1000:.3g}k" for tick in ticks])
    axes.minorticks_off()
