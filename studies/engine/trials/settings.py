"""The `train:` section of a resolved configuration, as the training loop reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from studies.names import hint

SCHEDULES = ("linear", "cosine", "constant")


@dataclass(frozen=True)
class TrainSettings:
    """How to train; every default is that of `TrainSettings()`."""

    epochs: float = 3.0
    batch_size: int = 16
    """Rows of one forward pass."""
    eval_batch_size: int = 64
    gradient_accumulation: int = 1
    """Batches that make one optimizer step."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup_ratio: float = 0.0
    """Share of all steps in which the learning rate rises from 0."""
    schedule: str = "linear"
    max_grad_norm: float | None = 1.0
    """Per clipping group; None clips nothing."""
    max_steps: int | None = None
    """Stops earlier than `epochs` would."""
    eval_every: int | None = None
    """Optimizer steps between evaluations on valid; None evaluates at the end alone."""
    checkpoint_minutes: float | None = 10.0
    """Between two checkpoints; None takes one only where the trial is asked to end."""
    deterministic: bool = False
    """Slower kernels that give the same bits each time; without effect on a CPU, which does."""

    @classmethod
    def read(cls, section: Mapping[str, Any]) -> "TrainSettings":
        """Settings from a mapping.

        Raises:
            ValueError: a key that is no setting, or a schedule that is not known.
        """
        known = [field.name for field in fields(cls)]
        for key in section:
            if key not in known:
                raise ValueError(
                    f"train: unknown key {key!r}.{hint(key, known)} Keys: {', '.join(known)}"
                )
        settings = cls(**section)
        if settings.schedule not in SCHEDULES:
            raise ValueError(
                f"train: `schedule` must be one of {', '.join(SCHEDULES)}, got "
                f"{settings.schedule!r}"
            )
        return settings
