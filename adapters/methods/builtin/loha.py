"""LoHa: the elementwise product of two low-rank matrices, started at random."""

from peft import LoHaConfig

from adapters.methods.registry import Method, register_method

register_method(
    Method(
        "loha",
        LoHaConfig,
        formula="(alpha / r) (B₁ A₁) ⊙ (B₂ A₂)",
        source="Hyeon-Woo et al., arXiv 2108.06098; PEFT",
    )
)
