"""Which of PEFT's tests say nothing of a method that is not LoRA, and what cannot hold for ours."""

import re

FILES = (
    "custom_models decoder_models encoder_decoder_models feature_extraction_models seq_classifier "
    "target_parameters low_level_api other tuners_utils initialization trainable_tokens helpers "
    "config mixed mapping auto hub_features integrations torch_compile"
).split()
"""Not here: files about one method or one of LoRA's variants, and those that need a GPU or the
Hub (quantised models, diffusion, vision)."""
EXCLUDED = {
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
    "PeftMixedModel|not supported for mixed models": "PEFT's list of methods for `PeftMixedModel` "
    "is closed",
    "test_weighted_combination_of_adapters": "sums by LoRA's factors: svd, ties, dare, pruning, "
    "and linear with its ranks",
    r"test_exclude_modules_not_used|no_matching_keys|targeting_lora_to_embedding_layer|"
    r"test_embedding_size_not_reduced|_invalid_target_\w+_warns": "a name that matches nothing is "
    "refused, where PEFT warns or passes over it",
    "test_from_pretrained_forward_compatible\\[": "an unknown setting saved by the same version is "
    "refused, not ignored",
    "test_only_params_are_updated.*: assert not True": "the bandwidths, or A of an embedding, move "
    "by less than the test's 1e-4 in its three steps",
    "TestTransformersV5": "PEFT rewrites the module names of transformers 4 (`gate_proj` of "
    "stacked experts) for LoRA's old files only; ours are named by `target_parameters`",
    "rank_not_divisible_by_groups": "LoRA refuses ranks that a convolution's groups do not divide; "
    "ours takes any",
    "TestDisableInputDtypeCasting": "LoRA fails where input and factors differ in dtype and the "
    "cast is off; ours computes",
    "works_with_existing_parametrization": "a parametrized parameter is named by its module, in "
    "`target_modules`",
}
"""Pattern on `row: error`, and why such a row of LoRA's cannot pass."""
NAMES = {
    r": .*(\blora_\w*[AB]\b|\blora\.|\.lora\.|LoraModel|'LORA'|'lora')|"
    r"test_model_card_has_expected_tags|test_get_peft_model\w*_low_cpu_mem_usage|"
    r"missing_keys_warning|test_custom_peft_type|test_mha_exposes_attributes|"
    r"test_mha_gradients_set_correctly|load_from_peft_config": "LoRA's names and inner parts",
    r"test_nb_params|test_model_with_injected_layers": "the number of LoRA's parameters",
    r"TestExcludedModuleNames.*Regex|TestExcludedModuleNames.*no_modules_matched|"
    r"test_second_adapter_only_modules_to_save_raises|target_parameters_wrong_type|"
    r"test_mha_with_separate_qkv|bias_argument.invalid|test_from_pretrained_sanity_check|"
    r"test_mixed_adapter_batches_mha": "PEFT's words or class of error, where ours refuses too",
}
"""Rows that assert names or texts alone: a pattern on `row: error`, and what they assert."""


def exclusion_reason(row: str) -> str:
    """Why the row is LoRA's own, or nothing."""
    return next((why for pattern, why in EXCLUDED.items() if re.search(pattern, row)), "")


def cannot(row: str, error: str) -> tuple[str, str] | None:
    """For a failed row that cannot pass: `names` or `cannot hold`, and why."""
    for outcome, rules in (("cannot hold", CANNOT), ("names", NAMES)):
        for pattern, why in rules.items():
            if re.search(pattern, f"{row}: {error}"):
                return outcome, why
    return None
