"""Our names for the options of PEFT's LoRA."""

LORA_NAMES = {"alpha": "lora_alpha", "dropout": "lora_dropout"}
