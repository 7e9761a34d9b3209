"""Figures in which nothing is cut off: panels in rows, room for title, legend and note.

A figure is made by `panels`, drawn on, and closed by `finish`. The figure grows by the height of
its title (above), legend and note (below), which are wrapped to its width, so that they take
nothing from the panels. Nothing global is changed.
"""

import re
from functools import lru_cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine

DPI = 130
WIDTH = 10.2
"""Width of a figure, in inches; panels that do not fit go to the next row."""
TEXT = 8.5
"""Size of everything but titles, in points."""
_TITLE, _PANEL, _NOTE = 11.5, 9.5, 8.0
_LINE = 1.3 / 72
"""Height of a line of text, in inches for each point of its size."""
_MARGIN = 0.1
_MEASURE = RendererAgg(8, 8, DPI)


def panels(
    count: int, *, columns: int = 3, height: float = 2.5, width: float = WIDTH, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, at most `columns` in a row, each `height` inches high.

    `options` are those of `Figure.subplots`.
    """
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = Figure(figsize=(width, rows * height), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for surplus in axes[count:]:
        surplus.remove()
    for each in axes[:count]:
        each.grid(visible=True, alpha=0.25)
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=TEXT)
    return figure, axes[:count]


def finish(figure: Figure, title: str, note: str = "", *, legend: bool = True) -> Figure:
    """Put `title` above the panels, one legend of all of them and `note` below; returns `figure`.

    `title` may have several lines. An entry that several panels have is in the legend once.
    """
    width, body = figure.get_size_inches()
    inner = width - 2 * _MARGIN
    head, foot = wrapped(title, _TITLE, inner), wrapped(note, _NOTE, inner) if note else ""
    above, below = _height(head, _TITLE), _height(foot, _NOTE)
    box = _legend(figure, inner) if legend else None
    entries = 0.0
    if box is not None:
        entries = box.get_window_extent(_renderer(figure)).height / figure.dpi + _MARGIN
    total = body + above + entries + below
    figure.set_size_inches(width, total)
    figure.suptitle(
        head, x=_MARGIN / width, y=1 - _MARGIN / total, ha="left", va="top", fontsize=_TITLE
    ).set_in_layout(False)
    if box is not None:
        box.set_bbox_to_anchor((0.5, (below + entries) / total), figure.transFigure)
    if foot:
        figure.text(
            _MARGIN / width, _MARGIN / total, foot, va="bottom", fontsize=_NOTE, color="#444444"
        ).set_in_layout(False)
    area = (0, (below + entries) / total, 1, body / total)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=area, h_pad=0.06, w_pad=0.08))
    for axes in figure.axes:
        _set_sizes(axes)
    figure.draw_without_rendering()  # only now the panels have a size to wrap for
    for axes in figure.axes:
        _wrap(axes, figure.dpi)
    return figure


def wrapped(text: str, size: float, inches: float) -> str:
    """`text` in lines of at most `inches` at font size `size`, in points.

    Lines break at spaces; a word that is longer than a line breaks after one of `,/=_-`, or
    anywhere.
    """
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in re.findall(r"\S+\s*", paragraph):
            if _width(word.rstrip(), size) > inches:
                pieces = _cut(word, size, inches)
            else:
                pieces = [word]
            for piece in pieces:
                if line and _width((line + piece).rstrip(), size) > inches:
                    lines.append(line.rstrip())
                    line = ""
                line += piece
        lines.append(line.rstrip())
    return "\n".join(lines)


def _cut(word: str, size: float, inches: float) -> list[str]:
    pieces = []
    for piece in re.findall(r"[^,/=_-]+[,/=_-]*|[,/=_-]+", word):
        fits = _width(piece.rstrip(), size) <= inches
        pieces += [piece] if fits else list(piece)
    return pieces


@lru_cache(maxsize=4096)
def _width(text: str, size: float) -> float:
    """The width of `text`, in inches."""
    width: float
    width, *_ = _MEASURE.get_text_width_height_descent(text, FontProperties(size=size), False)
    return 1.02 * width / DPI


def _height(text: str, size: float) -> float:
    return (text.count("\n") + 1) * size * _LINE + 1.5 * _MARGIN if text else 0.0


def _legend(figure: Figure, width: float) -> Any:
    """The legend, in as many columns as fit into `width` inches; None where nothing has a label."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if not entries:
        return None
    labels = [wrapped(label, TEXT, width - 1.0) for label in entries]
    for columns in range(min(len(labels), 5), 0, -1):
        box = figure.legend(
            entries.values(), labels, loc="upper center", ncols=columns, fontsize=TEXT,
            frameon=False, handlelength=3.2, borderaxespad=0, borderpad=0.2,
        )  # fmt: skip
        if columns == 1 or box.get_window_extent(_renderer(figure)).width <= width * figure.dpi:
            return box
        box.remove()
    return None


def _renderer(figure: Figure) -> RendererAgg:
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer: RendererAgg = canvas.get_renderer()
    return renderer


def _set_sizes(axes: Axes) -> None:
    axes.set_title(axes.get_title() or axes.get_title(loc="left"), loc="left", fontsize=_PANEL)
    axes.set_title("", loc="center")
    axes.xaxis.label.set_fontsize(TEXT)
    axes.yaxis.label.set_fontsize(TEXT)


def _wrap(axes: Axes, dpi: float) -> None:
    """Titles and labels of the axes as wide as the panel at most."""
    box = axes.get_window_extent()
    width, height = box.width / dpi, box.height / dpi
    axes.set_title(wrapped(axes.get_title(loc="left"), _PANEL, width), loc="left", fontsize=_PANEL)
    axes.set_xlabel(wrapped(axes.get_xlabel(), TEXT, width))
    axes.set_ylabel(wrapped(axes.get_ylabel(), TEXT, height))
