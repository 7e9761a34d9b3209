"""The section `train` of a study, which is also how a trial is trained, and its number of steps."""

import math
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from studies.sections import Bool, Float, Int, Line, Section


class Train(Section):
    """How one trial is trained; the same for all arms unless swept."""

    epochs: Float = Field(3.0, gt=0)
    """Passes over the training rows; a fraction ends within one."""
    batch_size: Int = Field(16, ge=1)
    """Rows of one forward pass."""
    eval_batch_size: Int = Field(64, ge=1)
    """Rows of one forward pass in evaluations."""
    learning_rate: Float = Field(1e-3, gt=0)
    """Of AdamW, at its highest."""
    weight_decay: Float = Field(0.0, ge=0)
    """Of AdamW: each step takes this times the learning rate off every weight; phi has none."""
    warmup_ratio: Float = Field(0.1, ge=0, lt=1)
    """Share of all optimizer steps in which the learning rate rises from 0."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the learning rate falls after the warm-up; linear and cosine end at 0."""
    penalties: Annotated[
        dict[Line, Annotated[Float, Field(ge=0)]], Field(examples=[{"roughness": 1e-4}])
    ] = {}
    """Names and weights of penalties on what a basis adapter learns, added to the loss once a step;
    `train/loss` stays the task's own. A weight of 0 is none."""
    load_phi: Annotated[Line | None, Field(examples=["runs/s/embedded/trials/0123/adapter"])] = None
    """The phi before the first step: the folder of a trial with `keep: adapter`, or of any saved
    basis adapter, or a shipped phi: sarcasm; null: the start's. A and B are the start's."""
    phi_rate: Float = Field(1.0, ge=0)
    """Factor on the learning rate of the numbers of phi."""
    phi_from: Float = Field(0.0, ge=0, lt=1)
    """Share of all optimizer steps before which the numbers of phi stay as they are."""
    phi_until: Float = Field(1.0, gt=0, le=1)
    """Share of all optimizer steps from which on they stay as they are."""
    bandwidth_to: Float = Field(1.0, gt=0)
    """What the bandwidths of phi have been multiplied by in the last step, a little in each, beside
    what training does to them; 1: nothing."""
    input_scale_to: Float = Field(1.0, gt=0)
    """The same of an input scale that is a number."""
    gradient_accumulation: Int = Field(1, ge=1)
    """Batches that make one optimizer step."""
    max_grad_norm: Annotated[Float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient, per clipping group; null: gradients are not clipped."""
    max_steps: Annotated[Annotated[Int, Field(ge=1)] | None, Field(examples=[500])] = None
    """Stop after this many optimizer steps if `epochs` takes more; null: `epochs` decides."""
    eval_every: Annotated[Annotated[Int, Field(ge=1)] | None, Field(examples=[100])] = None
    """Validate every so many optimizer steps; null: at the end alone."""
    keep: Literal["last", "best"] = "last"
    """Which parameters are tested and kept: those of the last step, or those of the evaluation with
    the best `objective.select_on`, of equal ones the first; the end is one of the evaluations."""
    patience: Annotated[Annotated[Int, Field(ge=1)] | None, Field(examples=[5])] = None
    """With `keep: best`, end after so many evaluations in a row that were not the best; null: train
    to the end."""
    checkpoint_minutes: Annotated[Float, Field(ge=0)] | None = 10.0
    """Minutes between two saves of what a killed trial goes on from; 0 or null: only where it is
    asked to end (SIGTERM)."""
    threads: Int = Field(1, ge=1)
    """CPU threads that a trial without a GPU computes with, however many trials run at once: the
    last bits of its numbers depend on them."""
    deterministic: Bool = False
    """The same bits each time on a GPU, at some cost of speed; a CPU gives them anyway."""
    capture: Literal["auto", "off"] = "auto"
    """auto: on a single GPU, steps are replayed from CUDA graphs where that is possible, and a note
    of the trial says why where it is not; so is the evaluation of texts and images with a class,
    unless `deterministic`; off: never. The same numbers to rounding, the same bits with
    `deterministic`."""

    @field_validator("penalties")
    @classmethod
    def _has_weight(cls, penalties: dict[str, float]) -> dict[str, float]:
        return {name: weight for name, weight in penalties.items() if weight}

    @field_validator("phi_until")
    @classmethod
    def _comes_after(cls, until: float, others: ValidationInfo) -> float:
        if until <= (begin := others.data.get("phi_from", 0.0)):
            raise ValueError(
                f"expected more than train.phi_from, which is {begin:g}, got {until:g}"
            )
        return until

    @field_validator("keep")
    @classmethod
    def _has_a_choice(cls, keep: str, others: ValidationInfo) -> str:
        every, most = others.data.get("eval_every", 1), others.data.get("max_steps")
        if keep == "best" and every is None:
            raise ValueError(
                "best chooses among evaluations, and there is one alone, at the end: set "
                "train.eval_every"
            )
        if keep == "best" and most is not None and every >= most:
            raise ValueError(
                f"best chooses among evaluations, and train.eval_every {every} makes none before "
                f"the end, which is train.max_steps {most}: lower train.eval_every"
            )
        return keep

    @field_validator("patience")
    @classmethod
    def _keeps_the_best(cls, patience: int | None, others: ValidationInfo) -> int | None:
        if patience is not None and others.data.get("keep", "best") != "best":
            raise ValueError("waits for a better evaluation, and the last is kept: set keep: best")
        return patience

    @field_validator("capture", mode="before")
    @classmethod
    def _off_is_a_word(cls, given: Any) -> Any:
        return "off" if given is False else given  # as YAML reads a bare off


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
