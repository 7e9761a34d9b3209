"""What each layer contributes to a fit, and the range on which its phi is needed."""

from collections import defaultdict
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from basis_zoo import Nonlinearity
from basis_zoo.proxy import Proxy, range_radius


class Member(NamedTuple):
    """What a layer contributes: its factors and its phi."""

    b: Tensor
    """(out, r), the input scale included"""
    a: Tensor
    """(r, in)"""
    nonlinearity: Nonlinearity


class HasMember(Protocol):
    """A module that takes part in a batch."""

    proxies: dict[str, Proxy]
    """The proxies that a compiled forward pass reads while it runs, by adapter; else empty."""

    def uses(self, adapter: str) -> bool:
        """Whether a forward pass would read the proxy of `adapter`."""

    def member(self, adapter: str) -> Member:
        """What this layer contributes for `adapter`; asked for after `proxy` in a forward pass."""

    def has_factors(self, adapter: str) -> bool:
        """Whether B is the first of its numbers."""

    def reach(self, adapter: str) -> Tensor | None:
        """The largest |x| that phi is asked at, () or (copies,); None for that of B A."""

    def numbers(self, adapter: str) -> list[Tensor]:
        """Every tensor that the fit for `adapter` depends on, B first."""

    def observe(self, adapter: str) -> bool:
        """Measure what the input scale needs, once per training pass; returns whether it did."""


@torch.no_grad()
def radii_of(members: list[Member], reaches: list[Tensor | None]) -> Tensor:
    """The range of every phi, (phis,): of B A, one norm for each shape of factors."""
    shapes: dict[tuple[torch.Size, torch.Size], list[int]] = defaultdict(list)
    radii: dict[int, Tensor] = {}
    for i, (m, reach) in enumerate(zip(members, reaches, strict=True)):
        if reach is None:
            shapes[(m.b.shape, m.a.shape)].append(i)
        else:
            radii[i] = reach.reshape(-1)
    for indices in shapes.values():
        b = torch.stack([members[i].b for i in indices]).float()
        a = torch.stack([members[i].a for i in indices]).float()
        radii |= dict(zip(indices, range_radius(b, a).unbind(), strict=True))
    if all(r is None for r in reaches) and all(m.nonlinearity.copies == 1 for m in members):
        return torch.stack([radii[i] for i in range(len(members))])
    each = enumerate(members)
    return torch.cat([radii[i].expand(m.nonlinearity.copies) for i, m in each])
