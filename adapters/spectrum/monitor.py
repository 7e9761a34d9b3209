"""Scalars that tell what the nonlinearities of a model are doing while it trains."""

import torch
from torch import Tensor, nn

from adapters.basis.layers import BasisLayer
from adapters.spectrum.usage import measures, phis
from adapters.training.stable_rank import stable_rank_by_power

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

    - `phi/max_product`: the largest |x| that phi is asked at, as of input_scale * B A, over all
      modules.
    - `phi/grid_occupancy`, `phi/utilization`, `phi/non_affine_share`, `phi/effective_degree`: see
      `adapters.spectrum.usage`.
    - `update/stable_rank` and `update/stable_rank_std`: of s phi(B A), over the modules; missing
      where no form changes the weight.
    - `phi/proxy_degree`, `phi/proxy_bound`: of the proxies in force.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, BasisLayer)]
    rows: list[tuple[Tensor, ...]] = []
    ranks: list[Tensor] = []
    for layer in layers:
        for name in layer.active_adapters:
            if name not in layer.basis_phi:
                continue
            of_copies = phis(layer, name)
            largest = torch.stack([x.abs().max() for _, x in of_copies]).max()
            if layer.execution[name].form.mergeable:
                ranks.append(stable_rank_by_power(layer.update(name)).cpu())
            rows.append((largest.cpu(), *measures(of_copies)))
    if not rows:
        return {}
    columns = [torch.stack(column) for column in zip(*rows, strict=True)]
    largest, used, occupancy, non_affine, degree = columns
    rank = torch.stack(ranks) if ranks else None
    batches = {batch for layer in layers for batch in layer.batches.values()}
    numbers: tuple[Tensor | float, ...] = (
        largest.max(),
        occupancy.mean(),
        used.mean(),
        non_affine.mean(),
        degree.mean(),
        torch.nan if rank is None else rank.mean(),
        torch.nan if rank is None else rank.std(correction=0),
        max(batch.degree for batch in batches),
        max(batch.bound for batch in batches),
    )
    named = zip(MONITORED, map(float, numbers), strict=True)
    return {name: n for name, n in named if ranks or not name.startswith("update/")}
