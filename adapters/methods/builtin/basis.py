"""The basis adapter, LR-LoRA: LoRA factors seen through a learned scalar function."""

from adapters.basis.config import BasisConfig
from adapters.methods.registry import Method, register_method

register_method(
    Method(
        "basis",
        BasisConfig,
        formula="(alpha / r) φ(B A), φ learned",
        source="Garg et al., arXiv 2606.04325",
    )
)
