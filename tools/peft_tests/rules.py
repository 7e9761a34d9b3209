"""Which of PEFT's tests say nothing of a method that is not LoRA, and what cannot hold for ours."""

import re

FILES = (
    "custom_models decoder_models encoder_decoder_models feature_extraction_models seq_classifier "
    "target_parameters low_level_api other tuners_utils initialization trainable_tokens helpers "
    "config mixed mapping auto hub_features integrations torch_compile"
).split()
"""Not here: files about one method or one of LoRA's variants, and those that need a GPU or the
Hub (quantised models, diffusion, vision)."""
LEFT_OUT = {
    "Test(Corda|Eva|Kasa|Velora)Initialization": "a start",
    "TestDoraCaching|TestMontecloraTrainerMixin": "a variant",
    "TestHotSwapping": "PEFT swaps the weights of LoRA adapters only",
    "TestDynamicDispatch": "LoRA's registry of custom layers",
}
LORA_OPTIONS = (
    "use_dora use_qalora use_bdlora lora_bias alora_invocation_tokens arrow_config corda_config "
    "eva_config kasa_config loftq_config lora_ga_config megatron_config monteclora_config "
    "runtime_config velora_config"
).split()
"""Options of LoRA's variants and starts: a row that sets one is left out."""
CANNOT = {
    "PeftMixedModel|not supported for mixed models": "PEFT's list of methods for mixed models is "
    "closed",
    "test_from_pretrained_forward_compatible": "an unknown setting saved by the same version is "
    "refused, not ignored",
    r"test_only_params_are_updated.*EmbConv1D.*: assert not True": "the bandwidths of 8 weights "
    "move by less than the test's 1e-4 in its three steps",
    r"test_nb_params\w*: .*assert \d+ == ": "it counts LoRA's parameters",
    r": .*(\blora_[AB]|\blora\.|LoraModel|'LORA'|'lora')": "it asserts LoRA's names",
    r"(test_model_card_has_expected_tags|test_get_peft_model\w*_low_cpu_mem_usage|"
    r"missing_keys_warning).*: .*assert (False|set\(\))": "it asserts LoRA's names",
    "test_custom_peft_type_does_not_raise": "it puts LoRA's name into the configuration",
}
"""Pattern on `row: error`, and why such a row of LoRA's cannot pass."""


def left_out(row: str) -> str:
    """Why the row is LoRA's own, or nothing."""
    return next((why for pattern, why in LEFT_OUT.items() if re.search(pattern, row)), "")


def cannot(row: str, error: str) -> str:
    """Why a failed row cannot pass, or nothing."""
    found = (why for pattern, why in CANNOT.items() if re.search(pattern, f"{row}: {error}"))
    return next(found, "")
