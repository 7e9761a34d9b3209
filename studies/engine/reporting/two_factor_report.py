"""A two-factor sweep as Markdown and as a heatmap."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from basis_zoo.drawing.layout import TEXT, WIDTH, finish, panels, wrapped
from studies.engine.labels import counted
from studies.engine.reporting.outcome import Outcome
from studies.engine.reporting.panels import half, title
from studies.engine.reporting.tables import interval, number, p_value, table
from studies.engine.reporting.two_factors import TwoFactors
from studies.engine.verdicts.statistics import Estimate

_LEFT_MARGIN, _CELL, _LINE = 1.8, 0.5, 0.17
"""Width of a level's name, height of a cell and of a line, in inches."""


def markdown(anova: TwoFactors, metric: str) -> str:
    """The section on the two factors."""
    a, b = anova.factors
    seeds = counted(len(anova.seeds), "seed")
    about = (
        f"Rows are `{a}`, columns `{b}`; `{metric}`, mean over the {seeds} that "
        "every combination has. Effects are differences from the mean of all combinations, [95 %], "
        "from a linear model with both factors, their interaction and the seeds, and one variance "
        "for all combinations; the intervals are not corrected for their number. The interaction "
        "is what is left of a combination's mean without both main effects: where it is not zero, "
        "the effect of one factor depends on the other."
    )
    if anova.note:
        about += f" No intervals: {anova.note}."
    if anova.uneven:
        about += (
            f" **One variance does not hold**: the seeds of `{anova.uneven}` spread far more than "
            "the others (Cochran's C, p < 0.01). The intervals of it are too narrow, those of "
            "calmer combinations too wide, and p is a rough guide."
        )
    head = [f"{a} \\ {b}", *anova.columns, "main effect"]
    rows = [
        [name, *map(number, means), interval(effect, "+")]
        for name, means, effect in zip(anova.rows, anova.means, anova.row_effects, strict=True)
    ]
    rows.append(["main effect", *(interval(e, "+") for e in anova.column_effects), ""])
    parts = [f"## Two factors\n\n{about}\n\n{table(head, rows)}"]
    cells = [
        [name, *(interval(effect, "+") for effect in effects)]
        for name, effects in zip(anova.rows, anova.interaction, strict=True)
    ]
    parts.append("### Interaction\n\n" + table([f"{a} \\ {b}", *anova.columns], cells))
    if anova.terms:
        tests = [
            [t.name, f"{t.freedom}, {anova.freedom}", f"{t.f:.2f}", p_value(t.p)]
            for t in anova.terms
        ]
        parts.append(table(["term", "degrees of freedom", "F", "p"], tests))
    return "\n\n".join(parts)


def figures(outcome: Outcome) -> dict[str, Figure]:
    """Means of all combinations and their interaction; none without a two-factor sweep."""
    anova = outcome.two_factors
    return {} if anova is None else {"two_factors": _heatmaps(anova, outcome)}


def _heatmaps(anova: TwoFactors, outcome: Outcome) -> Figure:
    beside = 2 if len(anova.columns) < 3 else 1
    width = (WIDTH / beside - _LEFT_MARGIN - 0.5) / len(anova.columns)
    rows = [wrapped(name, TEXT, _LEFT_MARGIN) for name in anova.rows]
    columns = [wrapped(name, TEXT, width - 0.1) for name in anova.columns]
    cell = max(_CELL, *(_LINE * (name.count("\n") + 2) for name in rows))
    foot = _LINE * (max(name.count("\n") for name in columns) + 2)
    figure, (left, right) = panels(2, columns=beside, height=0.7 + foot + cell * len(rows))
    means = np.array(anova.means)
    effects = np.array([[effect for effect, *_ in row] for row in anova.interaction])
    # an interaction that may be none is pale, however small its intervals are
    ends = [half(low, high) or 0.0 for row in anova.interaction for _, low, high in row]
    reach = max(float(abs(effects).max()), *ends, 0.05 * float(np.ptp(means)), 1e-12)
    texts = [[number(v) for v in row] for row in anova.means]
    _heat(left, means, "viridis", (float(means.min()), float(means.max())), texts)
    texts = [[_cell(estimate, width > 1.0) for estimate in row] for row in anova.interaction]
    _heat(right, effects, "RdBu", (-reach, reach), texts)
    for axes in (left, right):
        axes.set(xlabel=anova.factors[1], ylabel=anova.factors[0])
        axes.set_yticks(range(len(rows)), labels=rows)
        axes.set_xticks(range(len(columns)), labels=columns)
    left.set_yticklabels(_with_effects(rows, anova.row_effects))
    left.set_xticklabels(_with_effects(columns, anova.column_effects))
    left.set_title(
        f"means of {outcome.metric} ({outcome.better} is better); below each level: main effect"
    )
    right.set_title("interaction: mean without both main effects")
    tests = "; ".join(f"{t.name} p {p_value(t.p)}" for t in anova.terms) or anova.note
    note = (
        f"Means over the {counted(len(anova.seeds), 'seed')} that all combinations have. Effects "
        "with 95 % intervals are from a linear model with the seeds as blocks; a star: the "
        f"interval leaves out 0. F tests: {tests}."
    )
    if anova.uneven:
        note += f" Rough: the seeds of {anova.uneven} spread far more than the others."
    what = title(outcome, f"{anova.factors[0]} by {anova.factors[1]}")
    return finish(figure, what, note, legend=False)


def _heat(axes: Axes, values: np.ndarray, colours: str, limits: tuple[float, float],
          texts: Sequence[Sequence[str]]) -> None:  # fmt: skip
    low, high = limits
    image = axes.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto")
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            red, green, blue, _ = image.cmap(image.norm(values[i, j]))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            axes.text(j, i, text, ha="center", va="center", fontsize=TEXT - 1,
                      color="white" if dark else "black")  # fmt: skip
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _with_effects(names: Sequence[str], effects: Sequence[Estimate]) -> list[str]:
    return [f"{name}\n{_cell(effect, False)}" for name, effect in zip(names, effects, strict=True)]


def _cell(estimate: Estimate, whole: bool) -> str:
    """An effect, with a star where its interval leaves out 0; `whole` with the interval."""
    effect, low, high = estimate
    if low is None or high is None:
        return number(effect, "+")
    text = f"{effect:+z.3f}{'*' if low > 0 or high < 0 else ''}"
    return f"{text}\n[{low:+z.3f}, {high:+z.3f}]" if whole else text
