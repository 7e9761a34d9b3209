"""The table of everything registered."""

import inspect
import math

from basis_zoo.basis import Basis, get_basis_class, list_bases
from basis_zoo.grids import get_grid, list_grids
from basis_zoo.starts import get_start, list_starts

COLUMNS = ("family", "smooth", "order", "reads", "support", "parity", "outside", "claims")


def describe(basis: Basis) -> dict[str, str]:
    """What a family declares, one short text for each of `COLUMNS`."""
    counts = {"grid": basis.num_points, "bandwidth": basis.num_bandwidths}
    inputs = [word for word, count in counts.items() if count]
    support = basis.support
    return {
        "family": basis.name,
        "smooth": _smoothness(basis.smoothness),
        "order": {None: "-", math.inf: "∞"}.get(basis.order, f"{basis.order}"),
        "reads": ", ".join(inputs) or "interval",
        "support": "all" if support == math.inf else f"|z| <= {support:g}",
        "parity": basis.parity or "-",
        "outside": basis.extrapolation,
        "claims": ", ".join(sorted(c.name.lower() for c in basis.claims)) or "-",
    }


def _smoothness(smoothness: float) -> str:
    if smoothness == -1:
        return "jumps"
    return "C^∞" if smoothness == math.inf else f"C^{smoothness:g}"


def format_table() -> str:
    """Families with what they declare, then grids and starts with their first line."""
    rows = [describe(get_basis_class(name)()) for name in list_bases()]
    wide = {c: max(len(c), *(len(row[c]) for row in rows)) for c in COLUMNS}
    lines = ["  ".join(f"{c:{wide[c]}}" for c in COLUMNS).rstrip()]
    lines.append("  ".join("-" * wide[c] for c in COLUMNS))
    lines += ["  ".join(f"{row[c]:{wide[c]}}" for c in COLUMNS).rstrip() for row in rows]
    for title, names, get in (
        ("grid", list_grids(), get_grid),
        ("start", list_starts(), get_start),
    ):
        lines += ["", title, "-" * len(title)]
        lines += [f"{name:18} {first_line(type(get(name)))}" for name in names]
    return "\n".join(lines)


def first_line(thing: object) -> str:
    """The first line of its docstring."""
    return (inspect.getdoc(thing) or "").splitlines()[0]
