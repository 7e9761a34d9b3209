"""NoLA: LoRA's factors as mixtures of random bases, of which only the weights are trained."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from adapters.basis.field_types import require
from adapters.methods.random_bank import bank
from adapters.methods.registry import Method, register_method
from adapters.methods.tuner import FactoredUpdate, UpdateConfig, register_update
from adapters.peft_integration.options import setting


@dataclass
class NolaConfig(UpdateConfig):
    """Settings of NoLA."""

    alpha: float = setting(8.0, "the update is scaled by alpha / r")
    num_basis: int = setting(512, "k, random bases of each factor")
    seed: int = setting(0, "seed of the bases, which are never saved")

    method: ClassVar[str] = "nola"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_basis >= 1, "num_basis", "at least 1", self.num_basis)


LARGEST = 4096
"""Most bases that matching takes: the bank has 2 k r max(in, out) numbers."""


class NolaUpdate(FactoredUpdate):
    r"""$\Delta W = \frac{\alpha}{r} B A$, $A = A_0 + \sum_i a_i A_i$, $B = \sum_i b_i B_i$.

    Only a and b, (k,) each, are trained; both start at zero. $A_0$ is LoRA's start of A, frozen;
    the entries of $A_i$ and $B_i$ are uniform on $\pm 1 / \sqrt k$. Layers of one shape share
    their bases; the authors draw them a layer, which costs memory or time and no parameters.

    Reference: Koohpayegani et al., *NOLA* (ICLR 2024, arXiv 2310.02556); UCDvision/NOLA,
    llama/peft/tuners/lora.py.
    """

    def __init__(self, base: nn.Linear, config: NolaConfig) -> None:
        super().__init__(base, config)
        (out, n), r, k, seed = base.weight.shape, config.r, config.num_basis, config.seed
        self.a, self.b = nn.Parameter(torch.zeros(k)), nn.Parameter(torch.zeros(k))
        self._bases = (
            bank(r, n, seed=3 * seed),
            bank(k, r, n, seed=3 * seed + 1),
            bank(k, out, r, seed=3 * seed + 2),
        )

    def factors(self) -> tuple[Tensor, Tensor]:
        """B and A."""
        a0, a, b = (basis.on(self.a.device).to(self.a) for basis in self._bases)
        step = 1 / math.sqrt(len(self.a))
        # uniform on ±1 / sqrt(in) is LoRA's kaiming start
        start = a0 / math.sqrt(a0.shape[1])
        return (
            torch.tensordot(self.b * step, b, dims=1),
            start + torch.tensordot(self.a * step, a, dims=1),
        )


register_update(NolaConfig, NolaUpdate)
register_method(
    Method(
        "nola",
        NolaConfig,
        size="num_basis",
        sizes=lambda smallest_side: range(1, LARGEST + 1),
        low_rank=True,
        formula=r"(alpha / r) (Σ bᵢ Bᵢ) (A₀ + Σ aᵢ Aᵢ)",
        source="Koohpayegani et al., arXiv 2310.02556; UCDvision/NOLA",
        note="bases shared by layers of one shape; authors: GPT-2 rate 5e-3, Llama-2-7B 1e-3",
    )
)
