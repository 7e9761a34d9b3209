"""Tables in Markdown and for the terminal, and numbers as their cells have them."""

from collections.abc import Container, Sequence
from io import StringIO

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

from studies.engine.verdicts.statistics import Estimate

NONE = "—"


def interval(estimate: Estimate, sign: str = "") -> str:
    """A mean with its interval, as far as they are known; `sign` is "+" for differences."""
    mean, low, high = estimate
    ends = "" if low is None else f" [{low:{sign}z.4f}, {high:{sign}z.4f}]"
    return number(mean, sign) + ends


def number(value: float | None, sign: str = "") -> str:
    """A value of a metric; a dash where there is none."""
    return NONE if value is None else f"{value:{sign}z.4f}"  # z: no -0.0000


def p_value(p: float | None) -> str:
    """A p value; a dash where there is none."""
    if p is None:
        return NONE
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    right = {"n", "p (Holm)", "trainable", "φ", "peak memory", "step"}
    rule = ["---:" if name in right else "---" for name in head]
    cells = [head, rule, *([c.replace("|", "\\|") for c in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def section(title: str, about: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A section of a report: what the table is `about`, then the table; empty without rows."""
    return f"## {title}\n\n{about}\n\n{table(head, rows)}" if rows else ""


def grid(head: Sequence[str], rows: Sequence[Sequence[str]], left: Container[str]) -> Table:
    """A table of rich, as wide as its content; columns not named in `left` are flush right."""
    lines = Table(box=box.SIMPLE, pad_edge=False)
    for name in head:
        lines.add_column(name, justify="left" if name in left else "right")
    for row in rows:
        lines.add_row(*row)
    return lines


def plain(*lines: RenderableType) -> str:
    """Lines and tables of rich as text without colours, at most 200 columns wide."""
    text = StringIO()
    console = Console(  # whatever a notebook, or FORCE_COLOR, says of outputs
        file=text, width=200, no_color=True, legacy_windows=False,
        force_jupyter=False, force_terminal=False,
    )  # fmt: skip
    for line in lines:
        console.print(line, markup=False, highlight=False)
    return text.getvalue()
