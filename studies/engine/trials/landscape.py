"""The loss around trained parameters, along random directions (Li et al. 2018)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Direction = Mapping[nn.Parameter, Tensor]
"""A step of each trained parameter."""


def surface(
    loss: Callable[[], float], first: Direction, second: Direction, steps: Sequence[float]
) -> NDArray[np.float64]:
    r"""$L(\theta + s_i\,d_1 + s_j\,d_2)$ at row i and column j; `loss` is of the model as it is."""
    losses = np.empty((len(steps), len(steps)))
    for i, down in enumerate(steps):
        for j, across in enumerate(steps):
            both = {p: down * way + across * second[p] for p, way in first.items()}
            with moved(both, 1.0):
                losses[i, j] = loss()
    return losses


@torch.no_grad()
def filter_normalised(model: nn.Module, seed: int) -> dict[nn.Parameter, Tensor]:
    r"""A random direction in the trained parameters, as large as they are.

    Each row of a matrix, and each vector as a whole, is drawn from a normal distribution and
    scaled to the norm of its parameters: $d \leftarrow d\,\lVert\theta\rVert / \lVert d\rVert$
    (Li et al. 2018, arXiv 1712.09913, section 4). What is zero stays zero.
    """
    draw = torch.Generator().manual_seed(seed)
    direction: dict[nn.Parameter, Tensor] = {}
    for parameter in model.parameters():
        if parameter.requires_grad and parameter not in direction:
            drawn = torch.randn(parameter.shape, generator=draw).to(parameter.device)
            rows = (1, -1) if parameter.ndim < 2 else (len(parameter), -1)
            size = parameter.detach().float().reshape(rows).norm(dim=1, keepdim=True)
            flat = drawn.reshape(rows)
            flat = flat * size / flat.norm(dim=1, keepdim=True).clamp_min(1e-12)
            direction[parameter] = flat.reshape(parameter.shape)
    return direction


@contextmanager
def moved(direction: Mapping[nn.Parameter, Tensor], step: float) -> Iterator[None]:
    """The parameters of `direction` lie `step` times it further on; afterwards as before."""
    before = {parameter: parameter.detach().clone() for parameter in direction}
    try:
        with torch.no_grad():
            for parameter, way in direction.items():
                parameter.add_(way.to(parameter.dtype), alpha=step)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in before.items():
                parameter.copy_(value)
