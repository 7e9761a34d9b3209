"""Which settings a form allows."""

import dataclasses

from adapters.basis.phi_config import PhiSettings
from adapters.basis.sharing import FINE_SCOPES, copied

_PLAIN = {"merge_once": False, "rounding": "nearest", "gradient_dtype": "working"}
"""Settings of the fused path, with what they are elsewhere."""


def check_forms(config: PhiSettings) -> None:
    """Refuse settings that a form in use cannot have, or that say nothing.

    Raises:
        ValueError: The message names the setting and what to take.
    """
    scope = config.sharing_scope
    if scope in FINE_SCOPES and config.sharing == "none":
        raise ValueError(
            f"`sharing_scope` {scope!r} gives each {scope} numbers of its own, and `sharing` "
            f"'none' does not say which: take sharing 'all' for one phi for each {scope}, or "
            "'amplitude'"
        )
    if scope in FINE_SCOPES:  # a start that is fitted takes up to a second to build
        trained = dict(config.phi.build_nonlinearity().named_parameters())
        if not any(name in trained for name in copied(config.sharing)):
            raise ValueError(
                f"`sharing` {config.sharing!r} gives each {scope} nothing, since phi trains no "
                "such number here: take sharing 'all' or 'amplitude'"
            )
    patterns = [dataclasses.replace(config.phi, **each) for each in config.phi_pattern.values()]
    for phi in (config.phi, *patterns):
        form = phi.build_form()
        if form.elementwise:
            continue
        if scope in FINE_SCOPES:
            raise ValueError(
                f"`sharing_scope` {scope!r} is of the entries of B A, and form {form.name!r} has "
                "none: take sharing_scope 'module', or form 'elementwise'"
            )
        for option, plain in _PLAIN.items():
            if getattr(config, option) != plain:
                raise ValueError(
                    f"`{option}` {getattr(config, option)!r} is for elementwise forms, and form "
                    f"{form.name!r} is none: leave it at {plain!r}"
                )
        if phi.input_scale in ("rms", "range"):
            raise ValueError(
                f"`input_scale` {phi.input_scale!r} measures B A, which form {form.name!r} does "
                "not form: take a number, or 'learned'"
            )
