"""RandLoRA: full rank from random bases and trained diagonals, with both scalings in use."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from einops import einsum, rearrange
from peft import RandLoraConfig
from torch import Tensor, nn

from adapters.basis.field_types import require
from adapters.methods.random_bank import bank
from adapters.methods.registry import Method, register_method
from adapters.methods.tuner import FactoredUpdate, UpdateConfig, register_update
from adapters.peft_integration.options import setting


@dataclass
class RandLoraPaperConfig(UpdateConfig):
    """Settings of RandLoRA with the paper's scaling."""

    r: int = setting(32, "rank of one base; fewer numbers if larger")
    alpha: float = setting(64.0, "alpha / (r sqrt n); the paper's is 2r")
    seed: int = setting(0, "seed of the bases, which are never saved")
    num_bases: int | None = setting(None, "bases that are added up; None for full rank")

    method: ClassVar[str] = "randlorapaper"

    def __post_init__(self) -> None:
        super().__post_init__()
        n = self.num_bases
        fits = n is None or (isinstance(n, int) and n >= 1)
        require(fits, "num_bases", "an integer >= 1, or null for full rank", n)


class RandLoraPaperUpdate(FactoredUpdate):
    r"""$\Delta W = \frac{\alpha}{r \sqrt n} \sum_{j=1}^n B_j \Lambda_j A \Gamma_j$, of full rank.

    $n = \lceil \min(\text{in}, \text{out}) / r \rceil$ unless `num_bases` says another, which
    makes the rank n r where that is smaller; A (r, small side) and $B_j$ (large side,
    r) are random with unit variance, frozen and shared by layers of one shape;
    $\Lambda_j = \mathrm{diag}(\lambda_j)$ starts at 0 and $\Gamma_j = \mathrm{diag}(\gamma_j)$ at
    1 / (largest size of gamma). Where out < in the transpose is meant. PEFT's own RandLoRA has
    alpha / r and draws one base for all shapes, in half precision.

    Reference: Albert et al., *RandLoRA* (ICLR 2025, arXiv 2502.00987);
    PaulAlbert31/RandLoRA, peft/src/peft/tuners/randlora/layer.py.
    """

    def __init__(self, base: nn.Linear, config: RandLoraPaperConfig) -> None:
        super().__init__(base, config)
        out, n_in = base.weight.shape
        small, large, r = min(out, n_in), max(out, n_in), config.r
        n = config.num_bases or math.ceil(small / r)
        self.scaling = config.alpha / (r * math.sqrt(n))
        self.tall = out >= n_in
        self.lam = nn.Parameter(torch.zeros(r, n))
        self.gamma = nn.Parameter(torch.full((n, small), 1 / max(n, small)))
        self._bases = (
            bank(r, small, seed=2 * config.seed),
            bank(large, n, r, seed=2 * config.seed + 1),
        )

    def factors(self) -> tuple[Tensor, Tensor]:
        """The bases side by side, and A multiplied by the diagonals: factors of rank n r."""
        a, b = (basis.on(self.lam.device).to(self.lam) * math.sqrt(3) for basis in self._bases)
        scaled = einsum(self.lam, self.gamma, a, "i j, j small, i small -> j i small")
        left = rearrange(b, "large j i -> large (j i)")
        right = rearrange(scaled, "j i small -> (j i) small")
        return (left, right) if self.tall else (right.T, left.T)


def ranks(smallest_side: int) -> list[int]:
    """Ranks worth trying, one for each number of bases n; the count falls from first to last."""
    return sorted({math.ceil(smallest_side / n) for n in range(1, smallest_side + 1)})


def _paper_alpha(options: dict[str, Any]) -> dict[str, Any]:
    return {"alpha": 2.0 * options.get("r", RandLoraPaperConfig.r), **options}


def _peft_alpha(options: dict[str, Any]) -> dict[str, Any]:
    return {"randlora_alpha": 20 * options.get("r", RandLoraConfig.r), **options}


_SOURCE = "Albert et al., arXiv 2502.00987"

register_update(RandLoraPaperConfig, RandLoraPaperUpdate)
register_method(
    Method(
        "randlora_paper",
        RandLoraPaperConfig,
        renamed={"randlora_alpha": "alpha"},
        ignored=frozenset({"alpha"}),
        complete=_paper_alpha,
        sizes=ranks,
        formula=r"(randlora_alpha / (r √n)) Σⱼ Bⱼ Λⱼ A Γⱼ, n = num_bases or ⌈min(in, out) / r⌉",
        source=f"{_SOURCE}; PaulAlbert31/RandLoRA",
        note="randlora_alpha is 2r unless set; a larger r means fewer trained numbers; num_bases "
        "sets n apart from r, below full rank where n r is smaller",
    )
)
register_method(
    Method(
        "randlora",
        RandLoraConfig,
        renamed={"dropout": "randlora_dropout"},
        ignored=frozenset({"alpha"}),
        defaults={"save_projection": False},
        complete=_peft_alpha,
        sizes=ranks,
        formula=r"(randlora_alpha / r) Σⱼ Bⱼ Λⱼ A Γⱼ",
        source=f"{_SOURCE}; PEFT",
        note="randlora_alpha is 20r unless set, as in PEFT; bases are drawn anew, not saved; r "
        "decides their number, ⌈min(in, out) / r⌉: `randlora_paper` sets it apart",
    )
)
