"""Every private name of PEFT, torch and transformers that `adapters` relies on, with the reason.

Private is what begins with an underscore, and what only an inner module has. test_private_names.py
looks each of them up, so that a new version which lacks one fails by its name, and fails where the
package reads a private name that is not here.
"""

import importlib
import inspect
from typing import NamedTuple


class Private(NamedTuple):
    """A name in a module, and what would break without it."""

    module: str
    name: str
    """Attributes after dots; an attribute of instances is one that the class assigns to `self`."""
    reason: str

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"

    def exists(self) -> bool:
        """Whether the installed versions have it."""
        try:
            owner = importlib.import_module(self.module)
        except ImportError:
            return False
        for part in self.name.split("."):
            if not hasattr(owner, part):
                return inspect.isclass(owner) and _is_assigned(owner, part)
            owner = getattr(owner, part)
        return True


def _is_assigned(owner: type, attribute: str) -> bool:
    return f"self.{attribute} " in inspect.getsource(owner).replace("[", " ").replace(":", " ")


_TUNERS, _OTHER = "peft.tuners.tuners_utils", "peft.utils.other"
_QUANTIZED, _LORA = "peft.utils.quantization_utils", "peft.tuners.lora.layer"

PRIVATE_NAMES = (
    Private("peft.utils", "PeftType._member_names_", "registration: a new member of a closed enum"),
    Private("peft.utils", "PeftType._member_map_", "registration: a new member of a closed enum"),
    Private("peft.utils", "PeftType._value2member_map_", "registration: PeftType('BASIS')"),
    Private("peft.utils", "PeftType.LORA._name_", "registration: the new member's name"),
    Private("peft.utils", "PeftType.LORA._value_", "registration: the new member's value"),
    Private("peft.mapping", "PEFT_TYPE_TO_CONFIG_MAPPING", "registration: whether it is done"),
    Private("peft.utils", "register_peft_method", "registration"),
    Private(
        "peft.utils",
        "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING",
        "tuners: `target_modules` by default",
    ),
    Private(
        "torch._C._dynamo.eval_frame",
        "get_eval_frame_callback",
        "fitting: whether what is called now is compiled",
    ),
    Private(
        "torch.nn",
        "Module._replicate_for_data_parallel",
        "fitting: it sets `_is_replica`, by which nn.DataParallel is refused",
    ),
    Private(_TUNERS, "BaseTuner", "tuners: the class that they extend"),
    Private(_TUNERS, "BaseTuner._create_and_replace", "tuners: called for each adapted module"),
    Private(_TUNERS, "BaseTuner._prepare_model", "basis: words are replaced by names"),
    Private(_TUNERS, "BaseTuner._replace_module", "tuners: composite heads can be unloaded"),
    Private(_TUNERS, "BaseTuner._unload_and_optionally_merge", "basis: hooks go with the adapter"),
    Private(_TUNERS, "BaseTuner._check_new_adapter_config", "basis: `target_parameters` differ"),
    Private(_TUNERS, "BaseTuner._prepare_adapter_config", "basis: `target_parameters` alone"),
    Private(_TUNERS, "BaseTuner._cast_adapter_dtype", "basis: factors in the dtype of W"),
    Private(_TUNERS, "BaseTuner._get_adapter_state_dict", "basis: weighted sums are not saved"),
    Private(_TUNERS, "BaseTuner._add_targets_to_tie", "basis: tied embeddings"),
    Private(_TUNERS, "BaseTuner._add_modules_to_save_to_tie", "basis: tied embeddings"),
    Private(_TUNERS, "replicate_layers", "basis: `layer_replication`"),
    Private(
        "peft.peft_model", "PeftModel._enable_peft_forward_hooks", "basis: calls the tuner's hook"
    ),
    Private(_LORA, "ParamWrapper", "layers: PEFT knows the layer of a parameter by this name"),
    Private(
        _TUNERS,
        "BaseTuner._remap_adapter_state_dict_for_load",
        "basis: a saved adapter that is not whole is refused",
    ),
    Private(_TUNERS, "BaseTunerLayer", "layers: the class that they extend"),
    Private(
        _TUNERS,
        "BaseTunerLayer._move_adapter_to_device_of_base_layer",
        "layers: numbers keep their dtype",
    ),
    Private(
        _TUNERS, "BaseTunerLayer._get_base_layer_device_and_dtype", "basis: where numbers belong"
    ),
    Private(_TUNERS, "BaseTunerLayer._get_available_adapters", "export: who carries an adapter"),
    Private(_TUNERS, "BaseTunerLayer._disable_adapters", "layers: read by `disable_adapters`"),
    Private(_TUNERS, "BaseTunerLayer._active_adapter", "layers: read by `active_adapters`"),
    Private(_TUNERS, "check_adapters_to_merge", "merging: which adapters a merge means"),
    Private(_TUNERS, "check_target_module_exists", "placement: names as PEFT matches them"),
    Private(_OTHER, "AuxiliaryTrainingWrapper", "tuners, export: what holds a head"),
    Private(_OTHER, "ModulesToSaveWrapper", "export: what holds a head"),
    Private(_OTHER, "ModulesToSaveWrapper._adapters", "basis: a sum has its part's head"),
    Private(_OTHER, "get_pattern_key", "basis: rank_pattern, phi_pattern"),
    Private("peft.utils.constants", "DUMMY_TARGET_MODULES", "placement: PEFT's own word"),
    Private("peft.utils.constants", "INCLUDE_LINEAR_LAYERS_SHORTHAND", "placement: PEFT's word"),
    Private(_QUANTIZED, "ForwardOnlyQuantizationBackend", "basis: quantised bases"),
    Private(_QUANTIZED, "QuantizationBackend", "basis: quantised bases"),
    Private(_QUANTIZED, "get_quantization_kwargs", "basis: quantised bases"),
    Private(_QUANTIZED, "resolve_quantization_backend", "basis: quantised bases"),
    Private("peft.config", "PeftConfigMixin.check_kwargs", "basis: a damaged file is refused"),
    Private("peft.config", "PeftConfigMixin.save_pretrained", "card: called last, with the folder"),
    Private(_LORA, "LoraLayer.lora_A", "export: LoRA's factors"),
    Private(_LORA, "LoraLayer.lora_B", "export: LoRA's factors"),
    Private(_LORA, "LoraLayer.scaling", "export: LoRA's scale"),
    Private(_LORA, "LoraLayer.lora_variant", "export: DoRA and others are refused"),
    Private(_LORA, "ParamWrapper.parameter_name", "export: LoRA on experts is refused"),
    Private("peft.tuners.lora", "LoraLayer", "export: LoRA's layers"),
    Private("peft.tuners.adalora.layer", "RankAllocator", "adalora: what it remembers is saved"),
    Private("peft.tuners.adalora.layer", "RankAllocator.reset_ipt", "adalora: resuming"),
    Private("peft.tuners.adalora.layer", "RankAllocator.ipt", "adalora: resuming"),
    Private("peft.tuners.adalora.layer", "RankAllocator.exp_avg_ipt", "adalora: resuming"),
    Private("peft.tuners.adalora.layer", "RankAllocator.exp_avg_unc", "adalora: resuming"),
    Private("peft.tuners.adalora.layer", "AdaLoraLayer.ranknum", "adalora: kept from training"),
    Private("peft.tuners.adalora.layer", "AdaLoraLayer.lora_E", "export: AdaLoRA's factors"),
    Private("peft.tuners.adalora.model", "AdaLoraModel.rankallocator", "adalora: resuming"),
    Private("torch", "Tensor._version", "fitting: whether a tensor was changed in place"),
    Private(
        "torch.optim.optimizer", "register_optimizer_step_post_hook", "fitting: steps are counted"
    ),
    Private("torch.distributed.fsdp", "FSDPModule", "fitting: what FSDP2 gathers together"),
    Private("torch.distributed.fsdp", "FSDPModule._get_fsdp_state", "fitting: the unit of FSDP2"),
    Private("torch.distributed.fsdp", "FullyShardedDataParallel", "fitting: the unit of FSDP1"),
    Private("torch.nn", "Module._parameters", "layers: whether a weight is a plain parameter"),
    Private("torch.nn", "Module._forward_hooks", "layers: a hooked base layer is called"),
    Private("torch.nn", "Module._forward_pre_hooks", "layers: a hooked base layer is called"),
    Private("torch.nn", "Module._backward_hooks", "layers: a hooked base layer is called"),
    Private("torch.nn", "Module._backward_pre_hooks", "layers: a hooked base layer is called"),
    Private("torch.nn", "MultiheadAttention._qkv_same_embed_dim", "layers: attention"),
    Private("torch", "_scaled_mm", "ops: products in 8 bits"),
    Private("torch", "ops.aten._unsafe_view", "ops: an output that may be changed in place"),
    Private("torch.nn.utils", "parametrize", "merging: onto a parametrized weight"),
    Private("torch.utils.hooks", "RemovableHandle", "fitting: the hooks on a model"),
    Private("transformers.pytorch_utils", "Conv1D", "layers: GPT-2's linear layers"),
    Private("transformers.trainer_callback", "TrainerControl", "hooks: the Trainer's callback"),
    Private("transformers.trainer_callback", "TrainerState", "hooks: the Trainer's callback"),
    Private("transformers.training_args", "TrainingArguments", "hooks: the Trainer's callback"),
)
