"""The PEFT tuner: puts layers with adapters in the place of the targeted modules."""

import dataclasses
import re
from typing import Any, cast

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, replicate_layers
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from peft.utils.other import get_pattern_key
from peft.utils.quantization_utils import get_quantization_kwargs
from torch import Tensor, nn

from adapters.basis.config import BasisConfig
from adapters.basis.fitting.model_state import AdapterState
from adapters.basis.fitting.sharding_and_offloading import ABSENT
from adapters.basis.layers import BasisLayer, BasisLinear, choose_layer
from adapters.basis.layers.linear import check_float8
from adapters.basis.mixed_batches import adapters_by_row
from adapters.basis.patterns import phi_for
from adapters.basis.phi_config import PHI_OPTIONS
from adapters.basis.sharing import Blocks, tie
from adapters.basis.state_dict_checks import check_saved, without_copies
from adapters.basis.tied_embeddings import adapt_as_one, save_as_one, share_adapter
from adapters.basis.weighted_sums import sums_of, weigh, weighted_config
from adapters.peft_integration.registration import register_with_peft
from adapters.placement.heads import heads
from adapters.placement.inspection import base_of, reads_weight
from adapters.placement.module_names import depths
from adapters.placement.name_checks import check_names
from adapters.placement.targets import expand_words, has_words, placed


class BasisModel(BaseTuner):
    """W' = W + s phi(B A) for every targeted module of a model.

    Used through `peft.get_peft_model(model, BasisConfig(...))`.
    """

    prefix = "basis_"
    tuner_layer_cls = BasisLayer
    peft_config: dict[str, BasisConfig]  # type: ignore[assignment]  # PEFT's is of its base class
    # PEFT's own tuners differ from their base class in the same way
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING  # type: ignore[assignment]

    def inject_adapter(  # type: ignore[override]  # options are PEFT's, by name, of any version
        self, model: nn.Module, adapter_name: str, **kwargs: Any
    ) -> None:
        """Inject as PEFT does, then tie what modules share; refuses names that match nothing."""
        if kwargs.get("state_dict") is None:  # a state dict says by itself what is adapted
            check_names(model, self.peft_config[adapter_name])
        super().inject_adapter(model, adapter_name, **kwargs)
        config = self.peft_config[adapter_name]
        assert isinstance(config, BasisConfig)
        layers = {n: m for n, m in model.named_modules() if isinstance(m, BasisLayer)}
        if config.gradient_dtype == "float8" and not config.from_file:
            check_float8(m for m in layers.values() if adapter_name in m.scaling)
        if config.sharing_scope == "head":
            _require_heads(layers, adapter_name)
        tie(layers, adapter_name, config.sharing, config.sharing_scope)
        tied = getattr(config, "target_modules_to_tie", None) or ()
        share_adapter(model, layers, adapter_name, tied)

    @classmethod
    def _remap_adapter_state_dict_for_load(  # type: ignore[override]  # as `peft_config`
        cls,
        model: nn.Module,
        config: BasisConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Remap as PEFT does; an adapter that does not fit this model is refused, not warned of."""
        state_dict = without_copies(state_dict, model, adapter_name)
        remapped = super()._remap_adapter_state_dict_for_load(
            model, config, adapter_name, state_dict
        )
        check_saved(remapped, model.state_dict(), adapter_name)
        return remapped

    def _add_targets_to_tie(self, peft_config: BasisConfig, tied_weight_keys: list[str]) -> None:
        adapt_as_one(peft_config, self.model, tied_weight_keys)

    def _add_modules_to_save_to_tie(
        self, peft_config: BasisConfig, tied_weight_keys: list[str]
    ) -> None:
        save_as_one(peft_config, self.model, tied_weight_keys)

    def _check_new_adapter_config(self, config: PeftConfig) -> None:
        """Check as PEFT does, and refuse parameters that differ from those of another adapter.

        Layers around the parameters of one module are nested, and a file identifies them by their
        order alone, which would differ when the adapter is loaded by itself.
        """
        super()._check_new_adapter_config(config)
        parameters = set(getattr(config, "target_parameters", None) or ())
        for name, other in self.peft_config.items():
            others = set(getattr(other, "target_parameters", None) or ())
            if parameters and others and parameters != others:
                raise ValueError(
                    "all adapters must target the same set of parameters, but `target_parameters` "
                    f"are {sorted(parameters)} now and {sorted(others)} for adapter {name!r}: give "
                    "both the same, or load them on models of their own"
                )

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> Any:
        if peft_config.target_modules is None and peft_config.target_parameters:
            return peft_config
        return super()._prepare_adapter_config(peft_config, model_config)

    def _prepare_model(  # type: ignore[override]  # as `peft_config`
        self, peft_config: BasisConfig, model: nn.Module
    ) -> None:
        """Replace words by names, which the saved configuration then holds."""
        if peft_config.layer_replication:
            replicate_layers(model, peft_config.layer_replication)
        targets, indices = peft_config.target_modules, peft_config.layers_to_transform
        if has_words(targets) or not peft_config.from_file:  # a file holds names
            names = placed(model, targets, peft_config.layers, indices)
            if names is not None:
                peft_config.target_modules = set(names)  # type: ignore[assignment]  # PEFT keeps a set
        peft_config.rank_pattern = expand_words(peft_config.rank_pattern, model)
        peft_config.alpha_pattern = expand_words(peft_config.alpha_pattern, model)
        peft_config.phi_pattern = expand_words(peft_config.phi_pattern, model)
        self._heads = heads(self.model) if peft_config.sharing_scope == "head" else {}
        self._depths = depths([name for name, _ in model.named_modules()])

    def _create_and_replace(  # type: ignore[override]  # as `peft_config`
        self,
        peft_config: BasisConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
        **optional_kwargs: Any,
    ) -> None:
        base = base_of(target)
        if isinstance(base, nn.MultiheadAttention) and parameter_name is None:
            self._adapt_attention(
                peft_config, adapter_name, target, target_name, parent, current_key
            )
            return
        r, config = self._settings(peft_config, current_key)
        batch = self._state.batch(adapter_name, peft_config.tolerance)
        blocks = Blocks(*self._heads[current_key]) if current_key in self._heads else None
        if isinstance(target, BasisLayer) and target.parameter_name == (parameter_name or "weight"):
            target.heads = blocks or target.heads
            target.update_layer(adapter_name, r, config, batch)
            return
        kind = choose_layer(target, parameter_name)
        if kind is None:
            raise ValueError(_cannot(current_key, base, parameter_name))
        is_read = reads_weight(type(parent), target_name)  # type: ignore[arg-type]  # classes are hashable
        options: dict[str, Any] = {"weight_is_read": is_read}
        if blocks is not None:
            options["heads"] = blocks
        if kind is BasisLinear:
            options["quantization"] = get_quantization_kwargs(self.model)
        elif parameter_name is not None:
            options["parameter_name"] = parameter_name
        new = kind(target, adapter_name, r, config, batch, **options)
        if adapter_name not in self.active_adapters:
            new.requires_grad_(False)
        self._replace_module(parent, target_name, new, target)

    def _adapt_attention(
        self,
        config: BasisConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        key: str,
    ) -> None:
        """`nn.MultiheadAttention`: its output projection, then the joint one of its inputs."""
        base = cast(nn.MultiheadAttention, base_of(target))
        if not base._qkv_same_embed_dim:
            raise ValueError(
                f"cannot adapt {key!r}: its queries, keys and values have unlike sizes; name its "
                "parameters q_proj_weight, k_proj_weight and v_proj_weight in `target_parameters`"
            )
        output = f"{key}.out_proj"
        self._create_and_replace(
            config, adapter_name, base.out_proj, "out_proj", base, current_key=output
        )
        self._create_and_replace(
            *(config, adapter_name, target, target_name, parent, key),
            parameter_name="in_proj_weight",
        )

    def _settings(self, config: BasisConfig, key: str) -> tuple[int, BasisConfig]:
        """Rank and settings of the module `key`."""
        ranks, alphas = config.rank_pattern, config.alpha_pattern
        r = ranks.get(get_pattern_key(tuple(ranks), key), config.r)
        phi = phi_for(config, key, self._depths.get(key, 0.0))
        alpha = alphas.get(get_pattern_key(tuple(alphas), key), config.alpha)
        if (phi, alpha) == (config.phi, config.alpha):
            return r, config
        own = {name: getattr(phi, name) for name in PHI_OPTIONS} | {"alpha": alpha}
        return r, dataclasses.replace(config, **own, phi_pattern={}, depth_start={})

    @property
    def _state(self) -> AdapterState:
        return AdapterState.of(self.model) or AdapterState(self.model)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """All is made in float32; without autocast, what is trained is cast to the dtype of W.

        A fixed grid stays in float32, since rounding to bfloat16 would move its points.
        """
        if autocast_adapter_dtype:
            super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
            return
        for layer in self.model.modules():
            if isinstance(layer, BasisLayer):
                layer.cast_trained(adapter_name)

    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Any:
        """PEFT's way to hand `adapter_names` to the layers for one forward pass."""
        return adapters_by_row(self.model, **kwargs)

    def add_weighted_adapter(
        self,
        adapters: list[str],
        weights: list[float],
        adapter_name: str,
        combination_type: str = "linear",
    ) -> None:
        """Add an adapter whose update is the weighted sum of the updates of others.

        A sum of phi(B A) is not itself a phi(B A), so it has no numbers of its own: it follows its
        parts and is not saved. It can be active, merged, and exported by `adapters.export.to_lora`.

        Args:
            adapters: Names of adapters of this model.
            weights: One for each, of any sign.
            adapter_name: Name of the sum.
            combination_type: `linear`, or `cat`, which LoRA calls the exact sum; the same here.
                LoRA's other kinds work on factors or cut ranks; for the latter, use
                `adapters.export.to_lora` on the sum.

        Raises:
            ValueError: As `weighted_config`, or another `combination_type`.
        """
        if combination_type not in ("linear", "cat"):
            raise ValueError(
                f"`combination_type` must be 'linear' or 'cat', got {combination_type!r}: make the "
                "sum, then export it at the rank you want by adapters.export.to_lora"
            )
        if sums := [name for name in adapters if name in sums_of(self.model, name)]:
            raise ValueError(f"{sums} are weighted sums themselves: name their parts")
        config = weighted_config(self.peft_config, adapters, weights, adapter_name)
        weigh(self.model, adapters, weights, adapter_name)
        self.peft_config[adapter_name] = config

    @classmethod
    def _get_adapter_state_dict(  # type: ignore[override]  # as `peft_config` and `inject_adapter`
        cls, model: nn.Module, config: BasisConfig, adapter_name: str, **kwargs: Any
    ) -> dict[str, Tensor]:
        """PEFT's state dict.

        Raises:
            ValueError: It is a weighted sum, which has no numbers to save.
            RuntimeError: Its numbers are not in this process.
        """
        if sums_of(model, adapter_name) == [adapter_name]:
            raise ValueError(
                f"adapter {adapter_name!r} is a weighted sum and has no numbers of its own: save "
                "its parts (`selected_adapters`), export it by adapters.export.to_lora, or merge it"
            )
        state: dict[str, Tensor] = super()._get_adapter_state_dict(
            model=model, config=config, adapter_name=adapter_name, **kwargs
        )
        # of what a layer has, bandwidths and centers may be empty, these never
        never_empty = re.compile(r"basis_[AB]\b|basis_phi\..*amplitude")
        if any(not n.numel() for name, n in state.items() if never_empty.search(name)):
            raise RuntimeError(ABSENT.format(adapter_name))  # a file of it could not be loaded
        return state

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete as PEFT does, and forget what its layers shared.

        Raises:
            ValueError: A weighted sum contains it.
        """
        if sums := [name for name in sums_of(self.model, adapter_name) if name != adapter_name]:
            raise ValueError(
                f"adapter {adapter_name!r} is part of the weighted adapters {sums}: "
                "delete them first"
            )
        super().delete_adapter(adapter_name)
        self._state.batches.pop(adapter_name, None)

    def _unload_and_optionally_merge(  # type: ignore[override]  # PEFT names no result, and has one
        self, *args: Any, **kwargs: Any
    ) -> nn.Module:
        unload: Any = super()._unload_and_optionally_merge
        model: nn.Module = unload(*args, **kwargs)
        self._state.remove(model)
        return model

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        # PEFT also moves the adapter to the device of `child.weight`, which composite heads in
        # modules_to_save lack (peft #3114) and on which other parameters may not be; the layer has
        # moved it already
        setattr(parent, child_name, new_module)


def _cannot(key: str, base: nn.Module, parameter_name: str | None) -> str:
    kind = type(base).__name__
    if parameter_name is not None:
        return (
            f"cannot adapt the parameter {parameter_name!r} of {key!r} ({kind}): expected a plain "
            "floating-point parameter of two dimensions or more, on a module without other adapters"
        )
    return (
        f"cannot adapt {key!r} of type {kind}: expected a module with a floating-point `weight` of "
        "two dimensions or more that nothing rescales in place, such as a linear layer, an "
        "embedding or a convolution; leave it out by `exclude_modules`"
    )


register_with_peft("basis", BasisConfig, BasisModel)


def _require_heads(layers: dict[str, BasisLayer], adapter: str) -> None:
    """Refuse the scope `head` where no adapted module has several heads."""
    adapted = {name: layer for name, layer in layers.items() if adapter in layer.basis_phi}
    if not any(layer.heads for layer in adapted.values()):
        raise ValueError(
            f"sharing_scope 'head' finds no attention head in {', '.join(sorted(adapted)[:3])}: "
            "adapt projections of attention (`target_modules: attention`), or take 'row' or "
            "'module'"
        )
