"""Options that differ from module to module: by pattern, and by depth."""

import dataclasses
from typing import Any

from peft.utils.other import get_pattern_key

from adapters.basis.phi_config import PHI_OPTIONS, PhiConfig, PhiSettings
from basis_zoo.registry import did_you_mean

DEPTH_OPTIONS = ("bandwidth", "b_std", "input_scale")
"""Numbers that `depth_start` may set, besides `start_options.<name>`."""


def check_phi_pattern(config: PhiSettings) -> None:
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
            dataclasses.replace(config.phi, **options).check(config.init_weights)
        except ValueError as error:
            raise ValueError(f"`phi_pattern` {pattern!r}: {error}") from error


def check_depth_start(config: PhiSettings) -> None:
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
        phi = dataclasses.replace(config.phi, **_at_depth(config, depth))
        phi.check(config.init_weights)


def phi_for(config: PhiSettings, name: str, depth: float) -> PhiConfig:
    """The phi of the module `name` at `depth` (0 first block, 1 last); patterns win."""
    key = get_pattern_key(tuple(config.phi_pattern), name)
    options = _at_depth(config, depth) | config.phi_pattern.get(key, {})
    return dataclasses.replace(config.phi, **options)


def _at_depth(config: PhiSettings, depth: float) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for option, (first, last) in config.depth_start.items():
        value = first + (last - first) * depth
        owner, _, inner = option.rpartition(".")
        if owner:
            options[owner] = {**options.get(owner, getattr(config.phi, owner)), inner: value}
        else:
            options[option] = value
    return options
