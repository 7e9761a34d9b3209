"""The PEFT tuner: puts `BasisLinear` in the place of the targeted layers."""

from typing import Any

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from peft.utils.other import AuxiliaryTrainingWrapper, get_pattern_key
from peft.utils.quantization_utils import get_quantization_kwargs
from torch import Tensor, nn

from adapters.batch import PhiBatch
from adapters.config import BasisConfig
from adapters.layer import BasisLinear
from adapters.module_names import depths
from adapters.patterns import config_for, expand_words
from adapters.placement import adaptable, has_words, placed
from adapters.registration import register_with_peft
from adapters.saved import check_saved, without_copies
from adapters.sharing import tie
from adapters.unmatched import check_names


class BasisModel(BaseTuner):
    """W' = W + s phi(B A) for every targeted linear layer of a model.

    Used through `peft.get_peft_model(model, BasisConfig(...))`.
    """

    prefix = "basis_"
    tuner_layer_cls = BasisLinear
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def inject_adapter(self, model: nn.Module, adapter_name: str, **kwargs: Any) -> None:
        """As PEFT's, then ties what the modules share; refuses names that match nothing."""
        if kwargs.get("state_dict") is None:  # which else says by itself what is adapted
            check_names(model, self.peft_config[adapter_name])
        super().inject_adapter(model, adapter_name, **kwargs)
        config = self.peft_config[adapter_name]
        layers = {n: m for n, m in model.named_modules() if isinstance(m, BasisLinear)}
        tie(layers, adapter_name, config.sharing, config.sharing_scope)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls,
        model: nn.Module,
        config: BasisConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """As PEFT's; refuses what is not a whole adapter of this model, where PEFT only warns."""
        state_dict = without_copies(state_dict, model, adapter_name)
        remapped = super()._remap_adapter_state_dict_for_load(
            model, config, adapter_name, state_dict
        )
        check_saved(remapped, model.state_dict(), adapter_name)
        return remapped

    def _prepare_model(self, peft_config: BasisConfig, model: nn.Module) -> None:
        """Put names in the place of words; the saved configuration holds the names."""
        targets, indices = peft_config.target_modules, peft_config.layers_to_transform
        if has_words(targets) or not peft_config.from_file:  # a file holds names
            names = placed(model, targets, peft_config.layers, indices)
            if names is not None:
                peft_config.target_modules = set(names)
        peft_config.rank_pattern = expand_words(peft_config.rank_pattern, model)
        peft_config.phi_pattern = expand_words(peft_config.phi_pattern, model)
        self._depths = depths(adaptable(model))

    def _create_and_replace(
        self,
        peft_config: BasisConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **optional_kwargs: Any,
    ) -> None:
        base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        if current_key not in self._depths:
            raise ValueError(
                f"cannot adapt {current_key!r} of type {type(base).__name__}: expected a linear "
                "layer; name only such in `target_modules`, or leave it out by `exclude_modules`"
            )
        pattern = peft_config.rank_pattern
        r = pattern.get(get_pattern_key(pattern.keys(), current_key), peft_config.r)
        config = config_for(peft_config, current_key, self._depths[current_key])
        batch = self._batch(adapter_name, peft_config)
        if isinstance(target, BasisLinear):
            target.update_layer(adapter_name, r, config, batch)
            return
        quantization = get_quantization_kwargs(self.model)
        new = BasisLinear(target, adapter_name, r, config, batch, quantization)
        if adapter_name not in self.active_adapters:
            new.requires_grad_(False)
        self._replace_module(parent, target_name, new, target)

    def _batch(self, adapter_name: str, config: BasisConfig) -> PhiBatch:
        """The batch of `adapter_name`; the model tells it when a forward pass begins.

        It lives on the model, not on the tuner: PEFT drops the tuner after
        `inject_adapter_in_model`, and the model goes on without it.
        """
        state = self.model.__dict__
        if "_basis_batches" not in state:
            state["_basis_batches"] = {}
            state["_basis_hooks"] = [
                self.model.register_forward_pre_hook(_begin_pass),
                self.model.register_forward_hook(_end_pass, always_call=True),
            ]
        batches: dict[str, PhiBatch] = state["_basis_batches"]
        if adapter_name not in batches or not batches[adapter_name].layers:
            batches[adapter_name] = PhiBatch(adapter_name, config.tolerance)
        return batches[adapter_name]

    def delete_adapter(self, adapter_name: str) -> None:
        """As PEFT's, and forgets the batch."""
        super().delete_adapter(adapter_name)
        self.model.__dict__.get("_basis_batches", {}).pop(adapter_name, None)

    def _unload_and_optionally_merge(self, *args: Any, **kwargs: Any) -> nn.Module:
        model = super()._unload_and_optionally_merge(*args, **kwargs)
        for hook in model.__dict__.pop("_basis_hooks", []):
            hook.remove()
        model.__dict__.pop("_basis_batches", None)
        return model

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        # PEFT reads `child.weight`, which a composite head in modules_to_save lacks (peft #3114)
        if isinstance(child, AuxiliaryTrainingWrapper):
            setattr(parent, child_name, new_module)
            return
        super()._replace_module(parent, child_name, new_module, child)


def _begin_pass(model: nn.Module, _: Any) -> None:
    for batch in model.__dict__["_basis_batches"].values():
        batch.begin_pass(model.training)


def _end_pass(model: nn.Module, *_: Any) -> None:
    for batch in model.__dict__["_basis_batches"].values():
        batch.end_pass()


register_with_peft("basis", BasisConfig, BasisModel)
