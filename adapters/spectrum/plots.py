"""Figures of spectra and of phi. Each returns a matplotlib figure and changes nothing global."""

from collections.abc import Mapping, Sequence

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


def plot_depth(
    methods: Mapping[str, Sequence[ModuleSpectrum]],
    measure: str = "stable_rank",
    *,
    styles: Mapping[str, Style] | None = None,
    about: str = "",
) -> Figure:
    """A measure against the block, one panel a kind of module, one line a method (figure 2).

    Args:
        methods: Spectra by the name of the method or the time.
        measure: A name from `ModuleSpectrum.numbers`.
        styles: How each method is drawn; None to choose.
        about: What the title says in a second line.

    Raises:
        ValueError: No module has such a measure.
    """
    known = {n for modules in methods.values() for m in modules for n in m.numbers()}
    if measure not in known:
        raise ValueError(f"unknown measure {measure!r}; known: {', '.join(sorted(known))}")
    styles = styles or arm_styles(list(methods))
    figure, axes_of = _by_kind(methods)
    name = measure.replace("_", " ")
    for kind, axes in axes_of.items():
        for label, modules in methods.items():
            chosen = [m for m in modules if m.kind == kind and measure in m.numbers()]
            chosen.sort(key=lambda m: m.block or 0)
            depth = [m.block or 0 for m in chosen]
            values = [m.numbers()[measure] for m in chosen]
            axes.plot(depth, values, label=label, **styles[label].line(len(depth)))
        axes.set(title=kind, xlabel="block", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    what = "updates ΔW" if measure in ("stable_rank", "effective_rank") else "φ"
    return finish(figure, _title(f"{name[0].upper()}{name[1:]} of the {what} by depth", about))


def plot_spectra(
    methods: Mapping[str, Sequence[ModuleSpectrum]],
    *,
    styles: Mapping[str, Style] | None = None,
    about: str = "",
) -> Figure:
    """Singular values over the leading one: the median over blocks, and the middle half.

    One panel a kind of module, one line a method (figure 4; appendix G.2).

    Args:
        methods: Spectra by the name of the method or the time.
        styles: How each method is drawn; None to choose.
        about: What the title says in a second line.
    """
    styles = styles or arm_styles(list(methods))
    figure, axes_of = _by_kind(methods)
    for kind, axes in axes_of.items():
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
) -> Figure:
    """phi - phi(0) at an early, a middle and a late block, one row a kind, one line a time.

    Figures 6-17. A constant is taken off each phi and named, as it would flatten the others. The
    bars at the foot of a panel are the range that x really takes, one for each time.

    Args:
        times: Curves by the name of the time or the arm, all of the same modules.
        styles: How each of `times` is drawn; None to choose.
        about: What the title says in a second line.
    """
    styles = styles or arm_styles(list(times))
    last = list(times.values())[-1]
    kinds = list(dict.fromkeys(curve.kind for curve in last))
    figure, axes = panels(3 * len(kinds), height=2.3)
    for i, kind in enumerate(kinds):
        for each, place, depth in zip(axes[3 * i :], _places(last, kind), _DEPTHS, strict=False):
            named = {t: next(c for c in own if c.name == place.name) for t, own in times.items()}
            _draw_phi(each, named, styles)
            each.set(title=f"{kind}, block {place.block} ({depth})", xlabel="x = (BA)ᵢⱼ",
                     ylabel="φ(x) − φ(0)")  # fmt: skip
    note = (
        "Bars at the foot: the range of the entries of BA of each arm, in its colour. Where φ(0) "
        "is more than a tenth of what the panel spans, its value is written in the arm's colour."
    )
    return finish(figure, _title("φ after training, without its value at 0", about), note)


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
    shown = sorted((t for t in at_zero if abs(at_zero[t]) > 0.1 * span),
                   key=lambda t: -abs(at_zero[t]))  # fmt: skip
    head = (0.08 + 0.13 * len(shown[:_OFFSETS])) * span  # room for what is written there
    axes.set_ylim(foot - (len(curves) + 0.5) * step, high + head)
    for i, label in enumerate(shown[:_OFFSETS]):
        more = len(shown) - _OFFSETS if i == _OFFSETS - 1 else 0
        text = f"φ(0) = {at_zero[label]:.2g}" + (f", {more} more" if more > 0 else "")
        axes.annotate(text, (0.02, 0.98), (0, -10 * i), xycoords="axes fraction", va="top",
                      textcoords="offset points", color=styles[label].colour,
                      fontsize=TEXT - 1)  # fmt: skip


def _by_kind(
    methods: Mapping[str, Sequence[ModuleSpectrum]],
) -> tuple[Figure, dict[str, Axes]]:
    kinds = list(dict.fromkeys(m.kind for modules in methods.values() for m in modules))
    figure, axes = panels(len(kinds), sharey=True)
    return figure, dict(zip(kinds, axes, strict=True))


def _title(what: str, about: str) -> str:
    return f"{what}\n{about}" if about else what


def _places(curves: Sequence[PhiCurve], kind: str) -> list[PhiCurve]:
    """The first, the middle and the last module of a kind."""
    chosen = sorted((c for c in curves if c.kind == kind), key=lambda c: c.block or 0)
    return [chosen[0], chosen[len(chosen) // 2], chosen[-1]]
