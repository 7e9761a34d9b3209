"""The learning rate of each optimizer step."""

import math

from studies.engine.definition.train import Train


def rate_factor(settings: Train, before: int, steps: int) -> float:
    """What the highest learning rate is multiplied by in the step that has `before` before it.

    The rules, bit for bit, of `transformers.get_scheduler`.
    """
    warm_up = round(settings.warmup_ratio * steps)
    if before < warm_up:
        return before / warm_up
    if settings.schedule == "constant":
        return 1.0
    rest = max(1, steps - warm_up)
    if settings.schedule == "linear":
        return max(0.0, (steps - before) / rest)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * 0.5 * 2.0 * ((before - warm_up) / rest))))
