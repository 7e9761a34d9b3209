"""Whether a form with its start changes nothing before the first step, and then learns."""

import copy

import torch
from torch import Tensor

from adapters.forms.form import Form, Operands
from adapters.forms.phi_function import PhiFunction
from basis_zoo import Nonlinearity
from basis_zoo.nonlinearity import NUMBERS

_OUT, _IN, _RANK = 5, 4, 2
_SMALL = 1e-6


def _operands(form: Form, interval: tuple[float, float], b_std: float) -> Operands:
    """Small factors and a small W for `form`, float64 and the same each time."""
    generator = torch.Generator().manual_seed(0)

    def draw(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, dtype=torch.float64, generator=generator)

    k = form.factor_rank(_RANK)
    b, a, weight = draw(_OUT, k) * b_std, draw(k, _IN), draw(_OUT, _IN)
    return Operands(b, a, weight, interval, form.freeze(weight))


def check_start(form: Form, phi: Nonlinearity, b_std: float) -> None:
    """Refuse a start that changes the model, or under which no trained number has a gradient.

    phi is not changed; `b_std` is the standard deviation of B, 0 where it starts at zero.

    Raises:
        ValueError: The message names another start.
    """
    with torch.inference_mode(False), torch.enable_grad():
        phi = copy.deepcopy(phi)
        phi.repeat(NUMBERS, form.copies(_RANK))
        if phi.copies != form.copies(_RANK):
            raise ValueError(
                f"form {form.name!r} gives each of its φ numbers of its own, and none is trained: "
                "train amplitudes or bandwidths"
            )
        of = _operands(form, phi.phi.basis.interval, b_std)
        of.b.requires_grad_()
        of.a.requires_grad_()
        x = torch.linspace(-1, 1, 3 * _IN, dtype=torch.float64).view(3, _IN)
        y = form.apply(x, of, PhiFunction.exact(phi), 1.0)
        trained = [of.b, of.a, *phi.parameters()]
        weights = torch.linspace(1, 2, y.numel(), dtype=y.dtype).view(y.shape)
        gradients = torch.autograd.grad(y, trained, weights, materialize_grads=True)
    if not y.abs().max() <= _SMALL:
        raise ValueError(
            f"form {form.name!r} with this start is not zero: it would change the model before the "
            "first step. Take start 'anchored', whose φ is zero at first"
        )
    if not any(bool(gradient.any()) for gradient in gradients):
        raise ValueError(
            f"form {form.name!r} with this start gives no gradient to any number: nothing would be "
            "trained. Take start 'identity_anchored' with the linear term (`linear: true`), whose "
            "φ is the identity at first"
        )
