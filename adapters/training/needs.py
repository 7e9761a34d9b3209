"""What of an adapter a penalty or a schedule needs, and which adapters lack it."""

import dataclasses
from collections.abc import Callable

from peft import PeftConfig

from adapters.basis.config import BasisConfig
from adapters.basis.phi_config import PhiConfig
from basis_zoo.registry import unknown


def _each_phi(config: BasisConfig) -> list[PhiConfig]:
    """Those of all modules, by pattern; depth changes numbers alone."""
    return [
        config.phi,
        *(dataclasses.replace(config.phi, **o) for o in config.phi_pattern.values()),
    ]


def _trains(phi: PhiConfig) -> bool:
    basis = phi.build_basis()
    return bool(
        (phi.train_amplitude and basis.num_amplitudes)
        or (phi.train_bandwidth and basis.num_bandwidths)
        or (phi.build_grid().learned and basis.num_points)
        or phi.linear
        or phi.input_scale == "learned"
    )


def _no_amplitudes(config: BasisConfig) -> str | None:
    trained = any(phi.train_amplitude for phi in _each_phi(config))
    return None if trained else "no trained amplitudes: set train_amplitude to true"


def _no_curvature(config: BasisConfig) -> str | None:
    for phi in _each_phi(config):
        if phi.build_basis().smoothness < 1:
            return (
                f"no finite integral of φ''²: functions of the family {phi.basis!r} have kinks or "
                "jumps; take a smoother family, such as sinc or bspline"
            )
    return _no_trained_phi(config)


def _no_trained_phi(config: BasisConfig) -> str | None:
    trained = any(map(_trains, _each_phi(config)))
    return None if trained else "no trained number of φ: train amplitudes or bandwidths"


def _no_bandwidths(config: BasisConfig) -> str | None:
    has = any(phi.build_basis().num_bandwidths for phi in _each_phi(config))
    families = ", ".join(dict.fromkeys(repr(phi.basis) for phi in _each_phi(config)))
    return None if has else f"no bandwidths in the family {families}: take sinc or gaussian_rbf"


def _no_fixed_scale(config: BasisConfig) -> str | None:
    has = any(is_fixed(phi.input_scale) for phi in _each_phi(config))
    given = f"no fixed input scale but {config.input_scale!r}: set input_scale to a number"
    return None if has else given


def is_fixed(input_scale: float | str) -> bool:
    """Whether the option `input_scale` is a number that nothing trains or measures."""
    return not isinstance(input_scale, str) or input_scale == "fixed"


NEEDS: dict[str, Callable[[BasisConfig], str | None]] = {
    "update": lambda config: None,
    "factors": lambda config: None,
    "trained amplitudes": _no_amplitudes,
    "curvature": _no_curvature,
    "trained phi": _no_trained_phi,
    "bandwidths": _no_bandwidths,
    "fixed input scale": _no_fixed_scale,
}
"""What can be needed, and what says what a configuration has not."""


def lacks(config: PeftConfig | None, need: str) -> str | None:
    """What an adapter made from `config` has not, and what to do; None where it has it.

    Args:
        config: The adapter's; None for a method that wraps nothing.
        need: One of `NEEDS`.

    Raises:
        ValueError: `need` is unknown.
    """
    if need not in NEEDS:
        raise ValueError(unknown("need", need, NEEDS))
    if not isinstance(config, BasisConfig):
        return "no update s φ(BA): take a method that has one, such as basis"
    return NEEDS[need](config)
