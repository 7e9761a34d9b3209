"""One picture of all families."""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from basis_zoo.basis import list_bases
from basis_zoo.gallery import measure, plots

_COLUMNS = 6
_INK = "#30343b"


def write_mosaic(path: Path) -> Path:
    """Write the picture (PNG, on white) and return its path."""
    names = list_bases()
    rows = -(-len(names) // _COLUMNS)
    figure = Figure(figsize=(12, 1.75 * rows), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, _COLUMNS).flatten()
    for ax in axes:
        ax.axis("off")
    for ax, name in zip(axes, names, strict=False):
        basis = measure.sized(name, 8)
        x = torch.linspace(*basis.interval, 801, dtype=torch.float64)
        points = measure.place(basis, "uniform")
        plots.draw_functions(ax, basis, x, points, width=1.6, ticks=False)
        ax.set_title(name, fontsize=11, color=_INK, pad=4)
    if len(names) < len(axes):
        _draw_sum(axes[len(names)])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path


def _draw_sum(axes: Axes) -> None:
    """What the functions are for: weighted, they add up to phi."""
    basis = measure.sized("gaussian_rbf", 12)
    x = torch.linspace(*basis.interval, 401, dtype=torch.float64)
    points = measure.place(basis, "uniform")
    y = measure.TARGETS["wave"](x)
    design = measure.functions(basis, x, points)
    amplitude = torch.linalg.lstsq(design.T, y[:, None]).solution
    for row, color in zip(design * amplitude, plots.function_colors(len(design)), strict=True):
        axes.plot(x, row, color=color, lw=1.2, alpha=0.8)
    axes.plot(x, (design * amplitude).sum(dim=0), color=_INK, lw=2.4)
    axes.set_title("φ = Σ aᵢ ψᵢ", fontsize=12, color=_INK, pad=4)
