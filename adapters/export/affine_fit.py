r"""What is left of a trained phi when it is replaced by its best affine fit.

For each adapted module, over all entries $x$ of its input_scale $\cdot BA$ and their updates
$u = s\,\phi(x)$, least squares:

$$\hat u = \bar u + k\,(x - \bar x), \qquad
  k = \frac{\sum (x - \bar x)(u - \bar u)}{\sum (x - \bar x)^2}$$

An affine phi is a trained scalar on LoRA and one constant, so what the model loses by it is what
the nonlinearity was worth.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from adapters.basis.layers import BasisLayer
from adapters.export.substitution import in_force
from adapters.export.updates import LayerUpdate, layer_updates
from adapters.ops.merge import product


class AffineFit(NamedTuple):
    """The fit of one module."""

    slope: float
    """k, which includes the scale s; 0 where all x are equal."""
    offset: float
    """The fitted u at x = 0."""
    residual: float
    """||u - fit|| / ||u - mean u||: 0 where phi is affine on the values that occur."""


def affine_fits(model: nn.Module, adapter: str = "default") -> dict[str, AffineFit]:
    """The fit of every module that carries the phi of `adapter`, by the module's name.

    Raises:
        ValueError: No module has one.
    """
    return {update.name: _fit(update) for update in _with_phi(model, adapter)}


@contextmanager
def affine_in_force(model: nn.Module, adapter: str = "default") -> Iterator[dict[str, AffineFit]]:
    """Inside, the model computes with affine fits in place of its phis; yields the fits.

    Raises:
        ValueError: No module has a phi, the adapter is merged, or a weight is quantised.
    """
    updates = _with_phi(model, adapter)
    fits = {update.name: _fit(update) for update in updates}

    def fitted(update: LayerUpdate) -> Tensor:
        fit = fits[update.name]
        return fit.slope * _products(update) + fit.offset

    with in_force(updates, fitted):
        yield fits


def _with_phi(model: nn.Module, adapter: str) -> list[LayerUpdate]:
    updates = [u for u in layer_updates(model, adapter) if isinstance(u.layer, BasisLayer)]
    if not updates:
        raise ValueError(f"no layer of {type(model).__name__} has a phi in adapter {adapter!r}")
    for update in updates:
        form = cast(BasisLayer, update.layer).execution[adapter].form
        if not form.elementwise or form.needs_weight:
            raise ValueError(
                f"{update.name!r} has form {form.name!r}, whose update is no function of the "
                "entries of B A alone: an affine fit is of form 'elementwise' or 'sum'"
            )
    return updates


@torch.no_grad()
def _products(update: LayerUpdate) -> Tensor:
    """x, (out, in)."""
    assert isinstance(update.layer, BasisLayer)
    b, a, _ = update.layer.member(update.adapter)
    return product(b, a)


@torch.no_grad()
def _fit(update: LayerUpdate) -> AffineFit:
    assert isinstance(update.layer, BasisLayer)
    x = _products(update).double()
    u = update.layer.update(update.adapter).double()
    x_mean, u_mean = x.mean(), u.mean()
    x, u = x - x_mean, u - u_mean
    spread, deviation = float(x.square().sum()), float(u.norm())
    slope = float((x * u).sum()) / spread if spread > 0 else 0.0
    residual = float((u - slope * x).norm()) / deviation if deviation > 0 else 0.0
    return AffineFit(slope, float(u_mean) - slope * float(x_mean), residual)
