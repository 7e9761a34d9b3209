"""The forms that ship; importing this registers them."""

from adapters.forms.builtin import activation, components, elementwise, factors, spectral

__all__ = ["activation", "components", "elementwise", "factors", "spectral"]
