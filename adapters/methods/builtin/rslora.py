"""rsLoRA: LoRA divided by the root of the rank."""

from peft import LoraConfig

from adapters.methods.builtin.lora import LORA_NAMES
from adapters.methods.registry import Method, register_method

register_method(
    Method(
        "rslora",
        LoraConfig,
        renamed=LORA_NAMES,
        fixed={"use_rslora": True},
        low_rank=True,
        formula="(alpha / √r) B A",
        source="Kalajdzievski, arXiv 2312.03732; PEFT",
    )
)
