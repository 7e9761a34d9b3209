"""The figure of docs/forms.md: what each form makes of the same factors and the same φ.

python -m tools.forms_figure docs/forms.png
"""

from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from adapters.forms import Form, Operands, PhiFunction, get_form
from basis_zoo import Nonlinearity, get_basis, get_grid, get_start
from basis_zoo.drawing.layout import finish, panels
from basis_zoo.drawing.styles import BASELINE, Style
from basis_zoo.nonlinearity import NUMBERS
from tools.figures import shrink
from tools.pages import asked_file

FORMS: dict[str, str] = {
    "elementwise": "φ(BA)",
    "hadamard": "W ⊙ φ(BA)",
    "sum": "(φ₁ + φ₂)(BA)",
    "components": "Σ φₖ(bₖaₖᵀ)",
    "factors": "φ(B) φ(A)",
    "activation": "B φ(Ax)",
    "spectral": "U φ(S) Vᵀ",
}
"""The forms in the order of the page, with what is written above their pictures."""
SIZE, RANK, FUNCTIONS = 24, 2, 12
INTERVAL = (-3.0, 3.0)
FLOOR = 1e-3
"""The smallest share of the largest singular value that is drawn."""
_OURS = Style("#0072B2")
_NOTE = (
    "Above: the update of a 24 x 24 matrix, of the same random factors of rank 2 in every form "
    "(blue below zero, red above); of activation, which changes no matrix, 24 outputs (down) for "
    "24 inputs on a line (across). Middle: its singular values, as a share of the largest. Below: "
    "φ, a sinc family with G = 12 and the same random amplitudes; sum adds a Fourier family, and "
    "components has a second φ."
)


class Picture(NamedTuple):
    """One form at work."""

    update: Tensor
    """(SIZE, SIZE)"""
    curves: Tensor
    """φ, or each of its copies, over `points`: (copies, points)."""


def points() -> Tensor:
    """Where φ is drawn."""
    return torch.linspace(*INTERVAL, 301, dtype=torch.float64)


def drawn(rows: int, columns: int, seed: int) -> Tensor:
    """Normal numbers, the same each time."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, dtype=torch.float64, generator=generator)


def phi_of(form: Form) -> Nonlinearity:
    """The φ of `form`, or its copies, with random amplitudes."""
    basis = form.basis_of(get_basis("sinc", num_basis=FUNCTIONS, interval=INTERVAL))
    phi = Nonlinearity(basis, get_grid("uniform"), get_start("anchored"), bandwidth="spacing")
    phi.repeat(NUMBERS, form.copies(RANK))
    with torch.no_grad():
        second = _amplitudes(38) * (1.0 if form.copies(RANK) > 1 else 0.3)  # Fourier's are larger
        amplitudes = torch.cat([_amplitudes(17), second])
        phi.amplitude.copy_(amplitudes[: phi.amplitude.numel()].view(phi.amplitude.shape))
    return phi


def _amplitudes(seed: int) -> Tensor:
    numbers = drawn(FUNCTIONS, 1, seed).flatten()
    return numbers - numbers.mean()


@torch.no_grad()
def picture(name: str) -> Picture:
    """What the form `name` makes of the factors that all forms have."""
    form = get_form(name)
    phi = phi_of(form)
    exact = PhiFunction.exact(phi)
    weight = drawn(SIZE, SIZE, 2)
    of = Operands(
        drawn(SIZE, RANK, 0), drawn(RANK, SIZE, 1) * 0.7, weight, INTERVAL, form.freeze(weight)
    )
    singles = exact.singles() if form.copies(RANK) > 1 else [exact]
    curves = torch.stack([single(points()) for single in singles])
    if form.mergeable:
        return Picture(form.update(of, exact), curves)
    direction = of.a.sum(dim=0) / of.a.square().sum(dim=1).mean()
    x = torch.linspace(-1.5, 1.5, SIZE, dtype=torch.float64)[:, None] * direction
    return Picture(form.apply(x, of, exact, 1.0).T, curves)


def lora() -> Picture:
    """BA of the same factors."""
    return Picture(drawn(SIZE, RANK, 0) @ drawn(RANK, SIZE, 1) * 0.7, points()[None])


def figure() -> Figure:
    """Images, spectra and φ, a column for LoRA and each form."""
    columns = {"LoRA\nB A": (lora(), BASELINE)}
    columns |= {f"{name}\n{said}": (picture(name), _OURS) for name, said in FORMS.items()}
    count = len(columns)
    drawing, axes = panels(3 * count, columns=count, height=1.4)
    for column, (title, (made, style)) in enumerate(columns.items()):
        image, spectrum, curve = axes[column::count]
        _draw_image(image, made.update, title)
        if column:
            _draw_spectrum(spectrum, "the form", made.update, style)
        _draw_spectrum(spectrum, "LoRA of the same factors", lora().update, BASELINE)
        for values in made.curves:
            curve.plot(points().numpy(), values.numpy(), color=style.colour, linewidth=style.width)
        curve.set(ylim=(-4, 4), xlabel="x", xticks=[-3, 0, 3])
        for panel in (spectrum, curve) if column else ():
            panel.tick_params(labelleft=False)
    axes[count].set_ylabel("σ / σ₁")
    axes[2 * count].set_ylabel("φ(x)")
    return finish(drawing, "What each form makes of the same factors", _NOTE)


def _draw_image(axes: Axes, update: Tensor, title: str) -> None:
    largest = float(update.abs().quantile(0.98))
    axes.imshow(update.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest)
    axes.set(title=title, xticks=[], yticks=[])
    axes.grid(visible=False)


def _draw_spectrum(axes: Axes, label: str, matrix: Tensor, style: Style) -> None:
    values = torch.linalg.svdvals(matrix)
    shares = values / values[0]
    kept = shares[shares > FLOOR]
    axes.plot(range(1, len(kept) + 1), kept.numpy(), label=label, **style.line(len(kept)))
    axes.set(yscale="log", ylim=(FLOOR, 1.8), xlim=(0, SIZE + 1), xticks=[1, 12, 24])


if __name__ == "__main__":
    file = asked_file("forms_figure", "docs/forms.png")
    figure().savefig(file)
    shrink(file)
