"""Pictures as text to be put into a page: PNG as data, formulas as SVG paths."""

import base64
import io
import re

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from basis_zoo.basis import Basis
from basis_zoo.gallery import measure

INK = "#8a8f98"
"""The colour of axes and labels: readable on white and on black."""
ACCENTS = {"wave": "#2a9d8f", "kink": "#e9a23b", "step": "#d1495b"}
_COLORS = matplotlib.colormaps["turbo"]
_DPI = 150


def function_colors(count: int) -> list[tuple[float, float, float, float]]:
    """One colour a function, from the first to the last."""
    return [_COLORS(0.08 + 0.84 * i / max(count - 1, 1)) for i in range(count)]


def draw_functions(
    axes: Axes, basis: Basis, x: Tensor, points: Tensor, *, width: float = 1.2, ticks: bool = True
) -> None:
    """All functions in one pair of axes; `ticks` shows the grid below them."""
    values = measure.functions(basis, x, points)
    if basis.smoothness < 0:  # steps hide each other: one above the other, the first on top
        values = values - 2.6 * torch.arange(len(values))[:, None]
    for row, color in zip(values, function_colors(len(values)), strict=True):
        axes.plot(x, row, color=color, lw=width, solid_capstyle="round")
    low, high = values.min().item(), values.max().item()
    room = 0.12 * (high - low)
    axes.set_ylim(low - room, high + room)
    if ticks and len(points):
        axes.plot(points, torch.full_like(points, low - 0.6 * room), "|", color=INK, ms=5, mew=1)


def functions_figure(name: str, grids: list[str]) -> str:
    """The family's functions on each grid, or for several G, as a PNG data address."""
    panels = [(measure.sized(name, 9), grid, grid) for grid in grids]
    if not panels[0][0].num_points:
        sizes = sorted({measure.sized(name, count).num_basis for count in (4, 6, 8, 12, 16)})
        panels = [(measure.sized(name, n), "uniform", f"no grid, G = {n}") for n in sizes]
    figure = Figure(figsize=(11, 1.9), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (basis, grid, title) in zip(axes, panels, strict=True):
        x = torch.linspace(*basis.interval, 601, dtype=torch.float64)
        draw_functions(ax, basis, x, measure.place(basis, grid))
        _style(ax, title)
        if basis.smoothness < 0:
            ax.set_yticks([])
    return _png(figure)


def fits_figure(name: str) -> str:
    """phi with 16 functions fitted to each target, and the error against G, as PNG data."""
    basis = measure.sized(name, 16)
    low, high = basis.interval
    figure = Figure(figsize=(11, 2.2), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.25])
    x = torch.linspace(
        low - 0.25 * (high - low), high + 0.25 * (high - low), 901, dtype=torch.float64
    )
    for ax, (target, function) in zip(axes, measure.TARGETS.items(), strict=False):
        y, error = measure.fitted(basis, target, x)
        inside = (x >= low) & (x <= high)
        want = function(x[inside])
        ax.axvspan(low, high, color=INK, alpha=0.09, lw=0)
        ax.plot(x[inside], want, color=INK, lw=3.5, alpha=0.45, solid_capstyle="round")
        ax.plot(x, y, color=ACCENTS[target], lw=1.3)
        room = 0.5 * (want.max() - want.min()).item()
        ax.set_ylim(want.min().item() - room, want.max().item() + room)
        _style(ax, f"{target}, {_functions(basis)}: error {error:.1e}")
    last = axes[-1]
    for target, points in measure.errors(name).items():
        sizes, values = zip(*points, strict=True)
        last.loglog(sizes, [max(v, 1e-9) for v in values], "o-", ms=3, lw=1.2, label=target,
                    color=ACCENTS[target])  # fmt: skip
    last.set_ylim(1e-8, 30)
    last.minorticks_off()
    last.set_xticks([4, 8, 16, 32, 64], ["4", "8", "16", "32", "64"])
    last.grid(color=INK, alpha=0.2, lw=0.6)
    last.legend(fontsize=7, frameon=False, labelcolor=INK, loc="lower left")
    _style(last, "largest error against G")
    return _png(figure)


def _functions(basis: Basis) -> str:
    return f"{basis.num_basis} function" + "s" * (basis.num_basis != 1)


def formula_svg(formula: str, size: float = 15) -> str:
    """The formula as an SVG element of paths in the current text colour: no font is needed.

    Raises:
        ValueError: matplotlib's mathtext cannot parse it.
    """
    figure = Figure(figsize=(0.01, 0.01))
    figure.text(0, 0, f"${formula}$", fontsize=size, color="#010203")
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "mathtext.fontset": "cm",
                                "svg.hashsalt": formula}):  # fmt: skip
        figure.savefig(file, format="svg", transparent=True, bbox_inches="tight", pad_inches=0.03,
                       metadata={"Date": None, "Creator": None})  # fmt: skip
    text = re.sub(r"<metadata>.*?</metadata>", "", file.getvalue().decode(), flags=re.DOTALL)
    return text[text.index("<svg") :].replace("#010203", "currentColor")


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=8, color=INK, pad=3)
    axes.tick_params(colors=INK, labelsize=6.5, length=2, width=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
        spine.set_linewidth(0.6)


def _png(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, transparent=True, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
