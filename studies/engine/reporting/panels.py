"""Pieces that the figures in `plots` are drawn from: one panel's marks, limits and colours."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from studies.engine.reporting.outcome import Outcome
from studies.engine.reporting.statistics import Estimate

OURS, PAPER, BASELINE = "#0072B2", "#D55E00", "#595959"
OTHERS = ("#CC79A7", "#B8860B", "#009E73", "#56B4E9", "#000000", "#7B3294")
"""Colours of arms beside the swept ones; after Okabe & Ito, legible to the colour-blind."""

STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.dpi": 150,
    "font.size": 9.5,
    "grid.alpha": 0.25,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "svg.hashsalt": "basis-zoo",  # otherwise every SVG has other identifiers
}


def new_figure(outcome: Outcome, width: float, height: float) -> Figure:
    """An empty figure titled with the study's question; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    n = len(outcome.seeds)
    title = textwrap.fill(outcome.question, int(width * 9))
    subtitle = f"{outcome.name} ({outcome.profile}), {n} seed{'' if n == 1 else 's'}"
    figure.suptitle(f"{title}\n{subtitle}", x=0.01, ha="left", fontsize=11.5)
    return figure


def shared_legend(figure: Figure) -> None:
    """One legend below all panels; an entry that several panels have is shown once."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=min(len(entries), 5),
    )


def pair(outcome: Outcome, height: float = 4.8, **options: Any) -> tuple[Figure, Axes, Axes]:
    """A figure of two panels."""
    figure = new_figure(outcome, width=10.4, height=height)
    return figure, *figure.subplots(1, 2, **options)


def draw_baseline(outcome: Outcome, left: Axes, right: Axes, *, level: bool) -> None:
    """The baseline's mean with its interval on the left, 0 on the right; `level` or upright."""
    line, span = (Axes.axhline, Axes.axhspan) if level else (Axes.axvline, Axes.axvspan)
    style = {"color": BASELINE, "lw": 1.2, "ls": "--", "label": f"{outcome.baseline} (baseline)"}
    if arm := outcome.reference:
        mean, low, high = arm.summary.estimate
        line(left, mean, **style)
        if low is not None:
            span(left, low, high, color=BASELINE, alpha=0.12, lw=0)
    line(right, 0, **style)


def name_axes(outcome: Outcome, left: Axes, right: Axes, values: str) -> None:
    """Titles, and what the axis of `values` (x or y) shows."""
    better = "higher" if outcome.direction == "maximize" else "lower"
    left.set(title=f"{outcome.metric} ({better} is better)")
    left.set(**{f"{values}label": outcome.metric})
    right.set(title="difference to the baseline, paired by seed")
    right.set(**{f"{values}label": f"Δ {outcome.metric}"})


def draw_series(
    axes: Axes,
    places: Sequence[float],
    estimates: Mapping[str, Estimate],
    colour: str,
    label: str,
) -> None:
    """Means of arms joined by a line; what lies outside the panel is said at its edge."""
    low, high = axes.get_ylim()
    inside = []
    for x, (name, (mean, *ends)) in zip(places, estimates.items(), strict=True):
        if mean is None:
            continue
        if low <= mean <= high:
            inside.append((x, mean))
            axes.errorbar(x, mean, yerr=half(*ends), color=colour, capsize=3, lw=1.2)
            continue
        edge, shape, shift = (low, "v", 9) if mean < low else (high, "^", -14)
        axes.plot(x, edge, shape, color=colour, ms=8, clip_on=False)
        axes.annotate(f"{name}: {mean:.3f}", (x, edge), xytext=(0, shift), ha="center",
                      textcoords="offset points", color=colour, fontsize=8.5)  # fmt: skip
    if inside:
        axes.plot(*zip(*inside, strict=True), "D-", color=colour, ms=5, lw=1.4, label=label)


def fit(axes: Axes, estimates: Sequence[Estimate], values: Sequence[float] = ()) -> None:
    """y limits that hold `estimates` and `values`, whatever else is drawn."""
    ends = [*values, *(v for e in estimates for v in e if v is not None)]
    if ends:
        span = (max(ends) - min(ends)) or max(abs(max(ends)), 1.0) * 0.1
        axes.set_ylim(min(ends) - 0.09 * span, max(ends) + 0.09 * span)


def half(low: float | None, high: float | None) -> float | None:
    """Half the width of an interval, as matplotlib wants it; None where there is no interval."""
    return None if low is None or high is None else (high - low) / 2


def ramp(n: int) -> list[str]:
    """`n` colours from dark to light, for lines ordered by a number."""
    colours = mpl.colormaps["viridis"]
    return [mpl.colors.to_hex(colours(0.9 * i / max(n - 1, 1))) for i in range(n)]
