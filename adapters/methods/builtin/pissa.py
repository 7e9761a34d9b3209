"""PiSSA: LoRA on the leading singular directions, which leave the frozen weight."""

from peft import LoraConfig

from adapters.methods.builtin.lora import LORA_NAMES
from adapters.methods.registry import Method, register_method

register_method(
    Method(
        "pissa",
        LoraConfig,
        renamed=LORA_NAMES,
        # the exact decomposition: PEFT repeats it when loading, and a randomised one would differ
        fixed={"init_lora_weights": "pissa"},
        weightless={"init_lora_weights": True},
        convertible=False,
        formula="W = (W − (alpha / r) B₀ A₀) + (alpha / r) B A; B₀ A₀ from the SVD of W",
        source="Meng et al., arXiv 2404.02948; PEFT",
        note="the base weight changes: with the adapter disabled the model is not the base; an "
        "adapter taken off it as plain LoRA needs PEFT's path_initial_model_for_weight_conversion",
    )
)
