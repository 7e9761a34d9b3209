"""AuroRA: a nonlinear layer between LoRA's two maps. It acts on activations: no merging."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.basis.field_types import require
from adapters.methods.registry import Method, register_method
from adapters.methods.tuner import Update, UpdateConfig, register_update
from adapters.peft_integration.options import setting


@dataclass
class AuroraConfig(UpdateConfig):
    """Settings of AuroRA."""

    r: int = setting(2, "rank, the width of the nonlinear layer")
    grid_size: int = setting(5, "cells of the splines on [-1, 1]")
    order: int = setting(3, "degree of the splines")
    noise: float = setting(0.1, "the spline's weights start in ± this")

    method: ClassVar[str] = "aurora"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.grid_size >= 1, "grid_size", "at least 1", self.grid_size)
        require(self.order >= 1, "order", "at least 1", self.order)


def bsplines(x: Tensor, grid_size: int, order: int) -> Tensor:
    """All B-splines of degree `order` on the uniform knots of [-1, 1] and `order` beyond each end.

    Cox-de Boor's recursion, which on knots of unit distance is
    N_{i,k}(u) = ((u - i) N_{i,k-1}(u) + (i + k + 1 - u) N_{i+1,k-1}(u)) / k.
    Of x (*,) it makes (*, grid_size + order).
    """
    u = ((x + 1) * grid_size / 2 + order)[..., None]
    i = torch.arange(grid_size + 2 * order, device=x.device, dtype=x.dtype)
    n = ((u >= i) & (u < i + 1)).to(x.dtype)
    for k in range(1, order + 1):
        i = i[:-1]
        n = ((u - i) * n[..., :-1] + (i + k + 1 - u) * n[..., 1:]) / k
    return n


class AuroraUpdate(Update):
    r"""$\frac{\alpha}{r} B\,\sigma(Ax)$, $\sigma(h) = \tanh(M \tanh h) + S \sum_j \mathcal B(h_j)$.

    M (r, r) mixes, $\mathcal B$ are B-splines on [-1, 1], S (r, grid_size + order); all are
    trained. A starts as in LoRA, B = 0, M by Xavier.

    Reference: Dong et al., *AuroRA* (NeurIPS 2025, arXiv 2505.18738). No code by the
    authors is public; the widths of the splines are those of hhnqqq/MyTransformers, aurora.py,
    whose merge (B times sigma(A)) is another function and is not offered.
    """

    mergeable = False

    def __init__(self, base: nn.Linear, config: AuroraConfig) -> None:
        super().__init__(base, config)
        (out, n), r = base.weight.shape, config.r
        self.a, self.b = nn.Parameter(torch.empty(r, n)), nn.Parameter(torch.zeros(out, r))
        self.mixer = nn.Parameter(torch.empty(r, r))
        self.spline = nn.Parameter(torch.empty(r, config.grid_size + config.order))
        self.config = config
        nn.init.kaiming_uniform_(self.a, a=5**0.5)
        nn.init.xavier_normal_(self.mixer)
        nn.init.uniform_(self.spline, -config.noise, config.noise)

    def forward(self, x: Tensor) -> Tensor:
        """scaling * B sigma(A x)."""
        h = F.linear(x.to(self.a.dtype), self.a)
        fixed = torch.tanh(F.linear(torch.tanh(h), self.mixer))
        h = h.to(torch.promote_types(h.dtype, torch.float32))  # cells are lost in half precision
        basis = bsplines(h, self.config.grid_size, self.config.order).sum(dim=-2)
        return F.linear(fixed + F.linear(basis, self.spline), self.b) * self.scaling


register_update(AuroraConfig, AuroraUpdate)
register_method(
    Method(
        "aurora",
        AuroraConfig,
        mergeable=False,
        convertible=False,
        formula=r"(alpha / r) B σ(A x), σ(h) = tanh(M tanh h) + S Σⱼ splines(hⱼ)",
        source="Dong et al., arXiv 2505.18738; no public code of the authors",
        note="acts on activations, so there is no dW: evaluated and served unmerged",
    )
)
