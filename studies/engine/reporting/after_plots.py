"""Figures of what was evaluated after training: kept parameters, and the loss along a direction."""

from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.engine.reporting.outcome import Outcome
from studies.engine.reporting.panels import (
    BASELINE,
    OTHERS,
    OURS,
    half,
    new_figure,
    pair,
    shared_legend,
)


def figures(outcome: Outcome) -> dict[str, Figure]:
    """Figures by file name; none where nothing was evaluated after training."""
    found = {}
    if any(arm.curve for arm in outcome.after):
        found["kept_parameters"] = _kept_parameters(outcome)
    if any(arm.landscape for arm in outcome.after):
        found["landscape"] = _landscape(outcome)
    return found


def _kept_parameters(outcome: Outcome) -> Figure:
    """The metric, and what of it is lost, against the parameters that PARA keeps."""
    figure, left, right = pair(outcome)
    colours = _colours(outcome)
    arms = [arm for arm in outcome.after if arm.curve]
    for place, arm in enumerate(arms):
        # intervals of arms of one size would lie on each other
        shift = 1 + 0.03 * (place - (len(arms) - 1) / 2)
        x = [kept.parameters * shift for kept in arm.curve]
        style = {"color": colours[arm.arm], "marker": "D", "ms": 4.5, "lw": 1.4, "capsize": 3}
        for axes, estimates in (
            (left, [kept.summary.estimate for kept in arm.curve]),
            (right, [kept.difference.estimate for kept in arm.curve]),
        ):
            ends = [half(low, high) or 0.0 for _, low, high in estimates]
            means = [mean for mean, *_ in estimates]
            axes.errorbar(x, means, yerr=ends, label=arm.arm, **style)
        left.axhline(arm.trained.mean, color=colours[arm.arm], lw=1.0, ls=":")
    right.axhline(0, color=BASELINE, lw=1.0, ls=":")
    for axes in (left, right):
        _log_ticks(axes, sorted({round(kept.parameters) for arm in arms for kept in arm.curve}))
    left.set(title="mean, 95 % t interval; dotted: as trained", ylabel=outcome.metric)
    right.set(title="difference to the arm as trained, paired by seed",
              ylabel=f"Δ {outcome.metric}")  # fmt: skip
    shared_legend(figure)
    return figure


def _landscape(outcome: Outcome) -> Figure:
    """Validation loss against the step along the direction, one panel an arm."""
    arms = [arm for arm in outcome.after if arm.landscape]
    figure = new_figure(outcome, width=max(3.0 * len(arms), 6.0), height=4.2)
    panels = figure.subplots(1, len(arms), squeeze=False)[0]
    colours = _colours(outcome)
    for axes, arm in zip(panels, arms, strict=True):
        steps = [step for step, _ in arm.landscape]
        summaries = [summary for _, summary in arm.landscape]
        axes.plot(steps, [s.mean for s in summaries], color=colours[arm.arm], lw=1.6)
        if all(s.low is not None for s in summaries):
            axes.fill_between(steps, [s.low for s in summaries], [s.high for s in summaries],
                              color=colours[arm.arm], alpha=0.15, lw=0)  # fmt: skip
        axes.axvline(0, color=BASELINE, lw=1.0, ls=":")
        axes.set(title=arm.arm, xlabel="step, in norms of the parameters")
    panels[0].set_ylabel("valid/loss, mean over seeds, 95 %")
    return figure


def _colours(outcome: Outcome) -> dict[str, str]:
    others = cycle((OURS, *OTHERS))
    return {
        arm.arm: BASELINE if arm.arm == outcome.baseline else next(others) for arm in outcome.after
    }


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
