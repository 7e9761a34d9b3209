"""What a study file may say: strict, frozen models, wrong as early as possible."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    StringConstraints,
    field_validator,
    model_validator,
)

from studies.backbones import BackboneSpec
from studies.engine.definition.arms import Arm, StudyTask
from studies.engine.definition.contents import Contents
from studies.engine.definition.sections import After, Search
from studies.engine.definition.seeds_rules import SeedList, Seeds, UntilDecided
from studies.engine.definition.train import Train
from studies.engine.definition.tune import Tune
from studies.engine.definition.yaml_source import Entries, place_in
from studies.engine.records import Keeps
from studies.sections import Bool, Float, Int, Line, Section, Statistic
from studies.tasks import TaskSpec

MEAN = "mean"
"""What the mean over tasks is called whose metrics differ: test/mean."""


class Objective(Section):
    """What is compared, and what choices are made on."""

    metric: Annotated[Line, Field(examples=["test/accuracy"])]
    """As in results: `test/` or `valid/` and a metric of the task."""
    direction: Literal["maximize", "minimize"] = "maximize"
    """Which way is better; it must be the task's own."""
    select_on: Annotated[Line | None, Field(examples=["valid/accuracy"])] = None
    """Metric of validation that `tune` and `train.keep: best` choose by; null: none."""
    mixed: Bool = False
    """Whether the mean over `tasks` may be one of different metrics, as GLUE's is."""
    parts: Annotated[tuple[Line, ...], Field(examples=[["test/accuracy_boolq"]])] = ()
    """Metrics of the parts of one task, such as the test sets of a suite, that the report tabulates
    and tests as it does several `tasks`."""


class Published(Section):
    """A table of the paper to show beside ours."""

    table: Annotated[Line, Field(examples=["table_15_grid_size"])]
    """A name of `studies/published/lr_lora.yaml`."""
    x: Annotated[Line | None, Field(examples=["adapter.num_basis"])] = None
    """The swept setting that the rows of an ablation's table stand for; null: a table of several
    tasks, which is shown as it is printed."""
    rows: Annotated[dict[Line, Any], Field(examples=[{"zero": 0.0}])] = {}
    """Arms that the setting does not tell, and the value of the row that each stands for; null: the
    paper has no such arm, whatever the setting says."""
    part: Annotated[Line | None, Field(examples=["RoBERTa-base"])] = None
    """Which part of a table of several tasks that has one a model."""


class Gain(Section):
    """One arm's difference from another."""

    arm: Annotated[Line, Field(examples=["num_basis=512"])]
    """The arm whose gain it is."""
    than: Annotated[Line, Field(examples=["num_basis=8"])]
    """The arm that it is measured from."""


class Trend(Section):
    """How the arms that differ in one setting alone change with it: a least-squares slope."""

    over: Annotated[Line, Field(examples=["adapter.r"])]
    """The dotted setting, of which the arms have at least three values, all numbers."""
    scale: Literal["linear", "log2"] = "linear"
    """The slope is for each unit of the setting, or for each doubling of it."""


class ClaimRule(Section):
    """A rule written before the run: what is claimed of one arm against another, or a number."""

    claim: Annotated[Line, Field(examples=["More functions are better"])]
    """In words."""
    arm: Annotated[Line | None, Field(examples=["num_basis=512"])] = None
    """The arm of which something is claimed; of a `trend`, one of its arms, and only needed where
    several groups of arms have one."""
    than: Annotated[Line | Float | None, Field(examples=["lora"])] = None
    """The arm, or the number, that it is compared with; of a `trend`, one of the arms whose slope
    is compared with. A `contrast` and a `trend` are compared with 0 where it is null."""
    expect: Literal["higher", "not_higher", "lower", "not_lower", "within", "not_within"]
    """What is claimed of the number of `arm`, or of the weighted sum or slope: higher or lower than
    what it is compared with, or within `margin` of it; of a loss, lower is better."""
    margin: Float = Field(0.0, ge=0)
    """By how much, in the metric's unit, so that a point of accuracy is 0.01; with `relative` as a
    share of `than`."""
    resolution: Annotated[Annotated[Float, Field(gt=0)] | None, Field(examples=[0.005])] = None
    """A difference too small to matter, in the unit of `margin`: one that is surely smaller is an
    answer too, "bounded". `within` needs none: its margin is one."""
    metric: Annotated[Line | None, Field(examples=["cost/peak_memory_bytes"])] = None
    """A metric of the results, `cost/<field>`, or `collapsed`, the share of runs that fell to
    chance; null: the objective."""
    than_metric: Annotated[Line | None, Field(examples=["valid/accuracy"])] = None
    """The metric that is taken of `than`; null: the same as of `arm`."""
    relative: Bool = False
    """Whether `margin` is a share of `than` instead of a difference."""
    statistic: Statistic = "mean"
    """What is taken over seeds; a few collapsed runs move the mean far, the median little."""
    task: Annotated[Line | None, Field(examples=["sarcasm"])] = None
    """One of several `tasks`; null: the mean over them, seed by seed."""
    beyond: Gain | None = None
    """The difference is compared with this one instead of 0: short for a `contrast` of all four."""
    contrast: Annotated[
        Annotated[dict[Line, Float], Field(min_length=1)] | None,
        Field(examples=[{"all": 1, "attention": -1, "mlp": -1, "lora": 1}]),
    ] = None
    """Arms and their weights: something is claimed of the weighted sum, seed by seed."""
    trend: Trend | None = None
    """Something is claimed of a slope over arms, seed by seed."""

    @field_validator("expect", mode="before")
    @classmethod
    def _says_which_way(cls, given: Any) -> Any:
        before, _, word = given.rpartition("_") if isinstance(given, str) else ("", "", "")
        if word in ("better", "worse"):
            high, low = ("higher", "lower") if word == "better" else ("lower", "higher")
            prefix = f"{before}_" if before else ""
            raise ValueError(
                f"expected {prefix}{high}, or {prefix}{low} for a metric that is to be minimized, "
                f"got '{given}'"
            )
        return given

    @model_validator(mode="after")
    def _can_be_decided(self) -> "ClaimRule":
        for problem in (*self._of_its_form(), *self._of_its_numbers()):
            raise ValueError(problem)
        return self

    def _of_its_form(self) -> Iterator[str]:
        forms = {"contrast": ("arm", "than_metric"), "trend": ()}
        given = [form for form in forms if getattr(self, form) is not None]
        if len(given) > 1:
            yield "a claim is about a `contrast` or about a `trend`, got both"
        if not given and (self.arm is None or self.than is None):
            yield "needs `arm` and `than`, or a `contrast`, or a `trend`"
        for form in given:
            for key in (*forms[form], "beyond", "relative"):
                if getattr(self, key):
                    yield f"`{key}` has no meaning in a `{form}`: leave it out"
        if self.contrast is None:
            return
        if isinstance(self.than, str):
            yield f"a `contrast` is compared with a number: give '{self.than}' a weight in it"
        if empty := [arm for arm, weight in self.contrast.items() if weight == 0]:
            arms = ", ".join(f"'{arm}'" for arm in empty)
            yield f"a weight of 0 leaves an arm out of the `contrast`: {arms}"
        left = math.fsum(self.contrast.values())
        if self.than is None and abs(left) > 1e-9 * max(map(abs, self.contrast.values())):
            yield (
                f"the weights of the `contrast` add up to {left:g}, so that the level that all "
                "arms share counts in it: make it 0, or say by `than` what the sum is compared with"
            )

    def _of_its_numbers(self) -> Iterator[str]:
        if self.expect.endswith("within") and self.margin == 0:
            yield f"expect: {self.expect} needs a `margin` above 0"
        if self.expect.endswith("within") and self.resolution is not None:
            yield f"expect: {self.expect} has its `margin` as resolution: leave `resolution` out"
        if self.than_metric is not None and not isinstance(self.than, str):
            yield f"`than_metric` is of an arm, but than is {self.than}"
        if self.relative and self.than == 0:
            yield "`relative` is as a share of `than`, and nothing is a share of 0"
        one_number = self.arm == self.than and self.than_metric in (None, self.metric)
        if self.arm is not None and one_number:
            yield f"'{self.arm}' is compared with itself"


class Budget(Section):
    """Where to stop."""

    per_trial_minutes: Float = Field(60.0, gt=0)
    """Minutes after which a trial is ended, as failed."""
    max_hours: Annotated[Annotated[Float, Field(gt=0)] | None, Field(examples=[12])] = None
    """Hours after which no new trial is started; the same command continues. Null: no limit."""
    retries: Int = Field(0, ge=0, le=10)
    """How often a failed trial is tried again by itself."""
    gpus_per_trial: Int = Field(1, ge=1, le=64)
    """Processes of one trial, each with a GPU and its share of every batch's rows."""


class StudyBody(Section):
    """A study file merged with its profile."""

    name: Annotated[
        str,
        StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=80),
        Field(examples=["my_study"]),
    ]
    """The file's name without `.yaml`; taken from there where it is left out."""
    question: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1),
        Field(examples=["Does the number of basis functions matter?"]),
    ]
    """What the study is to answer, in words."""
    plugins: Annotated[tuple[Line, ...], Field(examples=[["my_basis.py"]])] = ()
    """Python files that register families, forms, methods, tasks or other parts of your own, by
    their paths from the study file; they run whenever the study is read, so read those of others
    first."""
    backbone: BackboneSpec
    """The pretrained model."""
    task: TaskSpec
    """The data; of several `tasks` what they share."""
    tasks: Annotated[tuple[StudyTask, ...], Field(examples=[["sarcasm", "vitaminc"]])] = ()
    """Several tasks, by name or with what differs: every arm is trained on each with every seed,
    and arms are compared on each and on the mean over all."""
    adapter: dict[str, Any]
    """The method and its options, which package `adapters` checks."""
    train: Train = Train()
    """How one trial is trained."""
    seeds: Annotated[Seeds, Field(examples=[[0, 1, 2]])]
    """Every arm is trained once with each, all different; arms are compared seed by seed. Or how
    many there are at least and at most until the claims are decided."""
    split_seed: Int = Field(0, ge=0, lt=2**32)
    """What the rows are split into training, validation and test by."""
    sweep: Annotated[
        dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]],
        Field(examples=[{"adapter.r": [4, 8]}]),
    ] = {}
    """Dotted settings and their values, or `{times: 0.5}`; every combination is an arm."""
    arms: tuple[Arm, ...] = ()
    """Arms written by hand, after those of `sweep`."""
    exclude: Annotated[
        tuple[dict[str, Any] | Line, ...], Field(examples=[[{"adapter.r": 4}, "lora"]])
    ] = ()
    """What is left out: combinations of `sweep`, by dotted settings and the value of each, and arms
    by their names. An arm that a profile leaves out takes the claims about it along."""
    baseline: Annotated[Line, Field(examples=["lora"])]
    """The arm that all others are compared with, paired by seed."""
    objective: Objective
    """What is compared."""
    tune: Annotated[Tune | None, BeforeValidator(lambda given: None if given == {} else given)] = (
        None
    )
    """The stage before `seeds` in which every arm tries the same values; null: none."""
    search: Search | None = None
    """A stage before `seeds` that searches the settings of one arm; validation chooses."""
    after: After | None = None
    """Evaluations made on the trained model of every trial of `seeds`."""
    keep: Annotated[Keeps, Field(examples=[["adapter", "predictions"]])] = ()
    """One of them or a list. adapter: what every trial of `seeds` has trained stays in its folder;
    mlflow: and is an artifact of its run in MLflow; predictions: its scores on every test row stay,
    and claims are tested over seeds and test rows. Null: nothing stays."""
    match: Literal["parameters"] | None = None
    """parameters: every arm's size is chosen for the baseline's number of trained parameters; null:
    sizes stay as they are."""
    published: Published | None = None
    """A table of the paper to show beside ours."""
    claims: tuple[ClaimRule, ...] = ()
    """Rules written before the run."""
    budget: Budget = Budget()
    """Where to stop."""

    @field_validator("adapter")
    @classmethod
    def _has_a_method(cls, adapter: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(adapter.get("method"), str):
            raise ValueError(f"needs a `method`, e.g. lora, got {adapter.get('method')!r}")
        return adapter

    @field_validator("exclude", mode="before")
    @classmethod
    def _names_or_describes_arms(cls, given: Any) -> Any:
        for each in given if isinstance(given, list) else ():
            if not each or not isinstance(each, str | dict):
                raise ValueError(f"expected names of arms and mappings of settings, got {each!r}")
        return given

    @field_validator("tasks")
    @classmethod
    def _tasks_differ(cls, tasks: tuple[StudyTask, ...]) -> tuple[StudyTask, ...]:
        names = [task.name for task in tasks]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"each name once, got {', '.join(repeated)} repeatedly; the data may be the same: "
                "{name: another, set: {task.name: ...}}"
            )
        if len(names) == 1:
            raise ValueError(f"expected two or more, got one: write task: {names[0]}")
        return tasks

    @model_validator(mode="after")
    def _has_arms(self) -> "StudyBody":
        if not self.sweep and not self.arms:
            raise ValueError("no arms: give `sweep` (lists of values) or `arms` (hand-made)")
        return self


class Study(StudyBody):
    """A validated study under one profile."""

    profile: str
    """Its name, and after a `+` each what `set` changes: `embedded+adapter.start=paper`."""
    path: Path
    """The study file."""
    set: dict[str, Any] = {}
    """Dotted settings of the whole study from the command line."""
    seeds: SeedList
    """All that may be trained, in order."""
    unasked: tuple[str, ...] = ()
    """Claims about arms that the profile leaves out, and which it leaves out with them."""
    growth: UntilDecided | None = None
    """How seeds are added until the claims are decided; None: all are trained."""
    _tree: Entries = PrivateAttr(default_factory=Entries)
    """What the files say."""
    _contents: Contents = PrivateAttr(default_factory=Contents)
    _beside: tuple[Path, ...] = PrivateAttr(default=())
    """Plug-ins that the command line names."""

    @model_validator(mode="before")
    @classmethod
    def _lists_its_seeds(cls, given: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(seeds := given.get("seeds"), UntilDecided | Mapping):
            return given
        growth = UntilDecided.model_validate(seeds)
        return given | {"seeds": growth.seeds, "growth": growth}

    @property
    def chosen(self) -> dict[tuple[str, ...], Mapping[str, Any]]:
        """What the stages before the seeds try, under the keys that lead to it in the file."""
        tuned = {} if self.tune is None else self.tune.values
        searched = {} if self.search is None else self.search.space
        return {("tune",): tuned, ("search", "space"): searched}

    @property
    def until_decided(self) -> bool:
        """Whether only arms of claims that are open get more seeds than those of the first look."""
        return self.growth is not None

    @property
    def looks(self) -> tuple[int, ...]:
        """After how many seeds claims are judged: of a list once, after all."""
        return (len(self.seeds),) if self.growth is None else self.growth.sizes

    @property
    def first_seeds(self) -> tuple[int, ...]:
        """Those that every arm is trained with."""
        return self.seeds[: self.looks[0]]

    def objective_of(self, task: str = "") -> Objective:
        """What is compared on one of the `tasks`; without a name, over all of them.

        Where their metrics differ, the one over all is called as `MEAN`.
        """
        if not self.tasks:
            return self.objective
        if task:
            own = next(each for each in self.tasks if each.name == task)
            given = {k: v for k in ("metric", "select_on") if (v := getattr(own, k)) is not None}
            return self.objective.model_copy(update=given)
        every = [self.objective_of(each.name) for each in self.tasks]
        shared = {
            key: names.pop() if len(names := {getattr(each, key) for each in every}) == 1 else mean
            for key, mean in (("metric", f"test/{MEAN}"), ("select_on", f"valid/{MEAN}"))
        }
        return self.objective.model_copy(update=shared)

    def compared(self) -> dict[str, Objective]:
        """What is compared beside the whole, by name: on each task, or of each part of one."""
        if self.tasks:
            return {task.name: self.objective_of(task.name) for task in self.tasks}
        parts = self.objective.parts
        return {part: self.objective.model_copy(update={"metric": part}) for part in parts}

    @property
    def contents(self) -> Contents:
        """What the files that arms name hold, as seen first: one command sees them once."""
        return self._contents

    @property
    def plugin_files(self) -> tuple[Path, ...]:
        """The files of `plugins`, and those that it was loaded with beside them, each once."""
        own = (self.path.parent / Path(name).expanduser() for name in self.plugins)
        return tuple(dict.fromkeys(file.resolve() for file in (*own, *self._beside)))

    def place(self, *location: str | int) -> str:
        """`file:line` of the longest part of `location` that stands in a file."""
        if ".".join(map(str, location)) in self.set:
            return "--set"
        return place_in(self._tree, location, f"{self.path}:1")
