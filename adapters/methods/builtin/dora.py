"""DoRA: LoRA on the direction of the weight, its row norms trained beside it."""

from peft import LoraConfig

from adapters.methods.builtin.lora import LORA_NAMES
from adapters.methods.registry import Method, register_method

register_method(
    Method(
        "dora",
        LoraConfig,
        renamed=LORA_NAMES,
        fixed={"use_dora": True},
        convertible=False,
        formula="m (W + (alpha / r) B A) / ‖W + (alpha / r) B A‖ (by rows) − W",
        source="Liu et al., arXiv 2402.09353; PEFT",
        note="peft.convert_to_lora accepts it and drops the magnitude m: do not convert it",
    )
)
