"""Figures of spectra and of phi. Each returns a matplotlib figure and changes nothing global."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adapters.spectrum.curves import PhiCurve
from adapters.spectrum.modules import ModuleSpectrum

_DEPTHS = ("early", "middle", "late")


def plot_depth(
    methods: Mapping[str, Sequence[ModuleSpectrum]], measure: str = "stable_rank"
) -> Figure:
    """A measure against the block, one panel a kind of module, one line a method (figure 2).

    Args:
        methods: Spectra by the name of the method or the time.
        measure: A name from `ModuleSpectrum.numbers`.

    Raises:
        ValueError: No module has such a measure.
    """
    kinds = list(dict.fromkeys(m.kind for modules in methods.values() for m in modules))
    known = {n for modules in methods.values() for m in modules for n in m.numbers()}
    if measure not in known:
        raise ValueError(f"unknown measure {measure!r}; known: {', '.join(sorted(known))}")
    figure = Figure(figsize=(3.2 * len(kinds), 2.8), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        for label, modules in methods.items():
            chosen = [m for m in modules if m.kind == kind and measure in m.numbers()]
            chosen.sort(key=lambda m: m.block or 0)
            depth = [m.block or 0 for m in chosen]
            axes.plot(depth, [m.numbers()[measure] for m in chosen], marker="o", label=label)
        axes.set(title=kind, xlabel="block")
    panels[0].set_ylabel(measure.replace("_", " "))
    _legend(figure, panels[0])
    return figure


def plot_spectra(methods: Mapping[str, Sequence[ModuleSpectrum]]) -> Figure:
    """Singular values over the leading one: the median over blocks, and the middle half.

    One panel a kind of module, one line a method (figure 4; appendix G.2).

    Args:
        methods: Spectra by the name of the method or the time.
    """
    kinds = list(dict.fromkeys(m.kind for modules in methods.values() for m in modules))
    figure = Figure(figsize=(3.2 * len(kinds), 2.8), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, kind in zip(panels, kinds, strict=True):
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
            (line,) = axes.plot(index, middle, label=label)
            axes.fill_between(index, low, high, alpha=0.2, color=line.get_color())
        axes.set(title=kind, xlabel="index", xscale="log", yscale="log", ylim=(1e-6, 1.5))
    panels[0].set_ylabel("singular value / largest")
    _legend(figure, panels[0])
    return figure


def plot_phi(times: Mapping[str, Sequence[PhiCurve]]) -> Figure:
    """phi at an early, a middle and a late block, one row a kind of module, one line a time.

    Figures 6-17. The shaded range is the one that x really takes, at the last time.

    Args:
        times: Curves by the name of the time, such as the step of a checkpoint.
    """
    last = list(times.values())[-1]
    kinds = list(dict.fromkeys(curve.kind for curve in last))
    figure = Figure(figsize=(9.6, 2.4 * len(kinds)), layout="constrained")
    panels = figure.subplots(len(kinds), 3, squeeze=False)
    for row, kind in zip(panels, kinds, strict=True):
        for axes, place, depth in zip(row, _places(last, kind), _DEPTHS, strict=True):
            for label, curves in times.items():
                curve = next(c for c in curves if c.name == place.name)
                axes.plot(curve.x, curve.y, label=label)
            axes.axvspan(-place.used, place.used, alpha=0.1)
            axes.set(title=f"{kind}, block {place.block} ({depth})", xlabel="x", ylabel="φ(x)")
    _legend(figure, panels[0][0])
    return figure


def _legend(figure: Figure, axes: Axes) -> None:
    """Below the panels: many arms would hide the lines of one."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5))


def _places(curves: Sequence[PhiCurve], kind: str) -> list[PhiCurve]:
    """The first, the middle and the last module of a kind."""
    chosen = sorted((c for c in curves if c.kind == kind), key=lambda c: c.block or 0)
    return [chosen[0], chosen[len(chosen) // 2], chosen[-1]]
