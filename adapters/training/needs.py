"""What of an adapter a penalty or a schedule needs, and which adapters lack it."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

from peft import PeftConfig

from adapters.basis.config import BasisConfig
from adapters.basis.phi_config import PhiConfig
from basis_zoo.registry import unknown


class Need(NamedTuple):
    """Something that an adapter may have or not."""

    has: Callable[[PhiConfig], object] = lambda phi: True
    """Whether a phi with these options has it; that there is an update s phi(BA) is asked first."""
    of: Callable[[Iterable[object]], bool] = any
    """Whether `any` module must have it, or `all`."""
    lacking: str = ""
    """What is said of an adapter without: what it has not, and what to do."""


def _trains(phi: PhiConfig) -> bool:
    basis, learned = phi.build_basis(), phi.build_grid().learned
    sizes = phi.train_amplitude * basis.num_amplitudes + phi.train_bandwidth * basis.num_bandwidths
    return bool(sizes + learned * basis.num_points or phi.linear or phi.input_scale == "learned")


NEEDS = {
    "update": Need(
        lambda phi: phi.build_form().mergeable,
        of=all,
        lacking="no change of the weight, since its form makes none: take another, such as factors",
    ),
    "factors": Need(
        lambda phi: phi.build_form().factor_rank(1),
        lacking="no factors B and A: take another form, such as elementwise",
    ),
    "trained amplitudes": Need(
        lambda phi: phi.train_amplitude,
        lacking="no trained amplitudes: set train_amplitude to true",
    ),
    "curvature": Need(
        lambda phi: phi.build_basis().smoothness >= 1 and _trains(phi),
        of=all,
        lacking="no integral of φ''² that could be trained: its functions have kinks or jumps, or "
        "nothing of φ is trained; take a smoother family, such as sinc",
    ),
    "trained phi": Need(_trains, lacking="no trained number of φ: set train_amplitude to true"),
    "bandwidths": Need(
        lambda phi: phi.build_basis().num_bandwidths,
        lacking="no bandwidths: take a family that has them, such as sinc",
    ),
    "fixed input scale": Need(
        lambda phi: (
            phi.build_form().elementwise
            and (phi.input_scale == "fixed" or not isinstance(phi.input_scale, str))
        ),
        lacking="no fixed input scale: set input_scale to a number, in an elementwise form",
    ),
}
"""What can be needed, by name."""


def lacks(config: PeftConfig | None, need: str) -> str | None:
    """What an adapter made from `config` has not, and what to do; None where it has it.

    Raises:
        ValueError: `need` is unknown.
    """
    if need not in NEEDS:
        raise ValueError(unknown("need", need, NEEDS))
    if not isinstance(config, BasisConfig):
        return "no update s φ(BA): take a method that has one, such as basis"
    has, of, lacking = NEEDS[need]
    others = (dataclasses.replace(config.phi, **o) for o in config.phi_pattern.values())
    return None if of(map(has, (config.phi, *others))) else lacking
