"""LoRA+: LoRA whose factor B learns faster than A."""

from dataclasses import dataclass
from typing import Any

from peft import LoraConfig

from adapters.basis.field_types import require
from adapters.methods.builtin.lora import LORA_NAMES
from adapters.methods.registry import Method, register_method
from adapters.peft_integration.options import setting
from adapters.training.hooks import Hooks, register_hooks


@dataclass
class LoraPlusConfig(LoraConfig):
    """LoRA with the ratio that `adapters.parameter_groups` applies; saved and loaded as LoRA."""

    rate_ratio: float = setting(16.0, "learning rate of B over that of A")

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]  # PEFT's
        require(self.rate_ratio > 0, "rate_ratio", "positive", self.rate_ratio)

    def to_dict(self) -> dict[str, Any]:
        """What is saved: a LoRA configuration, since the ratio matters in training only."""
        fields = super().to_dict()  # type: ignore[no-untyped-call]  # PEFT's
        return {name: value for name, value in fields.items() if name != "rate_ratio"}


def _rate(config: LoraPlusConfig, name: str) -> float:
    return config.rate_ratio if "lora_B" in name or "lora_embedding_B" in name else 1.0


register_hooks(LoraPlusConfig, Hooks(rate=_rate))
register_method(
    Method(
        "lora_plus",
        LoraPlusConfig,
        renamed=LORA_NAMES,
        low_rank=True,
        formula="(alpha / r) B A; the learning rate of B is rate_ratio times A's",
        source="Hayou et al., arXiv 2402.12354; PEFT's optimizer",
        note="needs an optimizer made from adapters.parameter_groups",
    )
)
