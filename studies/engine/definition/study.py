"""What a study file may say: strict, frozen models, wrong as early as possible."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, StringConstraints, field_validator, model_validator

from studies.backbones import BackboneSpec
from studies.engine.definition.sections import After, Search
from studies.engine.definition.train import Train
from studies.engine.definition.yaml_source import Location
from studies.sections import Bool, Float, Int, Line, Section
from studies.tasks import TaskSpec


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
        if self.relative and self.than == 0:
            raise ValueError("`relative` is as a share of `than`, and nothing is a share of 0")
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
    backbone: BackboneSpec
    """The pretrained model."""
    task: TaskSpec
    """The data."""
    adapter: dict[str, Any]
    """The method and its options, which package `adapters` checks."""
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

    @field_validator("adapter")
    @classmethod
    def _has_a_method(cls, adapter: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(adapter.get("method"), str):
            raise ValueError(f"needs a `method`, e.g. lora, got {adapter.get('method')!r}")
        return adapter

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
