"""Any module with W' in the place of one of its parameters: embeddings, convolutions, experts."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.basis.fitting.tensor_versions import mark
from adapters.basis.layers.base import BasisLayer, Part
from adapters.merging.base_weights import functional_call

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class BasisParameter(BasisLayer):
    """A module whose parameter `parameter_name` is W' in its forward pass, with adapters.

    The module's own code runs, so a merge gives the same bits whatever it does with the
    parameter. A parameter of more than two dimensions is seen as the matrix (all but the last,
    last), that of a convolution as (out, in / groups x kernel).
    """

    def __init__(self, base_layer: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__(base_layer, *args, **kwargs)
        kinds = (nn.Embedding, *_CONVOLUTIONS)
        self.mixes_batches = isinstance(self.get_base_layer(), kinds)

    def _shape(self) -> tuple[int, int]:
        base = self.get_base_layer()
        shape = getattr(base, self.parameter_name).shape
        rows = shape[0] if isinstance(base, _CONVOLUTIONS) else shape[:-1].numel()
        return (rows, shape.numel() // rows)

    def update_layer(self, adapter_name: str, r: int, config: Any, batch: Any) -> None:
        """Add the adapter `adapter_name`, or make it anew.

        Raises:
            ValueError: Input dropout is set, but the module's input is not what W multiplies; or
                the form changes no weight.
        """
        base = self.get_base_layer()
        form = config.phi.build_form()
        if not form.mergeable:
            raise ValueError(
                f"form {form.name!r} changes no weight, and {type(base).__name__} does more with "
                f"{self.parameter_name!r} than multiply it: leave it out by `exclude_modules`, or "
                "take another form"
            )
        if config.dropout and not isinstance(base, (nn.Embedding, *_CONVOLUTIONS)):
            raise ValueError(
                f"`dropout` {config.dropout} is of the input that {self.parameter_name!r} "
                f"multiplies, which {type(base).__name__} does not tell: set `dropout` to 0, or "
                "give this module an adapter of its own without it"
            )
        super().update_layer(adapter_name, r, config, batch)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """PEFT converts linear layers only."""
        return False

    @property
    def _path(self) -> str:
        """The parameter's name seen from `base_layer`, which may itself be such a layer."""
        path, module = self.parameter_name, self.base_layer
        while hasattr(module, "base_layer"):
            path, module = f"base_layer.{path}", cast(nn.Module, module.base_layer)
        return path

    def _adapted(self, parts: list[Part], *args: Any, **kwargs: Any) -> Any:
        dropout = max(self.execution[part.adapter].dropout for part in parts)
        if dropout and self.training and isinstance(self.get_base_layer(), _CONVOLUTIONS):
            return self._dropped(parts, *args, **kwargs)
        return functional_call(self.base_layer, {self._path: self._in_force(parts)}, args, kwargs)

    def _dropped(self, parts: list[Part], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """A convolution with W, and one of the dropped input with the update."""
        y: Tensor = self.base_layer(x, *args, **kwargs)
        base = cast("nn.Conv1d | nn.Conv2d | nn.Conv3d", self.get_base_layer())
        prefix = self._path.removesuffix(self.parameter_name)
        for part in parts:
            points = F.dropout(x, self.execution[part.adapter].dropout)
            update = self.in_layout(self.term(part).delta(), base.weight).to(y.dtype)
            swapped = {self._path: update}
            if base.bias is not None:
                swapped[f"{prefix}bias"] = torch.zeros_like(base.bias)
            y = y + functional_call(self.base_layer, swapped, (points, *args), kwargs)
        return y

    def _in_force(self, parts: list[Part]) -> Tensor:
        """W' in the layout of the parameter, differentiable."""
        parameter = getattr(self.get_base_layer(), self.parameter_name)
        weight = self.matrix(parameter)
        if len(parts) > 1:
            return self.in_layout(self.merged_matrix(weight, parts), parameter)
        name, scale = parts[0]
        run, batch, owner = self.execution[name], self.batches[name], self.owner(name)
        term = self.term(parts[0])
        seed = batch.seed(owner) if run.stochastic and self.training else None
        merged = None
        if run.merge_once and not torch.compiler.is_compiling():  # a graph makes it anew

            @torch.no_grad()
            def make() -> Tensor:
                return term.in_force(weight, seed=seed)

            merged = batch.weight(owner, (scale, seed, *mark(parameter)), make)
        return self.in_layout(term.in_force(weight, seed=seed, merged=merged), parameter)

    @property
    def weight(self) -> Tensor:
        """The base's weight, or W' for a module that reads it instead of calling this layer."""
        if self.parameter_name == "weight" and self.weight_is_read:
            return self.parameter
        base: Any = self.get_base_layer()  # whatever has a `weight`
        weight: Tensor = base.weight
        return weight

    @property
    def parameter(self) -> Tensor:
        """The adapted parameter, as the module computes with it now."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        if not (self.disable_adapters or self.merged):
            parts = self.parts(self.active_adapters)
            if parts:
                return self._in_force(parts)
        plain: Tensor = getattr(self.get_base_layer(), self.parameter_name)
        return plain

    def __getattr__(self, name: str) -> Any:
        """What the module around this one reads of its child: W' by its name, the rest as it is."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            modules = self.__dict__.get("_modules", {})
            if "base_layer" not in modules or name.startswith("__"):
                raise
            if name == self.__dict__["parameter_name"]:
                return self.parameter
            return getattr(modules["base_layer"], name)

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """The base layer, with or without the adapters merged; PEFT calls it on nested layers."""
        layer: nn.Module = self
        while isinstance(layer, BasisLayer):
            if merge:
                layer.merge(safe_merge=safe_merge, adapter_names=adapter_names)
            elif layer.merged:
                layer.unmerge()
            layer = layer.base_layer
        base = self.get_base_layer()
        if isinstance(base, nn.MultiheadAttention) and isinstance(base.out_proj, BasisLayer):
            if merge:
                base.out_proj.merge(safe_merge=safe_merge, adapter_names=adapter_names)
            plain = base.out_proj.get_base_layer()
            base.out_proj = plain  # type: ignore[assignment]  # torch names a private class
        return base


class ParamWrapper(BasisParameter):
    """A parameter that `target_parameters` names; PEFT knows such layers by this class's name."""
