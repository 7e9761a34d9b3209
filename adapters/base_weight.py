"""Another weight in the place of a base layer's own, and back."""

from torch import Tensor, nn


def put_weight(base: nn.Module, weight: Tensor) -> nn.Parameter:
    """Put `weight` in the place of the weight of `base` alone, whatever shares that one.

    Returns:
        The parameter that was there, for `restore_weight`.
    """
    kept = base.weight
    base.weight = nn.Parameter(weight, requires_grad=kept.requires_grad)
    return kept


def restore_weight(base: nn.Module, kept: nn.Parameter) -> None:
    """Put back what `put_weight` returned, where and as what `base` has been moved meanwhile."""
    now = base.weight
    if (kept.device, kept.dtype) != (now.device, now.dtype):
        kept.data = kept.data.to(now.device, now.dtype)
    base.weight = kept
