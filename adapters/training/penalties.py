r"""Penalties on what an adapter $W' = W + s\,\phi(BA)$ learns, for any training loop.

    loss = task_loss + penalty_loss(model, {"roughness": 1e-4})

| name | of one layer | source |
|---|---|---|
| `amplitude_l1` | $\sum_i \lvert a_i \rvert$ | Tibshirani, *Regression shrinkage ... lasso* (1996) |
| `roughness` | $\int \phi''(x)^2\,dx$ over the interval | Reinsch, *Smoothing by spline functions* (1967) |
| `stable_rank` | $\lVert\Delta W\rVert_F^2 / \lVert\Delta W\rVert_2^2$ | Rudelson & Vershynin, *Sampling from large matrices* (2007) |
| `orthogonality` | $\lVert AA^\top - I\rVert_F^2 + \lVert B^\top B - I\rVert_F^2$ | Zhang et al., AdaLoRA, arXiv 2303.10512, eq. 4 |

Each is the mean over the layers that have it, of every active adapter; numbers that layers share
count in each of them. One of your own: `@register_penalty("name", need="update")` on a function
from the places to a value for each.
"""  # noqa: E501 - a row of a table

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from adapters.basis.layers import BasisLayer
from adapters.training.needs import NEEDS, lacks
from adapters.training.stable_rank import stable_rank_by_power
from basis_zoo import Nonlinearity, Phi
from basis_zoo.phi import PhiParameters, stack_parameters
from basis_zoo.registry import Registry, unknown

PANELS, NODES = 32, 8
"""Equal parts of the interval, cut further where phi is less than smooth, and the Gauss-Legendre
nodes in each: exact for splines up to degree 9; for sinc over the default interval, off by 1e-9 at
bandwidth 8, 1e-6 at 12, 4e-3 at 24."""


class Place(NamedTuple):
    """An adapter on a layer that holds its numbers."""

    layer: BasisLayer
    adapter: str

    @property
    def phi(self) -> Nonlinearity:
        """The adapter's phi."""
        return self.layer.basis_phi[self.adapter]

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        """B (out, r) and A (r, in), float32; empty where the form has none."""
        b, a = self.layer.factors(self.adapter)
        return b.float(), a.float()


Values = Callable[[Sequence[Place]], list[Tensor]]


@dataclass(frozen=True)
class Penalty:
    """What is penalised, and what an adapter needs for it."""

    name: str
    need: str
    """One of `adapters.training.needs.NEEDS`."""
    values: Values
    """Places, at least one, to values of those that have it, vectors or 0-d."""


_PENALTIES: Registry[Penalty] = Registry("penalty", Penalty, lambda p: p.values.__module__)
get_penalty = _PENALTIES.find
list_penalties = _PENALTIES.names


def register_penalty(name: str, *, need: str) -> Callable[[Values], Values]:
    """Decorator that makes a function of places known as the penalty `name`.

    Raises:
        ValueError: The name is taken or not a lower-case word, or `need` is unknown.
    """
    if need not in NEEDS:
        raise ValueError(unknown("need", need, NEEDS))

    def add(values: Values) -> Values:
        _PENALTIES.add(name, Penalty(name, need, values))
        return values

    return add


@register_penalty("amplitude_l1", need="trained amplitudes")
def amplitude_l1(places: Sequence[Place]) -> list[Tensor]:
    """The sum of the magnitudes of phi's amplitudes; of several phis in one layer, their mean."""
    return [place.phi.amplitude.float().abs().sum(-1).mean() for place in places]


@register_penalty("roughness", need="curvature")
def roughness(places: Sequence[Place]) -> list[Tensor]:
    """`curvature_integral` of every phi; equal ones are done together."""
    groups: dict[Any, list[Nonlinearity]] = defaultdict(list)
    for phi in (place.phi for place in places):
        groups[(phi.phi, phi.grid_is_learned, phi.copies, phi.amplitude.device)].append(phi)
    values = []
    for phis in groups.values():
        numbers = stack_parameters([phi.parameters_in_force() for phi in phis]).double()
        values.append(curvature_integral(phis[0].phi, numbers).reshape(len(phis), -1).mean(1))
    return values


def curvature_integral(phi: Phi, p: PhiParameters) -> Tensor:
    r"""$\int \phi''(x)^2\,dx$ over the interval of the family, `(*batch,)` in the dtype of `p`.

    By Gauss-Legendre quadrature on `PANELS` panels, and on those that breakpoints cut; where these
    are learned, their gradient is that of the quadrature.
    """
    batch, (low, high) = p.amplitude.shape[:-1], phi.basis.interval
    dtype, device = p.amplitude.dtype, p.amplitude.device
    edges = torch.linspace(low, high, PANELS + 1, dtype=dtype, device=device)
    edges = edges.expand(*batch, PANELS + 1)
    edges = torch.cat([edges, phi.breakpoints(p).clamp(low, high)], dim=-1).sort(-1).values
    half, middle = edges.diff()[..., None] / 2, (edges[..., 1:] + edges[..., :-1])[..., None] / 2
    nodes, weights = _gauss(dtype, device)
    x = (middle + half * nodes).flatten(-2)
    one = torch.ones_like(x)

    def slope(x: Tensor) -> Tensor:
        return torch.func.jvp(lambda x: phi(x, p), (x,), (one,))[1]  # type: ignore[no-any-return]  # torch's

    bend: Tensor = torch.func.jvp(slope, (x,), (one,))[1]
    return (bend.square() * (half * weights).flatten(-2)).sum(-1)


@cache  # a CUDA graph must find them on the device: copying them would wait
def _gauss(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    nodes, weights = (torch.from_numpy(each).to(device, dtype) for each in leggauss(NODES))
    return nodes, weights


@register_penalty("stable_rank", need="update")
def stable_rank(places: Sequence[Place]) -> list[Tensor]:
    """`stable_rank_by_power` of the update, which is made anew in the backward pass, not kept."""

    def of(layer: BasisLayer, adapter: str) -> Tensor:
        return stable_rank_by_power(layer.update(adapter))

    for layer, adapter in places:  # a graph of its own must not read what another's memory held
        layer.batches[adapter].begin_pass(training=False)
        layer.batches[adapter].end_pass()
    return [checkpoint(of, *p, use_reentrant=False, preserve_rng_state=False) for p in places]


@register_penalty("orthogonality", need="factors")
def orthogonality(places: Sequence[Place]) -> list[Tensor]:
    """How far the rows of A, and the columns of B, are from orthonormal."""
    factors = [place.factors for place in places if all(t.numel() for t in place.factors)]
    one = [torch.eye(len(a), device=a.device) for _, a in factors]
    return [
        (b.T @ b - i).square().sum() + (a @ a.T - i).square().sum()
        for (b, a), i in zip(factors, one, strict=True)
    ]


def penalty_values(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """The penalties `names` of `model`, unweighted: means over its layers, () float32.

    Differentiable, in float32 or better under autocast too; a CUDA graph may hold it. Call it once
    per optimizer step, not once per batch.

    Raises:
        ValueError: A name is unknown, or an active adapter has not what it penalises.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, BasisLayer)]
    own = [Place(layer, n) for layer in layers for n in layer.active_adapters]
    places = [place for place in own if place.adapter in place.layer.basis_phi]
    if own and not places:
        names_of_sums = ", ".join(sorted({repr(place.adapter) for place in own}))
        raise ValueError(
            f"{names_of_sums} is a weighted sum, which has no φ of its own to penalise: activate "
            "the adapters that it is the sum of"
        )
    known = getattr(model, "peft_config", {})
    configs = [known.get(name) for name in dict.fromkeys(place.adapter for place in places)]
    found: dict[str, Tensor] = {}
    for name, penalty in {name: get_penalty(name) for name in names}.items():
        if why := next(filter(None, (lacks(c, penalty.need) for c in configs or [None])), None):
            raise ValueError(f"the penalty {name!r} cannot be computed, the adapter has {why}")
        device = places[0].phi.amplitude.device
        with torch.autocast(device.type, enabled=False):
            values = [each.reshape(-1).to(device) for each in penalty.values(places)]
            found[name] = torch.cat(values or [torch.zeros(1, device=device)]).float().mean()
    return found


def penalty_loss(model: nn.Module, weights: Mapping[str, float]) -> Tensor:
    """The sum of the penalties of `model`, each times its weight: what to add to a step's loss.

    Args:
        model: A model with basis adapters, the active ones of which are penalised.
        weights: By name, see `list_penalties`.

    Raises:
        ValueError: As `penalty_values`.
    """
    values = penalty_values(model, list(weights))
    return sum((weights[name] * value for name, value in values.items()), torch.zeros(()))
