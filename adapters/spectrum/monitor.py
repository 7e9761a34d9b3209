"""Scalars that tell what the nonlinearities of a model are doing while it trains."""

import torch
from torch import Tensor, nn

from adapters.basis.layers import BasisLayer
from adapters.ops.merge import product
from adapters.spectrum.measures import stable_rank_by_power
from adapters.spectrum.usage import (
    effective_degree,
    grid_occupancy,
    non_affine_share,
    sample,
    utilization,
)

MONITORED = (
    "phi/max_product",
    "phi/grid_occupancy",
    "phi/utilization",
    "phi/non_affine_share",
    "phi/effective_degree",
    "update/stable_rank",
    "update/stable_rank_std",
    "phi/proxy_degree",
    "phi/proxy_bound",
)
"""The names of what `monitor` returns."""


@torch.no_grad()
def monitor(model: nn.Module) -> dict[str, float]:
    """Means over all adapted modules; an empty mapping for models without a phi.

    - `phi/max_product`: the largest |x|, x = input_scale * B A, over all modules.
    - `phi/grid_occupancy`, `phi/utilization`, `phi/non_affine_share`, `phi/effective_degree`: see
      `adapters.spectrum.usage`.
    - `update/stable_rank` and `update/stable_rank_std`: of s phi(B A), over the modules.
    - `phi/proxy_degree`, `phi/proxy_bound`: of the proxies in force.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, BasisLayer)]
    rows = []
    for layer in layers:
        for name in layer.active_adapters:
            if name not in layer.basis_phi:
                continue
            b, a, phi = layer.member(name)
            x = sample(product(b, a))
            shares = (
                measure(phi, x)
                for measure in (grid_occupancy, utilization, non_affine_share, effective_degree)
            )
            rank = stable_rank_by_power(layer.update(name)).cpu()
            rows.append((x.abs().max().cpu(), *shares, rank))
    if not rows:
        return {}
    columns = [torch.stack(column) for column in zip(*rows, strict=True)]
    largest, occupancy, used, non_affine, degree, rank = columns
    batches = {batch for layer in layers for batch in layer.batches.values()}
    numbers: tuple[Tensor | float, ...] = (
        largest.max(),
        occupancy.mean(),
        used.mean(),
        non_affine.mean(),
        degree.mean(),
        rank.mean(),
        rank.std(correction=0),
        max(batch.degree for batch in batches),
        max(batch.bound for batch in batches),
    )
    return dict(zip(MONITORED, map(float, numbers), strict=True))
