"""The gallery: one page that carries its pictures and asks nothing of the network."""

import html
from collections.abc import Callable, Sequence
from pathlib import Path

from basis_zoo.basis import Claim, get_basis_class, list_bases
from basis_zoo.gallery import measure, plots
from basis_zoo.grids import get_grid, list_grids
from basis_zoo.listing import describe, first_line
from basis_zoo.nonlinearity import Nonlinearity
from basis_zoo.starts import get_start, list_starts

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #2a9d8f; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.9rem; margin: 0 } h2 { margin: 0; font-size: 1.25rem }
p { max-width: 52rem } a { color: var(--accent); text-decoration: none }
section { border: 1px solid var(--line); border-radius: 12px; padding: 1rem 1.2rem;
  margin: 1.4rem 0 }
section header { display: flex; flex-wrap: wrap; gap: .4rem 2rem; align-items: center;
  justify-content: space-between }
section img { width: 100%; display: block; margin-top: .6rem }
.formula svg { height: auto; max-width: 100%; vertical-align: middle }
.facts { font-size: .85rem; opacity: .8; margin: .3rem 0 }
.badge { display: inline-block; font-size: .78rem; border-radius: 99px; padding: .05rem .6rem;
  margin: .1rem .25rem .1rem 0; border: 1px solid var(--accent); color: var(--accent) }
.badge.warn { border-color: #d1495b; color: #d1495b }
table { border-collapse: collapse; font-size: .85rem; width: 100% }
th, td { text-align: left; padding: .22rem .6rem; border-bottom: 1px solid var(--line) }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.scroll { overflow-x: auto }
"""

_INTRO = """<p>A learnable nonlinearity is φ(x) = αx + β + Σ a<sub>i</sub> ψ<sub>i</sub>(x). Each
card shows one family: its functions on every grid (ticks mark the grid; the learned one after
training on the step; steps are drawn one above the other; families that are not linear in their
amplitudes are drawn as φ for random ones), φ
fitted by least squares to three targets (grey; the interval is shaded, and outside it φ goes on
by the family's own rule), and how the largest error falls as functions are added. Errors below
1e-8 are rounding of the amplitudes to float32. Every declared fact is measured by <code>python -m
basis_zoo check NAME</code>.</p>"""


def write_gallery(
    folder: Path,
    names: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write `index.html` into `folder` and return its path; takes some seconds a family.

    `names` are the families to draw, all by default; `say` is called with the one that is being
    drawn.
    """
    families = list_bases() if names is None else list(names)
    rows, cards = [], []
    for i, name in enumerate(families, start=1):
        say(f"{i}/{len(families)} {name}")
        rows.append(_row(name))
        cards.append(_card(name))
    body = ["<h1>basis_zoo</h1>", _INTRO, _summary(rows), *cards]
    if names is None:
        body += [
            _rules("Grids", [(name, type(get_grid(name))) for name in list_grids()]),
            _rules("Starts", [(n, type(get_start(n))) for n in list_starts()]),
        ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>basis_zoo: gallery</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def _summary(rows: Sequence[str]) -> str:
    head = ["family", "smooth", "order", "reads", "outside", *(f"{t}, G 16" for t in
            measure.TARGETS), "identity, G 50"]  # fmt: skip
    cells = "".join(f"<th>{html.escape(word)}</th>" for word in head)
    return f'<div class="scroll"><table><tr>{cells}</tr>{"".join(rows)}</table></div>'


def _row(name: str) -> str:
    declared = describe(get_basis_class(name)())
    basis = measure.sized(name, 16)
    none = measure.place(basis, "uniform")[:0]
    link = f'<a href="#{name}">{name}</a>'
    words = [link, *(html.escape(declared[c]) for c in ("smooth", "order", "reads", "outside"))]
    numbers = [f"{measure.fitted(basis, target, none)[1]:.0e}" for target in measure.TARGETS]
    cells = "".join(f"<td>{w}</td>" for w in words)
    cells += "".join(f'<td class="number">{n}</td>' for n in [*numbers, _identity(name)])
    return f"<tr>{cells}</tr>"


def _identity(name: str) -> str:
    """The residual of the start `identity`, with an overhang of two points where it must."""
    basis, start = get_basis_class(name)(), get_start("identity")
    for overhang in (0, 2):
        grid = get_grid("uniform", overhang=overhang)
        try:
            module = Nonlinearity(basis, grid, start, bandwidth="spacing")
        except ValueError:  # the start refuses: what the table is to show
            continue
        return f"{module.start_residual:.0e}" + " (overhang 2)" * (overhang > 0)
    return "needs α"


def _card(name: str) -> str:
    basis = get_basis_class(name)()
    declared = describe(basis)
    badges = "".join(
        f'<span class="badge{" warn" * (c is Claim.ZERO_GRADIENT)}" title="{html.escape(c.value)}">'
        f"{c.name.lower().replace('_', ' ')}</span>"
        for c in sorted(basis.claims, key=lambda c: c.name)
    )
    facts = " · ".join(
        f"{word} {html.escape(declared[key])}"
        for word, key in (("smooth", "smooth"), ("order", "order"), ("reads", "reads"),
                          ("support", "support"), ("parity", "parity"), ("outside", "outside"))
    )  # fmt: skip
    first = html.escape(_plain(first_line(type(basis))))
    formula = plots.formula_svg(basis.formula) if basis.formula else ""
    return f"""<section id="{name}">
<header><h2>{name}</h2><div class="formula">{formula}</div></header>
<p>{first} <small>{html.escape(basis.reference)}</small></p>
<p class="facts">{facts}</p><div>{badges}</div>
<img alt="functions of {name} on each grid" src="{plots.functions_figure(name, list_grids())}">
<img alt="{name} fitted to three targets" src="{plots.fits_figure(name)}">
</section>"""


def _plain(text: str) -> str:
    """Docstring text without its TeX and code marks."""
    for mark in ("$", "`", "\\dots", "\\"):
        text = text.replace(mark, "..." if mark == "\\dots" else "")
    return text


def _rules(title: str, members: list[tuple[str, type]]) -> str:
    rows = "".join(
        f"<tr><td>{name}</td><td>{html.escape(_plain(first_line(member)))}</td></tr>"
        for name, member in members
    )
    return f"<section><h2>{title}</h2><table>{rows}</table></section>"
