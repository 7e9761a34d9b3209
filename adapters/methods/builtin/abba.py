"""ABBA: the elementwise product of two low-rank matrices."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from adapters.methods.registry import Method, register_method
from adapters.methods.tuner import FactoredUpdate, UpdateConfig, register_update
from adapters.peft_integration.options import setting


@dataclass
class AbbaConfig(UpdateConfig):
    """Settings of ABBA; both pairs have rank `r`, and `alpha` is not divided by it."""

    r: int = setting(16, "rank of each of the two pairs")
    alpha: float = setting(16.0, "sqrt(alpha_1 alpha_2), not over r")

    method: ClassVar[str] = "abba"


class AbbaUpdate(FactoredUpdate):
    r"""$\Delta W = \alpha\,(B_1 A_1) \odot (B_2 A_2)$, of rank up to $r^2$.

    The product is a plain low-rank one of the Khatri-Rao factors,
    $(B_1 A_1) \odot (B_2 A_2) = B_\star A_\star$ with
    $B_\star$ (out, r²) the row-wise and $A_\star$ (r², in) the column-wise products.
    Before training $B_1 A_1$ is the best approximation of W of rank r, $B_2 = 0$.

    Reference: Singhal et al., *ABBA* (arXiv 2505.14238); CERT-Lab/abba, abba.py.
    """

    def __init__(self, base: nn.Linear, config: AbbaConfig) -> None:
        super().__init__(base, config)
        self.scaling = config.alpha
        r, (out, n) = config.r, base.weight.shape
        self.b1, self.a1 = nn.Parameter(torch.zeros(out, r)), nn.Parameter(torch.zeros(r, n))
        self.b2, self.a2 = nn.Parameter(torch.zeros(out, r)), nn.Parameter(torch.empty(r, n))
        nn.init.kaiming_uniform_(self.a2)
        if base.weight.is_meta or self.b1.is_meta:
            return
        k = min(r, out, n)
        u, s, v = torch.svd_lowrank(base.weight.detach().float(), q=k, niter=10)
        with torch.no_grad():
            self.b1[:, :k] = u * s.sqrt()
            self.a1[:k] = (v * s.sqrt()).T

    def factors(self) -> tuple[Tensor, Tensor]:
        """B* (out, r²) and A* (r², in)."""
        b = einsum(self.b1, self.b2, "row p, row q -> row p q")
        a = einsum(self.a1, self.a2, "p col, q col -> p q col")
        return rearrange(b, "row p q -> row (p q)"), rearrange(a, "p q col -> (p q) col")


register_update(AbbaConfig, AbbaUpdate)
register_method(
    Method(
        "abba",
        AbbaConfig,
        formula=r"alpha (B₁ A₁) ⊙ (B₂ A₂)",
        source="Singhal et al., arXiv 2505.14238; CERT-Lab/abba",
        note="alpha is not divided by r; the authors' scripts have r 32, alpha 32, rate 1e-3",
    )
)
