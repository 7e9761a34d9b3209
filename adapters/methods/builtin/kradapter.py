"""KRAdapter: the Khatri-Rao product of two small matrices, of full rank."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import einsum, rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.basis.field_types import require
from adapters.methods.registry import Method, register_method
from adapters.methods.tuner import Update, UpdateConfig, register_update
from adapters.peft_integration.options import setting


@dataclass
class KRAdapterConfig(UpdateConfig):
    """Settings of KRAdapter; its update has no rank to choose."""

    r: int = setting(0, "rows of U; 0 for the fewest trained numbers")
    alpha: float = setting(2.0, "scale of the update, not over r")

    method: ClassVar[str] = "kradapter"
    least_r: ClassVar[int] = 0

    def __post_init__(self) -> None:
        require(isinstance(self.r, int) and self.r >= 0, "rows", "an integer >= 0", self.r)
        super().__post_init__()


class KRAdapterUpdate(Update):
    r"""$\Delta W = \alpha\,(U \odot V)$ with the Khatri-Rao product: Kronecker's, by columns.

    Row $i k_2 + j$ of $U \odot V$ is the elementwise product of row i of U ($k_1$, small) and row
    j of V ($k_2$, small); small and large are the sides of W. The first `large` rows are taken,
    and transposed where out < in. $(k_1 + k_2)\,\text{small}$ numbers are trained, the fewest with
    $k_1 = \lfloor \sqrt{\text{large}} \rfloor$, $k_2 = \lceil \text{large} / k_1 \rceil$.
    U = 0 before training, V is uniform.

    Reference: Albert et al., *Towards Higher Effective Rank in Parameter-efficient Fine-tuning
    using Khatri-Rao Product* (ICCV 2025, arXiv 2508.00230); PaulAlbert31/KRAdapter. Its layer has
    scale 2 and takes k_1 of the smaller side, its benchmark scale 1 and k_1 of the larger, as here.
    """

    def __init__(self, base: nn.Linear, config: KRAdapterConfig) -> None:
        super().__init__(base, config)
        self.scaling, self.tall = config.alpha, base.out_features >= base.in_features
        small, self.large = sorted((base.out_features, base.in_features))
        most, shape = math.isqrt(self.large), tuple(base.weight.shape)
        where = f"0 to {most}, the root of the larger side of a weight of shape {shape}"
        require(config.r <= most, "rows", where, config.r)
        k1 = config.r or most
        self.u = nn.Parameter(torch.zeros(k1, small))
        self.v = nn.Parameter(torch.empty(math.ceil(self.large / k1), small))
        nn.init.kaiming_uniform_(self.v.T, a=5)  # by the length of its columns

    def delta_weight(self) -> Tensor:
        """alpha (U ⊙ V), (out, in)."""
        product = einsum(self.u, self.v, "i small, j small -> i j small")
        update = rearrange(product, "i j small -> (i j) small")[: self.large] * self.scaling
        return update if self.tall else update.T

    def forward(self, x: Tensor) -> Tensor:
        """x dW^T; dW is formed anew each time."""
        return F.linear(x.to(self.u.dtype), self.delta_weight())


register_update(KRAdapterConfig, KRAdapterUpdate)
register_method(
    Method(
        "kradapter",
        KRAdapterConfig,
        renamed={"rows": "r", "scaling": "alpha"},
        ignored=frozenset({"r", "alpha"}),
        size="rows",
        sizes=lambda smallest_side: range(1, math.isqrt(smallest_side) + 1),
        formula="scaling (U ⊙ V), Khatri-Rao product of U (k₁, small) and V (⌈large / k₁⌉, small)",
        source="Albert et al., arXiv 2508.00230; PaulAlbert31/KRAdapter",
        note="has no r and no alpha; rows is k₁, 0 means the root of the larger side, which trains "
        "the fewest numbers, about 2 small √large; scaling 2 is the authors' layer's",
    )
)
