"""DyLoRA: LoRA trained at a random rank each step, so that it can be cut to any rank later."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adapters.basis.field_types import require
from adapters.methods.registry import Method, register_method
from adapters.methods.tuner import FactoredUpdate, UpdateConfig, UpdateModel, register_update
from adapters.peft_integration.options import setting
from adapters.training.hooks import Hooks, register_hooks

_DRAWS = "_dylora_draws"
"""The attribute of the model that counts draws."""


@dataclass
class DyloraConfig(UpdateConfig):
    """Settings of DyLoRA."""

    alpha: float = setting(16.0, "the update of rank b: alpha / b")
    r_min: int = setting(1, "the smallest rank that is drawn")
    last_only: bool = setting(False, "train only row b of the factors (the paper's FRZ)")
    seed: int = setting(0, "seed of the draws")

    method: ClassVar[str] = "dylora"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.r_min <= self.r, "r_min", f"between 1 and r = {self.r}", self.r_min)


class DyloraUpdate(FactoredUpdate):
    r"""$\Delta W_b = \frac{\alpha}{b} B_{:, :b} A_{:b, :}$.

    While training b is drawn uniformly from r_min..r, one for the whole model and forward pass;
    in evaluation it is `rank`, r unless set (`set_rank`).

    Reference: Valipour et al., *DyLoRA* (EACL 2023, arXiv 2210.07558).
    """

    def __init__(self, base: nn.Linear, config: DyloraConfig) -> None:
        super().__init__(base, config)
        (out, n), r = base.weight.shape, config.r
        self.a, self.b = nn.Parameter(torch.empty(r, n)), nn.Parameter(torch.zeros(out, r))
        nn.init.kaiming_uniform_(self.a, a=5**0.5)
        self.config, self.rank, self.drawn_rank = config, r, r

    def factors(self) -> tuple[Tensor, Tensor]:
        """The first b columns of B, weighted by r / b, and rows of A."""
        rank = self.drawn_rank if self.training else self.rank
        b, a = self.b[:, :rank], self.a[:rank]
        if self.training and self.config.last_only:
            b = torch.cat([b[:, :-1].detach(), b[:, -1:]], dim=1)
            a = torch.cat([a[:-1].detach(), a[-1:]], dim=0)
        return b * (self.config.r / rank), a


def rank_at(config: DyloraConfig, draw: int) -> int:
    """The rank of forward pass number `draw` (0 is the first); the same for the same seed."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + draw)
    return int(torch.randint(config.r_min, config.r + 1, (), generator=generator))


def _draw(model: nn.Module, args: Any) -> None:
    if model.training:
        for update in (m for m in model.modules() if isinstance(m, DyloraUpdate)):
            update.drawn_rank = rank_at(update.config, vars(model)[_DRAWS])
        vars(model)[_DRAWS] += 1


class DrawingModel(UpdateModel):
    """Draws a rank before each training pass of the model."""

    def _create_and_replace(self, *args: Any, **kwargs: Any) -> None:
        super()._create_and_replace(*args, **kwargs)
        if _DRAWS not in vars(self.model):
            vars(self.model)[_DRAWS] = 0
            self.model.register_forward_pre_hook(_draw)


def set_rank(model: nn.Module, rank: int) -> None:
    """Evaluate, merge and convert the DyLoRA adapters of `model` at `rank`.

    Raises:
        ValueError: `rank` is below 1 or above an adapter's r.
    """
    for update in (m for m in model.modules() if isinstance(m, DyloraUpdate)):
        require(1 <= rank <= update.config.r, "rank", f"between 1 and {update.config.r}", rank)
        update.rank = rank


def _state(model: nn.Module, config: DyloraConfig) -> dict[str, Tensor]:
    return {"draws": torch.tensor(vars(_drawing(model))[_DRAWS])}


def _load_state(model: nn.Module, config: DyloraConfig, state: Mapping[str, Tensor]) -> None:
    vars(_drawing(model))[_DRAWS] = int(state["draws"])


def _drawing(model: nn.Module) -> nn.Module:
    """The module that counts the draws."""
    return next(m for m in model.modules() if _DRAWS in vars(m))


register_update(DyloraConfig, DyloraUpdate, DrawingModel)
register_hooks(DyloraConfig, Hooks(state=_state, load_state=_load_state))
register_method(
    Method(
        "dylora",
        DyloraConfig,
        low_rank=True,
        formula=r"(alpha / b) B[:, :b] A[:b]; b drawn each training pass",
        source="Valipour et al., arXiv 2210.07558",
        note="b uniform on r_min..r; evaluated at r unless `dylora.set_rank` says less",
    )
)
