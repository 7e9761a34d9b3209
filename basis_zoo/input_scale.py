r"""The input scale: how large BA is when it reaches phi, $x = s\,(BA)$.

At LoRA's usual scale all entries of BA fall into one cell of the grid and phi is almost affine
there; the scale decides how much of phi is used at all. A range taken from data is a scale too:
the interval stays as it is and x is stretched to fill it, so that modules with different data
still share one `Phi`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from basis_zoo.cuda_graphs import is_captured
from basis_zoo.float32 import to_float32
from basis_zoo.registry import did_you_mean

SCALES = ("none", "fixed", "learned", "rms", "range")


class InputScale(nn.Module):
    """The factor on BA; adapters multiply B by it.

    Rules: `none` is 1, `fixed` is `value`, `learned` starts at `value` and is trained (as a
    logarithm, so that it stays positive), `rms` makes the root mean square of x equal to `value`,
    and `range` makes the largest |x| equal to `value` (the end of a symmetric interval).

    `rms` and `range` are measured by `observe`; until the first positive measurement the factor
    is 1, since BA = 0 has no scale.

    Args:
        rule: One of `SCALES`.
        value: See the rules; positive.
        momentum: For `rms` and `range`: None keeps the first positive measurement; a number in
            [0, 1) tracks the measurements by an exponential mean that keeps this share of the old.
    """

    measured: Tensor
    _known: tuple[int, int] | None = None
    """Place and version of `measured` when it was found to be positive."""

    def __init__(self, rule: str = "none", value: float = 1.0, momentum: float | None = None):
        super().__init__()
        if rule not in SCALES:
            raise ValueError(
                f"unknown input scale {rule!r}.{did_you_mean(rule, SCALES)} "
                f"Known: {', '.join(SCALES)}"
            )
        if not value > 0:
            raise ValueError(f"the `value` of an input scale must be positive, got {value}")
        if momentum is not None and not (0 <= momentum < 1 and rule in ("rms", "range")):
            raise ValueError(
                f"`momentum` must lie in [0, 1) and belongs to the rules rms and range, "
                f"got {momentum} with rule {rule!r}"
            )
        factor = to_float32("value", torch.tensor(float(value), dtype=torch.float64))
        self.rule, self.value, self.momentum = rule, float(value), momentum
        if rule == "learned":
            self.log_scale = nn.Parameter(factor.log()[None])  # FSDP takes none without dimensions
        if rule in ("rms", "range"):
            nothing = torch.zeros((), dtype=torch.float32)
            self.register_buffer("measured", nothing)

    def is_measured(self) -> bool:
        """Whether there has been a positive measurement.

        Asks the device until the answer is yes, and then no more. While a CUDA graph is captured,
        which lets nobody ask, it is no unless it was yes before: `observe` once more is harmless.
        """
        version = 0 if self.measured.is_inference() else self.measured._version
        now = (self.measured.data_ptr(), version)
        if self._known == now:
            return True
        if is_captured(self.measured):
            return False
        positive = bool(self.measured > 0)
        self._known = now if positive else None
        return positive

    @torch.no_grad()
    def observe(self, mean_square: Tensor | None = None, peak: Tensor | None = None) -> None:
        """Tell how large the unscaled BA is; rules that do not measure ignore it.

        Args:
            mean_square: Mean of its squared entries, 0-d, read by `rms`.
            peak: Its largest magnitude, 0-d, read by `range`.

        Raises:
            ValueError: The number that the rule reads is missing.
        """
        if self.rule not in ("rms", "range"):
            return
        argument, value = ("mean_square", mean_square) if self.rule == "rms" else ("peak", peak)
        if value is None:
            raise ValueError(f"input scale {self.rule!r} observes `{argument}`, which is missing")
        new = value.to(self.measured).sqrt() if self.rule == "rms" else value.to(self.measured)
        keep = 1.0 if self.momentum is None else self.momentum
        mixed = torch.lerp(new, self.measured, keep)
        # no branch on the device's numbers: that would wait for the device in every step
        update = torch.where(self.measured > 0, mixed, new)
        self.measured.copy_(torch.where(new > 0, update, self.measured))

    def forward(self) -> Tensor | float:
        """The factor: a float where it is constant, else a float32 tensor, (1,) or 0-d."""
        if self.rule == "learned":
            return self.log_scale.exp()
        if self.rule in ("rms", "range"):
            observed = self.measured > 0
            return torch.where(observed, self.value / torch.where(observed, self.measured, 1), 1.0)
        return self.value if self.rule == "fixed" else 1.0

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        saved = state_dict.get(prefix + "log_scale")
        if isinstance(saved, Tensor) and saved.ndim == 0:  # adapters saved before it was (1,)
            state_dict[prefix + "log_scale"] = saved.reshape(1)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        """The rule and its value."""
        return f"{self.rule}, value={self.value:g}, momentum={self.momentum}"
