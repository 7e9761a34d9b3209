"""Options that differ from module to module: by pattern, and by depth."""

import dataclasses
from typing import Any, ClassVar, Protocol, TypeVar

from peft.utils.other import get_pattern_key

from basis_zoo.registry import did_you_mean

PHI_OPTIONS = (
    *("basis", "num_basis", "interval", "basis_options", "grid", "grid_options", "start"),
    *("start_options", "bandwidth", "extrapolation", "linear", "train_amplitude"),
    *("train_bandwidth", "b_std", "input_scale", "input_scale_options"),
)
"""Options of `BasisConfig` that `phi_pattern` may set."""

DEPTH_OPTIONS = ("bandwidth", "b_std", "input_scale")
"""Numbers that `depth_start` may set, beside `start_options.<name>`."""


class Patterned(Protocol):
    """A dataclass of settings that may differ from module to module, such as `BasisConfig`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    phi_pattern: dict[str, dict[str, Any]]
    depth_start: dict[str, Any]


Config = TypeVar("Config", bound=Patterned)


def check_phi_pattern(config: Patterned) -> None:
    """Refuse a `phi_pattern` with an unknown option or a value that cannot be built.

    Raises:
        ValueError: The message names the pattern.
    """
    for pattern, options in config.phi_pattern.items():
        for option in options:
            if option not in PHI_OPTIONS:
                raise ValueError(
                    f"`phi_pattern` {pattern!r} has the option {option!r}."
                    f"{did_you_mean(option, PHI_OPTIONS)} Known: {', '.join(PHI_OPTIONS)}"
                )
        try:
            _with(config, options)
        except ValueError as error:
            raise ValueError(f"`phi_pattern` {pattern!r}: {error}") from error


def check_depth_start(config: Patterned) -> None:
    """Refuse a `depth_start` with an unknown number, or one that cannot be built at both ends.

    Raises:
        ValueError: The message names the option.
    """
    for option, ends in config.depth_start.items():
        if option not in DEPTH_OPTIONS and not option.startswith("start_options."):
            raise ValueError(
                f"`depth_start` has the option {option!r}.{did_you_mean(option, DEPTH_OPTIONS)} "
                f"Known: {', '.join(DEPTH_OPTIONS)}, start_options.<name>"
            )
        if not isinstance(ends, list | tuple) or len(ends) != 2:
            raise ValueError(
                f"`depth_start` {option!r} must be two numbers, for the first and the last block, "
                f"got {ends!r}"
            )
    for depth in (0.0, 1.0) if config.depth_start else ():
        _with(config, _at_depth(config, depth))


def config_for(config: Config, name: str, depth: float) -> Config:
    """The settings of the module `name` at `depth` (0 first block, 1 last); patterns win."""
    options = _at_depth(config, depth) if config.depth_start else {}
    key = get_pattern_key(tuple(config.phi_pattern), name)
    options |= config.phi_pattern.get(key, {})
    return _with(config, options) if options else config


def _at_depth(config: Patterned, depth: float) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for option, (first, last) in config.depth_start.items():
        value = first + (last - first) * depth
        owner, _, inner = option.rpartition(".")
        if owner:
            options[owner] = {**options.get(owner, getattr(config, owner)), inner: value}
        else:
            options[option] = value
    return options


def _with(config: Config, options: dict[str, Any]) -> Config:
    return dataclasses.replace(config, **options, phi_pattern={}, depth_start={})
