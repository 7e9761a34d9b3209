"""One colour, dash pattern and marker for each arm, the same in every figure of one report.

The baseline is nearly black and dashed. Arms of a numeric sweep take their colours, in order, from
viridis, whose lightness grows evenly; a second sweep over the same values keeps the colours and
has other dashes. All other arms take colours from a list for the colour-blind (after Okabe & Ito,
and Tol), then the same colours again with other dashes and markers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, product
from typing import Any

import matplotlib as mpl

INK = "#1a1a1a"
"""The colour of the baseline."""
GREY = "#8c8c8c"
"""The colour of what belongs to no arm."""
PAPER = "#D55E00"
"""The colour of published numbers; no arm has it."""

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#882255", "#999933", "#7B3294")
_WARM = ("#E69F00", "#CC79A7", "#882255", "#A6561F")
"""Colours beside a sweep: far from viridis."""
_DASHES: tuple[Any, ...] = (
    "-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (8, 1.5, 1, 1.5, 1, 1.5)),
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_ROUNDS = list(islice(zip(cycle(_DASHES), cycle(_MARKERS), strict=False), 35))
"""Dashes and marker of the first round of colours, the second, and so on; all differ."""


@dataclass(frozen=True)
class Style:
    """How one arm is drawn."""

    colour: str
    dashes: Any = "-"
    marker: str = "o"
    width: float = 1.4

    def line(self, points: int) -> dict[str, Any]:
        """Options of `Axes.plot` for a line through `points` points, with at most 12 markers."""
        return {
            "color": self.colour,
            "ls": self.dashes,
            "lw": self.width,
            "marker": self.marker,
            "ms": 3.5,
            "markevery": max(1, -(-points // 12)),
        }


BASELINE = Style(INK, (0, (4, 1.5)), "o", 2.2)


def arm_styles(
    names: Sequence[str], baseline: str | None = None, sweeps: Sequence[Mapping[str, float]] = ()
) -> dict[str, Style]:
    """A style for each of `names`; no two are equal.

    Args:
        names: Names of arms, in an order that does not change between figures.
        baseline: Which of them is the baseline.
        sweeps: Arms that differ in one number, with that number; one mapping a sweep.

    Raises:
        ValueError: More arms than there are styles.
    """
    styles = dict(_scale(sweeps))
    if baseline is not None:
        styles[baseline] = BASELINE
    rest = [name for name in dict.fromkeys(names) if name not in styles]
    colours = _WARM if sweeps else _COLOURS
    looks = [Style(c, *look) for look, c in product(_ROUNDS, colours)]
    if len(rest) > len(looks):
        raise ValueError(
            f"{len(rest)} arms are more than the {len(looks)} distinct styles: "
            "draw fewer in one figure"
        )
    styles |= dict(zip(rest, looks, strict=False))
    return {name: styles[name] for name in dict.fromkeys(names)}


def _scale(sweeps: Sequence[Mapping[str, float]]) -> list[tuple[str, Style]]:
    values = sorted({value for sweep in sweeps for value in sweep.values()})
    colours = mpl.colormaps["viridis"]
    last = max(len(values) - 1, 1)
    at = {v: mpl.colors.to_hex(colours(0.08 + 0.84 * i / last)) for i, v in enumerate(values)}
    return [
        (name, Style(at[value], *look))
        for sweep, look in zip(sweeps, cycle(_ROUNDS), strict=False)
        for name, value in sweep.items()
    ]
