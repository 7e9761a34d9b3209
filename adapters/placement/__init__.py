"""Where adapters go: target modules by word or name, choices of blocks, and checks of names."""

from adapters.placement.targets import LAYERS, WORDS, adaptable, resolve

__all__ = ["LAYERS", "WORDS", "adaptable", "resolve"]
