"""HiRA: the weight times a low-rank matrix, elementwise."""

from peft import HiraConfig

from adapters.methods.registry import Method, register_method

register_method(
    Method(
        "hira",
        HiraConfig,
        renamed={"dropout": "hira_dropout"},
        ignored=frozenset({"alpha"}),
        convertible=False,
        formula="W ⊙ (B A)",
        source="Huang et al., ICLR 2025; PEFT",
        note="has no alpha; the paper's r is 32",
    )
)
