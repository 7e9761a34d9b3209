"""The strength of an adapter on one layer, under LoRA's names: diffusers calls these methods."""

from collections.abc import Mapping

from peft.tuners.tuners_utils import BaseTunerLayer


class Scaling(BaseTunerLayer):
    """Changes s of W' = W + s phi(B A), as LoRA's layers do."""

    scaling: dict[str, float]
    initial_scaling: dict[str, float]
    """s as the settings give it."""
    sums: Mapping[str, Mapping[str, float]]

    def set_scale(self, adapter: str, scale: float) -> None:
        """Let s be `scale` times what the settings of `adapter` give, if it is on this layer.

        Raises:
            ValueError: It is a weighted sum, or adapters are merged.
        """
        if self._can_scale(adapter):
            self.scaling[adapter] = scale * self.initial_scaling[adapter]

    def scale_layer(self, scale: float) -> None:
        """Multiply s of the active adapters by `scale`; raises as `set_scale`."""
        for adapter in self.active_adapters if scale != 1 else ():
            if self._can_scale(adapter):
                self.scaling[adapter] *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        """Divide s of the active adapters by `scale`; None restores the settings' s.

        Raises:
            ValueError: As `set_scale`.
        """
        for adapter in self.active_adapters:
            if self._can_scale(adapter):
                initial = self.initial_scaling[adapter]
                self.scaling[adapter] = initial if scale is None else self.scaling[adapter] / scale

    def _can_scale(self, adapter: str) -> bool:
        """Whether this layer has `adapter`."""
        if adapter in self.sums:
            raise ValueError(
                f"adapter {adapter!r} is a weighted sum: scale its parts, or make it anew with "
                "other weights"
            )
        if self.merged:
            raise ValueError("merged adapters keep their scale: call `unmerge_adapter` first")
        return adapter in self.scaling
