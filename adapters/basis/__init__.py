"""The adapter W' = W + s phi(B A): its settings, the PEFT tuner, and what adapters share.

The layers are in `layers`; `fitting` evaluates all phis of an adapter once a step.
"""
