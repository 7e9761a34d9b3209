"""Figure of the training loss on a plane through the trained parameters."""

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from basis_zoo.drawing.layout import TEXT, finish, panels
from basis_zoo.drawing.styles import INK
from studies.archives.unpack import DAMAGED
from studies.engine.definition.sections import SURFACE
from studies.engine.reporting.outcome import Outcome
from studies.engine.reporting.panels import first_kept, labels, title

LEVELS = 12
"""Bands of a panel."""


def figures(outcome: Outcome, trials_dir: Path) -> dict[str, Figure]:
    """One panel an arm, from the first seed of each that kept its surface; none without any.

    Args:
        outcome: Of the study.
        trials_dir: Holds `<key>/loss_surface.npz`.
    """
    surfaces = first_kept(outcome, trials_dir, _read)
    if not surfaces:
        return {}
    figure, axes_of = panels(len(surfaces), height=3.4)
    names = labels(outcome)
    for axes, (name, (_, (steps, loss))) in zip(axes_of, surfaces.items(), strict=True):
        _draw(axes, steps, loss)
        axes.set(title=names[name], xlabel="second direction", ylabel="first direction")
    note = (
        "Training loss, without dropout, of one trial of each arm, on its training rows. Steps are "
        "in norms of the parameters along two random directions, each scaled to the norm of each "
        "row of each matrix (Li et al. 2018). Cross: the trained parameters. Bands: equal steps of "
        "the loss, on a scale of its own in each panel; compare shapes, not heights. Empty: no "
        "finite loss."
    )
    what = "training loss on a plane through the trained parameters"
    return {"loss_surface": finish(figure, title(outcome, what), note, legend=False)}


def _draw(axes: Axes, steps: NDArray[np.float64], loss: NDArray[np.float64]) -> None:
    finite = np.ma.masked_invalid(loss)
    low, high = float(finite.min()), float(finite.max())
    span = high - low or 1.0
    levels = np.linspace(low, low + span, LEVELS + 1)
    pale = high + 0.8 * span  # so that what is written can be read
    axes.contourf(steps, steps, finite, levels=levels, cmap="Blues", vmax=pale)
    lines = axes.contour(steps, steps, finite, levels=levels, colors=INK, linewidths=0.5)
    # as many digits as tell two labels apart
    digits = max(0, 1 - math.floor(math.log10(2 * span / LEVELS)))
    for text in axes.clabel(lines, levels[1:-1:2], fontsize=TEXT - 1, fmt=f"%.{digits}f"):
        if max(map(abs, text.get_position())) > 0.85 * steps.max():  # the panel's edge would cut it
            text.remove()
    axes.plot(0, 0, "+", color=INK, ms=11, mew=2.5)
    axes.grid(visible=False)


def _read(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Steps and the loss at each pair; None where there is nothing whole, or no finite loss."""
    try:
        with np.load(folder / SURFACE, allow_pickle=False) as arrays:
            steps, loss = arrays["steps"], arrays["loss"]
    except (FileNotFoundError, KeyError, *DAMAGED):
        return None
    return (steps, loss) if np.isfinite(loss).any() else None
