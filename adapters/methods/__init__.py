"""The methods that an arm can name: their registry, how one is attached, and how sizes match.

`builtin` has one file for each, with its mathematics and its calls from the training loop.
"""
