"""What a study file may say: strict, frozen models, wrong as early as possible."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    field_validator,
    model_validator,
)

from studies.engine.definition.sections import After, Bool, Float, Int, Line, Search, Section
from studies.engine.definition.yaml_source import Location


class Backbone(Section):
    """The pretrained model; values are checked by `studies.backbones`."""

    name: Line
    """A shipped backbone's name, a hub id or a local folder."""
    dtype: str | None = None
    attention: str | None = None
    gradient_checkpointing: Bool | None = None
    quantization: str | None = None


class Task(Section):
    """The data; values are checked by `studies.tasks`."""

    name: Line
    """A shipped task's name, a hub id or a local folder."""
    train_rows: Annotated[Int, Field(ge=1)] | None = None
    valid_rows: Annotated[Int, Field(ge=1)] | None = None
    test_rows: Annotated[Int, Field(ge=1)] | None = None
    max_length: Annotated[Int, Field(ge=1)] | None = None
    text: str | tuple[str, ...] | None = None
    """Column(s) with the text, for data that is no shipped task."""
    label: str | None = None
    """Column with the label, for data that is no shipped task."""
    template: str | None = None
    """Prompt with `{column}`s, for multiple-choice questions and instructions of your own."""
    choices: str | tuple[str, ...] | None = None
    """Columns with the choices, or the one column with a list of them."""
    data: Line | None = None
    """Local file or folder with the task's own data."""
    train_on_inputs: Bool | None = None
    scoring: str | None = None
    evaluate: str | None = None
    max_new_tokens: Annotated[Int, Field(ge=1)] | None = None
    beams: Annotated[Int, Field(ge=1)] | None = None
    image_size: Annotated[Int, Field(ge=1)] | None = None
    augment: Bool | None = None
    prompts: tuple[str, ...] | None = None


class Train(Section):
    """How one trial is trained; the same for all arms unless swept."""

    epochs: Float = Field(3.0, gt=0)
    batch_size: Int = Field(16, ge=1)
    eval_batch_size: Int = Field(64, ge=1)
    learning_rate: Float = Field(1e-3, gt=0)
    weight_decay: Float = Field(0.0, ge=0)
    warmup_ratio: Float = Field(0.1, ge=0, lt=1)
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    gradient_accumulation: Int = Field(1, ge=1)
    """Batches that make one optimizer step."""
    max_grad_norm: Annotated[Float, Field(gt=0)] | None = 1.0
    """Per clipping group; null: gradients are not clipped."""
    max_steps: Annotated[Int, Field(ge=1)] | None = None
    """Stop after this many optimizer steps; null: `epochs` decides."""
    eval_every: Annotated[Int, Field(ge=1)] | None = None
    """Validate every so many optimizer steps; null: at the end alone."""
    checkpoint_minutes: Annotated[Float, Field(ge=0)] | None = 10.0
    """Save what a killed trial goes on from this often; 0 or null: only where it is asked to end
    (SIGTERM)."""
    deterministic: Bool = False
    """The same bits each time on a GPU, at some cost of speed; a CPU gives them anyway."""


class Adapter(BaseModel):
    """The adapter; all options but the method's name are checked by `adapters`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    method: Line
    """A name from `adapters.list_methods()`."""


class Objective(Section):
    """What is compared, and what choices are made on."""

    metric: Line
    """As in results, e.g. test/accuracy."""
    direction: Literal["maximize", "minimize"] = "maximize"
    select_on: Line | None = None
    """Metric that chooses between checkpoints or arms, e.g. valid/accuracy."""


class Arm(Section):
    """One arm written by hand."""

    name: Annotated[Line, Field(max_length=80)]
    note: str = ""
    """Shown beside the arm in the report."""
    adapter: dict[str, Any] = {}
    """Merged over the study's adapter; another `method` inherits only the common options."""
    set: dict[str, Any] = {}
    """Dotted settings of this arm, e.g. {train.learning_rate: 1e-4}."""


class Published(Section):
    """A table of the paper to show beside ours."""

    table: Line
    x: Line
    """The swept setting that the table's rows stand for."""


class Gain(Section):
    """One arm's difference to another."""

    arm: Line
    than: Line


class ClaimRule(Section):
    """A rule written before the run: what is claimed of one arm against another, or a number."""

    claim: Line
    """In words."""
    arm: Line
    than: Line | Float
    """An arm, or a number."""
    expect: Literal[
        "better", "not_better", "worse", "not_worse", "higher", "not_higher", "lower", "not_lower",
        "within",
    ]  # fmt: skip
    margin: Float = Field(0.0, ge=0)
    """By how much, in the metric's unit; with `relative` as a share of `than`."""
    metric: Line | None = None
    """A metric of the results or `cost/<field>`; null: the objective."""
    than_metric: Line | None = None
    """The metric that is taken of `than`; null: the same as of `arm`."""
    relative: Bool = False
    beyond: Gain | None = None
    """The difference is compared with this one instead of 0."""

    @model_validator(mode="after")
    def _can_be_decided(self) -> "ClaimRule":
        if self.expect == "within" and self.margin == 0:
            raise ValueError("expect: within needs a `margin` above 0")
        if self.metric is not None and self.expect.removeprefix("not_") in ("better", "worse"):
            raise ValueError(f"with a `metric` say higher or lower, got expect: {self.expect}")
        if self.than_metric is not None and not isinstance(self.than, str):
            raise ValueError(f"`than_metric` is of an arm, but than is the number {self.than:g}")
        if self.arm == self.than and self.than_metric in (None, self.metric):
            raise ValueError(f"'{self.arm}' is compared with itself")
        return self


class Budget(Section):
    """Where to stop."""

    per_trial_minutes: Float = Field(60.0, gt=0)
    max_hours: Annotated[Float, Field(gt=0)] | None = None
    """No new trial is started after this; the same command continues."""
    retries: Int = Field(0, ge=0, le=10)
    """How often a failed trial is tried again by itself."""
    gpus_per_trial: Int = Field(1, ge=1, le=64)
    """Processes of one trial, each with a GPU and its share of every batch's rows; see `ranks`."""


class StudyBody(Section):
    """A study file merged with its profile."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=80)]
    """The file's name without `.yaml`."""
    question: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    backbone: Backbone
    task: Task
    adapter: Adapter
    train: Train = Train()
    seeds: Annotated[tuple[Annotated[Int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)]
    split_seed: Int = Field(0, ge=0, lt=2**32)
    sweep: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = {}
    arms: tuple[Arm, ...] = ()
    exclude: tuple[dict[str, Any], ...] = ()
    baseline: Line
    """The arm that all others are compared with, paired by seed."""
    objective: Objective
    tune: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = {}
    """Dotted settings and the values that every arm tries before `seeds`, and the `seeds` of that
    stage; validation chooses."""
    search: Search | None = None
    """A stage before `seeds` that searches the settings of one arm; validation chooses."""
    after: After | None = None
    """Evaluations made on the trained model of every trial of `seeds`."""
    match: Literal["parameters"] | None = None
    """parameters: every arm's size is chosen for the baseline's number of trained parameters."""
    published: Published | None = None
    claims: tuple[ClaimRule, ...] = ()
    """Rules written before the run."""
    budget: Budget = Budget()

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        repeated = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        if repeated:
            raise ValueError(f"each seed once, got {', '.join(map(str, repeated))} repeatedly")
        return seeds

    @field_validator("tune")
    @classmethod
    def _tunes_with_seeds(cls, tune: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        if not tune:
            return tune
        seeds = tune.get("seeds", ())
        if not seeds or any(type(seed) is not int or seed < 0 for seed in seeds):
            raise ValueError(f"give the stage its own `seeds`, a list of numbers, got {seeds}")
        repeated = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        if repeated:
            listed = ", ".join(map(str, repeated))
            raise ValueError(f"each of its `seeds` once, got {listed} repeatedly")
        if len(tune) == 1:
            raise ValueError("nothing to tune: give a setting, e.g. train.learning_rate: [...]")
        return tune

    @model_validator(mode="after")
    def _has_arms(self) -> "StudyBody":
        if not self.sweep and not self.arms:
            raise ValueError("no arms: give `sweep` (lists of values) or `arms` (hand-made)")
        return self


class Study(StudyBody):
    """A validated study under one profile."""

    profile: str
    path: Path
    """The study file."""
    _places: dict[Location, str] = PrivateAttr(default_factory=dict)

    def place(self, *location: str | int) -> str:
        """`file:line` of the longest part of `location` that stands in a file."""
        for end in range(len(location), 0, -1):
            if location[:end] in self._places:
                return self._places[location[:end]]
        return f"{self.path}:1"
