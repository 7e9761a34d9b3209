"""What float32 can hold of a phi: both its numbers and its arguments are stored in float32."""

import torch
from torch import Tensor

STEP = 2.0**-23
"""The distance from 1 to the next float32."""
_FLATTEST = 2.0**-16
"""As a share of a function's width: on a shorter interval the function is a constant."""


def to_float32(name: str, value: Tensor) -> Tensor:
    """Convert `value`, of any dtype and shape, to float32; `name` is for the message.

    Raises:
        ValueError: An entry is not finite there, or all of them become zero.
    """
    stored = value.float()
    if stored.is_meta or not stored.numel():
        return stored
    if not stored.isfinite().all():
        raise ValueError(
            f"`{name}` must be finite in float32, got {_extreme(value):.3g}: take numbers of a "
            "magnitude below 3e38"
        )
    if value.any() and not stored.abs().max() >= torch.finfo(torch.float32).tiny:
        raise ValueError(
            f"`{name}` must not vanish in float32, got {_extreme(value):.3g}: take numbers of a "
            "magnitude of 1e-37 or more"
        )
    return stored


def _extreme(value: Tensor) -> float:
    return value.flatten()[value.nan_to_num(torch.inf).abs().argmax()].item()


def check_interval(interval: tuple[float, float], count: int) -> None:
    """Refuse an interval that `count` functions cannot share in float32.

    Raises:
        ValueError: Its length is extreme, or float32 has too few numbers on it.
    """
    low, high = interval
    length, far = high - low, max(abs(low), abs(high))
    if not 1e-30 <= length <= 1e30:
        raise ValueError(
            f"`interval` must have a length from 1e-30 to 1e30, got {interval}: scale x instead"
        )
    if length / count < 4 * STEP * far:
        raise ValueError(
            f"`interval` {interval} is too far from 0 for {count} functions: float32 numbers lie "
            f"{STEP * far:.2g} apart there. Move it towards 0, widen it, or take fewer functions"
        )


def check_bandwidth(bandwidth: Tensor, interval: tuple[float, float]) -> None:
    """Refuse bandwidths, inverse widths, with which functions look like a spike or a constant.

    Raises:
        ValueError: A function is narrower than float32's steps at the ends of the interval, or so
            wide that it is constant on it.
    """
    if bandwidth.is_meta or not bandwidth.numel():
        return
    low, high = interval
    least, most = _FLATTEST / (high - low), 1 / (STEP * max(abs(low), abs(high)))
    for omega in (bandwidth.max().item(), bandwidth.min().item()):
        if not least <= omega <= most:
            what = "constant to rounding" if omega < least else "narrower than float32's steps"
            raise ValueError(
                f"`bandwidth` must be from {least:.2g} to {most:.2g} on the interval {interval}, "
                f"got {omega:.3g}: the functions are {what} there. Take a bandwidth near one over "
                "the distance of the functions, as 'spacing' does, or scale x"
            )
