"""Small multiples of the tasks: the difference of every arm to the baseline on each of them."""

from typing import Any

from matplotlib.figure import Figure

from basis_zoo.drawing.layout import TEXT, finish, panels, wrapped
from basis_zoo.drawing.styles import INK
from studies.engine.reporting.outcome import Arm, Outcome
from studies.engine.reporting.panels import half, styles, title

_WIDEST = 1.6
"""Of an arm's name, in inches."""


def figures(outcome: Outcome) -> dict[str, Figure]:
    """The figure `tasks`; none where there is one task, or the baseline alone."""
    arms = [arm for arm in outcome.arms if not arm.is_baseline]
    return {"tasks": plot_tasks(outcome, arms)} if outcome.tasks and arms else {}


def plot_tasks(outcome: Outcome, arms: list[Arm]) -> Figure:
    """A panel a task and one of the whole, a row an arm, which has one colour in all of them."""
    whole = f"mean over {len(outcome.tasks)} tasks" if outcome.is_mean else outcome.metric
    outcomes = {whole: outcome, **outcome.tasks}
    names = [wrapped(arm.name, TEXT, _WIDEST) for arm in arms]
    height = max(1.6, 0.7 + 0.2 * sum(1 + name.count("\n") for name in names))
    figure, axes = panels(len(outcomes), columns=4, height=height, sharey=True)
    looks = styles(outcome)
    style: dict[str, Any] = {"color": INK, "lw": 1.2, "ls": "--"}
    for each, (name, own) in zip(axes, outcomes.items(), strict=True):
        gains = {arm.name: arm.gain for arm in own.arms}
        each.axvline(0, label=f"{outcome.baseline} (baseline)", **style)
        for y, arm in enumerate(arms):
            mean, *ends = gains.get(arm.name, (None, None, None))
            if mean is not None:
                look = looks[arm.name]
                each.errorbar(mean, y, xerr=half(*ends), fmt=look.marker, color=look.colour, ms=5.5,
                              capsize=3)  # fmt: skip
        each.set(title=name, xlabel=f"Δ {own.metric}")
    axes[0].set_yticks(range(len(arms)), labels=names)
    axes[0].set_ylim(len(arms) - 0.4, -0.6)
    what = title(outcome, "every arm's difference from the baseline on each task")
    return finish(figure, what, "Bars: 95 % t intervals over seeds, paired by seed.")
