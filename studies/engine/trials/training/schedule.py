"""How many optimizer steps a training has, and the learning rate of each."""

import math
from collections.abc import Iterable
from fractions import Fraction

from studies.engine.definition.train import Train
from studies.engine.records import Trial


def steps_in_epoch(settings: Train, batches: int) -> int:
    """Optimizer steps of one pass over `batches` batches; the last may have fewer of them."""
    return math.ceil(batches / settings.gradient_accumulation)


def total_steps(settings: Train, batches: int) -> int:
    """Optimizer steps of the whole training, `batches` being those of an epoch."""
    epochs = Fraction(str(settings.epochs))  # as written: 2.2 of 50 steps are 110, a float's 111
    steps = math.ceil(epochs * steps_in_epoch(settings, batches))
    return steps if settings.max_steps is None else min(steps, settings.max_steps)


def planned_steps(settings: Train, rows: int) -> int:
    """Optimizer steps of the whole training on `rows` rows."""
    return total_steps(settings, math.ceil(rows / settings.batch_size))


def unreached(trials: Iterable[Trial]) -> list[str]:
    """Lines that tell of arms whose epochs end before their `max_steps`."""
    ends: dict[str, dict[str, None]] = {}
    for trial in trials:
        settings = Train.model_validate(trial.config.get("train", {}))
        rows = trial.config.get("task", {}).get("train_rows")
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
