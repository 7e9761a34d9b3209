"""LoRA-XS: a small trained matrix between frozen singular vectors of the weight."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from adapters.basis.field_types import require
from adapters.methods.registry import Method, register_method
from adapters.methods.tuner import FactoredUpdate, UpdateConfig, register_update
from adapters.peft_integration.options import setting


@dataclass
class LoraXsConfig(UpdateConfig):
    """Settings of LoRA-XS."""

    r: int = setting(32, "rank; r² numbers are trained a layer")
    alpha: float = setting(64.0, "the update is scaled by alpha / r")
    std: float = setting(1e-5, "standard deviation of R at the start")
    save_projection: bool = setting(
        True, "keep A and B in the file; else they are computed anew when loading"
    )

    method: ClassVar[str] = "loraxs"


class LoraXsUpdate(FactoredUpdate):
    r"""$\Delta W = \frac{\alpha}{r} B R A$ with R (r, r) trained.

    $W \approx U_r \Sigma_r V_r^\top$ gives the frozen $B = U_r$ and $A = \Sigma_r V_r^\top$;
    $R \sim N(0, 10^{-10})$ before training.

    Reference: Bałazy et al., *LoRA-XS* (arXiv 2405.17604); MohammadrezaBanaei/LoRA-XS,
    utils/initialization_utils.py.
    """

    b: Tensor
    a: Tensor

    def __init__(self, base: nn.Linear, config: LoraXsConfig) -> None:
        super().__init__(base, config)
        weight, r = base.weight.detach(), config.r
        most, shape = min(weight.shape), tuple(weight.shape)
        where = f"at most {most}, the number of singular vectors of a weight of shape {shape}"
        require(r <= most, "r", where, r)
        self.r_matrix = nn.Parameter(torch.empty(r, r))
        nn.init.normal_(self.r_matrix, std=config.std)
        u, a = weight.new_empty(weight.shape[0], r), weight.new_empty(r, weight.shape[1])
        if not weight.is_meta:
            u, s, vh = torch.linalg.svd(weight.float(), full_matrices=False)
            u, a = u[:, :r].contiguous(), s[:r, None] * vh[:r]
        self.register_buffer("b", u, persistent=config.save_projection)
        self.register_buffer("a", a, persistent=config.save_projection)

    def factors(self) -> tuple[Tensor, Tensor]:
        """B and R A."""
        return self.b, self.r_matrix @ self.a


register_update(LoraXsConfig, LoraXsUpdate)
register_method(
    Method(
        "lora_xs",
        LoraXsConfig,
        low_rank=True,
        formula=r"(alpha / r) B R A; A, B from the SVD of W, frozen",
        source="Bałazy et al., arXiv 2405.17604; MohammadrezaBanaei/LoRA-XS",
        note="the authors' commonsense runs have r 32, alpha 64, rate 2e-3",
    )
)
