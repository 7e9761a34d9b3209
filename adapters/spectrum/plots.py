"""Figures of spectra and of phi. Each returns a matplotlib figure and changes nothing global."""

from collections.abc import Mapping, Sequence
from itertools import product

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from adapters.spectrum.curves import PhiCurve
from adapters.spectrum.modules import ModuleSpectrum
from basis_zoo.drawing.layout import TEXT, finish, panels
from basis_zoo.drawing.styles import Style, arm_styles

_DEPTHS = ("early", "middle", "late")
_OFFSETS = 4
"""Constants of phi that a panel names at most."""
Measured = ModuleSpectrum | PhiCurve
"""A module with numbers."""


def plot_depth(
    methods: Mapping[str, Sequence[Measured]],
    *measures: str,
    styles: Mapping[str, Style] | None = None,
    about: str = "",
) -> Figure:
    """Measures against the block, a panel for each kind of module, one line a method (figure 2).

    Args:
        methods: Modules by the name of the method or the time.
        measures: Names of their numbers; without one, the stable rank.
        styles: How each method is drawn; None to choose.
        about: What the title says in a second line.

    Raises:
        ValueError: No module has such a measure.
    """
    measures = measures or ("stable_rank",)
    measures_known = {n for modules in methods.values() for m in modules for n in m.numbers()}
    for measure in measures:
        if measure not in measures_known:
            raise ValueError(
                f"unknown measure {measure!r}; known: {', '.join(sorted(measures_known))}"
            )
    styles = styles or arm_styles(list(methods))
    kinds = _kinds(methods)
    columns = len(kinds) if len(measures) > 1 and len(kinds) < 3 else 3  # a row a measure
    count = len(kinds) * len(measures)
    figure, axes = panels(count, columns=columns, sharey=len(measures) == 1)
    for each, (measure, kind) in zip(axes, product(measures, kinds), strict=True):
        for label, modules in methods.items():
            chosen = [m for m in modules if m.kind == kind and measure in m.numbers()]
            chosen.sort(key=lambda m: m.block or 0)
            depth = [m.block or 0 for m in chosen]
            values = [m.numbers()[measure] for m in chosen]
            each.plot(depth, values, label=label, **styles[label].line(len(depth)))
        each.set(title=kind, xlabel="block", ylabel=measure.replace("_", " "))
        blocks = {m.block or 0 for modules in methods.values() for m in modules}
        if len(blocks) > 1:
            each.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        else:  # between whole numbers there is no block
            each.set_xticks(list(blocks))
    names = " and ".join(measure.replace("_", " ") for measure in measures)
    what = "updates ΔW" if measures[0] in ("stable_rank", "effective_rank") else "φ"
    return finish(figure, _title(f"{names[0].upper()}{names[1:]} of the {what} by depth", about))


def plot_spectra(
    methods: Mapping[str, Sequence[ModuleSpectrum]],
    *,
    styles: Mapping[str, Style] | None = None,
    about: str = "",
) -> Figure:
    """Singular values over the leading one: the median over blocks, and the middle half.

    One panel a kind of module, one line a method (figure 4; appendix G.2).

    Arguments as in `plot_depth`.
    """
    styles = styles or arm_styles(list(methods))
    kinds = _kinds(methods)
    figure, panels_of = panels(len(kinds), sharey=True)
    for kind, axes in zip(kinds, panels_of, strict=True):
        for label, modules in methods.items():
            values = [m.values / m.values[0] for m in modules if m.kind == kind and m.values[0] > 0]
            if not values:
                continue
            shortest = min(len(v) for v in values)
            stacked = torch.stack([v[:shortest] for v in values])
            low, middle, high = stacked.quantile(
                torch.tensor([0.25, 0.5, 0.75], dtype=stacked.dtype), dim=0
            ).tolist()
            index = range(1, shortest + 1)
            # markers at equal steps would crowd at the right of a log axis
            axes.plot(index, middle, label=label, **(styles[label].line(1) | {"markevery": 0.12}))
            axes.fill_between(index, low, high, alpha=0.15, color=styles[label].colour, lw=0)
        axes.set(title=kind, xlabel="index", ylabel="singular value / largest", xscale="log",
                 yscale="log", ylim=(1e-6, 1.5))  # fmt: skip
    note = "Lines: median over blocks. Bands: the middle half of the blocks (25 % to 75 %)."
    return finish(figure, _title("Singular values of the updates ΔW", about), note)


def plot_phi(
    times: Mapping[str, Sequence[PhiCurve]],
    *,
    styles: Mapping[str, Style] | None = None,
    about: str = "",
    what: str = "φ after training",
    each_line: str = "arm",
) -> Figure:
    """phi - phi(0) at an early, a middle and a late block, one row a kind, one line a time.

    Figures 6-17. A constant is taken off each phi and named, as it would flatten the others. The
    bars at the foot of a panel are the range that x really takes, one for each time.

    Args:
        times: Curves by the name of the time or the arm, all of the same modules.
        styles, about: As in `plot_depth`.
        what: What the figure shows, for its title.
        each_line: What a line stands for.
    """
    styles = styles or arm_styles(list(times))
    last = list(times.values())[-1]
    kinds = list(dict.fromkeys(curve.kind for curve in last))
    places = [each for kind in kinds for each in _places(last, kind)]
    if len({curve.block for curve in last}) == 1:  # one block is neither early nor late
        places = list({curve.name: (curve, "") for curve, _ in places}.values())
    figure, axes = panels(len(places), height=2.3)
    for each, (place, depth) in zip(axes, places, strict=True):
        at_place = {t: next(c for c in own if c.name == place.name) for t, own in times.items()}
        _draw_phi(each, at_place, styles)
        each.xaxis.set_major_locator(MaxNLocator(4))  # small numbers are long
        block = "" if place.block is None else f", block {place.block}"
        title = f"{place.kind}{block}{depth}"
        each.set(title=title, xlabel="x = (BA)ᵢⱼ", ylabel="φ(x) − φ(0)")
    note = (
        f"Bars at the foot: the range of the entries of BA of each {each_line}, in its colour. "
        f"Where φ(0) is more than a tenth of what the panel spans, its value is written in the "
        f"{each_line}'s colour."
    )
    return finish(figure, _title(f"{what}, without its value at 0", about), note)


def _draw_phi(axes: Axes, curves: Mapping[str, PhiCurve], styles: Mapping[str, Style]) -> None:
    at_zero, low, high = {}, 0.0, 0.0
    for label, curve in curves.items():
        at_zero[label] = float(curve.y[curve.x.abs().argmin()])
        y = curve.y - at_zero[label]
        low, high = min(low, float(y.min())), max(high, float(y.max()))
        axes.plot(curve.x, y, label=label, **(styles[label].line(len(y)) | {"markevery": 0.25}))
    span = (high - low) or 1.0
    foot = low - 0.05 * span
    step = min(0.06, 0.35 / len(curves)) * span
    for i, (label, curve) in enumerate(curves.items()):
        level = foot - (i + 0.5) * step
        axes.plot([-curve.used, curve.used], [level] * 2, color=styles[label].colour, lw=2.2,
                  solid_capstyle="butt", gid="range")  # fmt: skip
    labels = sorted((t for t in at_zero if abs(at_zero[t]) > 0.1 * span),
                   key=lambda t: -abs(at_zero[t]))  # fmt: skip
    head = (0.08 + 0.13 * len(labels[:_OFFSETS])) * span  # room for what is written there
    axes.set_ylim(foot - (len(curves) + 0.5) * step, high + head)
    for i, label in enumerate(labels[:_OFFSETS]):
        more = len(labels) - _OFFSETS if i == _OFFSETS - 1 else 0
        text = f"φ(0) = {at_zero[label]:.2g}" + (f", {more} more" if more > 0 else "")
        axes.annotate(text, (0.02, 0.98), (0, -10 * i), xycoords="axes fraction", va="top",
                      textcoords="offset points", color=styles[label].colour,
                      fontsize=TEXT - 1)  # fmt: skip


def _kinds(methods: Mapping[str, Sequence[Measured]]) -> list[str]:
    return list(dict.fromkeys(m.kind for modules in methods.values() for m in modules))


def _title(what: str, about: str) -> str:
    return f"{what}\n{about}" if about else what


def _places(curves: Sequence[PhiCurve], kind: str) -> list[tuple[PhiCurve, str]]:
    """The first, the middle and the last module of a kind, each with its depth in words."""
    chosen = sorted((c for c in curves if c.kind == kind), key=lambda c: c.block or 0)
    places = chosen[0], chosen[len(chosen) // 2], chosen[-1]
    return [(curve, f" ({depth})") for curve, depth in zip(places, _DEPTHS, strict=True)]
