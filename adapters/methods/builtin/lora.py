"""LoRA, as PEFT has it."""

from peft import LoraConfig

from adapters.methods.registry import Method, register_method

LORA_NAMES = {"alpha": "lora_alpha", "dropout": "lora_dropout"}
"""Our names for the options of PEFT's LoRA."""

register_method(
    Method(
        "lora",
        LoraConfig,
        renamed=LORA_NAMES,
        low_rank=True,
        formula="(alpha / r) B A",
        source="Hu et al., arXiv 2106.09685; PEFT",
    )
)
