"""The learning rate of each optimizer step, and steps that no training comes to."""

import math
from collections.abc import Iterable

from studies.engine.definition import checks
from studies.engine.definition.train import Train, planned_steps
from studies.engine.records import Trial


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


def phi_is_trained(settings: Train, before: int, steps: int) -> bool:
    """Whether the numbers of phi change in the step that has `before` before it."""
    return settings.phi_from * steps <= before < settings.phi_until * steps


def unreached(trials: Iterable[Trial]) -> list[str]:
    """Lines that tell of arms whose epochs end before their `max_steps`."""
    ends: dict[str, dict[str, None]] = {}
    for trial in trials:
        settings = Train.model_validate(trial.config.get("train", {}))
        rows = checks.training_rows(trial.config["task"]) if settings.max_steps else None
        if not rows or settings.max_steps is None:
            continue
        steps = planned_steps(settings, rows)
        if steps < settings.max_steps:
            line = (
                f"train.epochs {settings.epochs:g} ends training after {steps} steps, before "
                f"train.max_steps {settings.max_steps}: raise train.epochs to go on"
            )
            ends.setdefault(line, {})[trial.arm] = None
    return [f"{', '.join(arms)}: {line}" for line, arms in ends.items()]
