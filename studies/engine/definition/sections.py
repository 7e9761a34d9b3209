"""The sections `after` and `search` of a study."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    WrapValidator,
    field_validator,
    model_validator,
)

from studies.sections import Bool, Float, Int, Line, Section, check_rise

PARA_FACTS = ("parameters", "kept_energy", "rank_mean", "rank_spread")
"""What is said of a pruned adapter beside its metrics: LoRA parameters, share of the squared norm
of all updates, mean and standard deviation over layers of the ranks."""

SPECTRA = "spectra.npz"
"""The file beside a trial's result that `spectra` asks for; after step 100, spectra-100.npz."""
STEPS_TO = "after/steps_to_"
SURFACE = "loss_surface.npz"
"""The file that `loss_surface` asks for."""
SURFACE_FACTS = ("center", "lowest", "highest")
"""What is said of a loss surface: the loss of the trained parameters, and its ends."""
RANK_METRICS = "after/spectra"
"""What metrics of the updates' ranks begin with, and of phi's sizes; see
`adapters.spectrum.rank_statistics` and `size_statistics`."""
RANKS = ("stable_rank", "effective_rank", "rank")
AMPLITUDE_SIZES, BANDWIDTH_SIZES = ("amplitude_norm",), ("bandwidth_norm", "bandwidth_mean")
_SPREADS = ("", "_spread", "_early", "_late", "_rise", "_slope")
_CHANGES = ("_start", "_change")
PARTS = ("all", "attention", "mlp")


def _differ(what: str, numbers: tuple[float, ...]) -> tuple[float, ...]:
    names = [f"{number:g}" for number in numbers]
    if len(set(names)) < len(names):
        raise ValueError(f"each {what} once, got {', '.join(names)}")
    return numbers


class Para(Section):
    """Ranks cut after training, by one threshold over all layers (PARA, arXiv 2604.27796)."""

    kept: Annotated[
        tuple[Annotated[Float, Field(gt=0, le=1)], ...],
        Field(min_length=1, examples=[[1.0, 0.5, 0.25]]),
        AfterValidator(functools.partial(_differ, "share")),
    ]
    """Shares of the trained parameters that are kept, each evaluated."""


class Landscape(Section):
    """The validation loss along a random direction through the trained parameters."""

    points: Int = Field(11, ge=3)
    """Odd, so that the trained parameters themselves are one."""
    radius: Float = Field(0.5, gt=0)
    """Largest step, in units of the norm of each row of each matrix."""

    @property
    def steps(self) -> list[float]:
        """From -radius to radius, 0 in the middle."""
        half = self.points // 2
        return [self.radius * i / half for i in range(-half, half + 1)]

    @field_validator("points")
    @classmethod
    def _has_a_middle(cls, points: int) -> int:
        if points % 2 == 0:
            raise ValueError(f"expected an odd number, so that step 0 is one of them, got {points}")
        return points


class LossSurface(Landscape):
    """The training loss on a plane of two random directions through the trained parameters."""

    rows: Int = Field(256, ge=1)
    """Training rows on which it is measured, without dropout; all where there are fewer."""


class Spectra(Section):
    """Ranks and phis at named steps of the training, beside those at its end."""

    steps: Annotated[
        tuple[Annotated[Int, Field(ge=1)], ...],
        Field(min_length=1, examples=[[100, 1000, 2000]]),
    ]
    """Optimizer steps; what is trained is copied after each, and looked at after the training."""

    @field_validator("steps")
    @classmethod
    def _steps_rise(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        check_rise(steps, "steps")
        return steps


_ALWAYS = ("affine", "spectra")
"""Keys of `after` that every trial's configuration has."""


def _one_or_several(given: Any) -> Any:
    return given if isinstance(given, list | tuple) else (given,)


def _switch(given: Any, _: Callable[[Any], Any]) -> Any:
    """true, false or a mapping; by itself pydantic would say of each why it is none of the two."""
    if isinstance(given, Mapping):
        return Spectra.model_validate(given)
    if isinstance(given, bool | Spectra):
        return given
    raise ValueError(f"expected true, false or {{steps: [...]}}, got {given!r}")


class After(Section):
    """Evaluations of every trained model beyond its own; they become metrics `after/...`."""

    para: Para | None = None
    """Ranks cut after training; null: none."""
    affine: Bool = False
    """Every phi replaced by its best affine fit."""
    landscape: Landscape | None = None
    """The validation loss along a line; null: not."""
    spectra: Annotated[bool | Spectra, WrapValidator(_switch)] = False
    """Ranks of every update and sizes of every phi, by part and depth of the model; singular
    values, and every phi, are kept beside the result for the figures. A mapping: also at `steps`
    of the training."""
    loss_surface: LossSurface | None = None
    """The training loss on a plane, kept beside the result for the figure; null: not."""
    generalization: Bool = False
    """The task's metrics on as many training rows as there are test rows, and how much better they
    are than on the test rows."""
    steps_to: Annotated[
        tuple[Float, ...],
        BeforeValidator(_one_or_several),
        AfterValidator(functools.partial(_differ, "value")),
        Field(examples=[[0.8, 0.85]]),
    ] = ()
    """Values of `objective.select_on`, one or several: after how many steps of the training an
    evaluation first had it, or a better one."""

    @model_validator(mode="after")
    def _asks_something(self) -> "After":
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise ValueError(
                "nothing to evaluate: give `para`, `affine: true`, `landscape`, `spectra: true`, "
                "`loss_surface`, `generalization: true` or `steps_to`"
            )
        return self

    def settings(self) -> dict[str, Any]:
        """The section as a part of a trial's configuration, and so of its key.

        Keys that came later than others are there only where they ask for something: the keys of
        trials that were there before stay.
        """
        given = self.model_dump(mode="json", exclude_none=True)
        return {name: value for name, value in given.items() if value or name in _ALWAYS}

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps of the training after which spectra are wanted."""
        return self.spectra.steps if isinstance(self.spectra, Spectra) else ()

    def names(
        self,
        metrics: Iterable[str],
        *,
        pruned: bool = True,
        phi: bool = True,
        bandwidths: bool = True,
        changed: bool = True,
    ) -> list[str]:
        """The metrics that this adds, where a task reports `metrics` on each split, to an adapter
        with the traits of the other arguments, see `checks.Traits`."""
        metrics = list(metrics)
        splits = [f"{split}/{metric}" for split in ("valid", "test") for metric in metrics]
        shares = self.para.kept if pruned and self.para is not None else ()
        names = [f"{para_name(s)}/{name}" for s in shares for name in (*splits, *PARA_FACTS)]
        if phi and self.affine:
            names += [f"after/affine/{name}" for name in (*splits, "non_affine_share")]
            names += [f"after/affine/difference/{name}" for name in splits]
        if self.landscape is not None:
            names += [landscape_name(step) for step in self.landscape.steps]
        if self.loss_surface is not None:
            names += [f"after/loss_surface/{fact}" for fact in SURFACE_FACTS]
        if self.generalization:
            names += [train_name(m) for m in metrics] + [gap_name(m) for m in metrics]
        names += [f"{steps_to_name(v)}/{f}" for v in self.steps_to for f in ("steps", "reached")]
        if changed and self.spectra:
            sizes = (*AMPLITUDE_SIZES, *(BANDWIDTH_SIZES * bandwidths)) * phi
            inner = [f"{number}{end}" for number in (*RANKS, *sizes) for end in _SPREADS]
            inner += [f"{size}{end}" for size in sizes for end in _CHANGES]
            each = [f"{part}/{name}" for part in PARTS for name in inner] + [
                "all/raised_share"
            ] * phi
            names += [
                f"{at}/{name}" for at in map(spectra_name, (None, *self.steps)) for name in each
            ]
        return names


def para_name(share: float) -> str:
    """What metrics of the adapter pruned to `share` begin with: after/para_0.25."""
    return f"after/para_{share:g}"


def spectra_name(step: int | None = None) -> str:
    """What metrics of ranks and sizes after `step` begin with: after/spectra/step_100; of what was
    trained, without one."""
    return RANK_METRICS if step is None else f"{RANK_METRICS}/step_{step}"


def landscape_name(step: float) -> str:
    """The metric that is the validation loss at `step`: after/landscape/-0.1."""
    return f"after/landscape/{step:g}"


def train_name(metric: str) -> str:
    """The metric that is the task's `metric` on training rows: after/train/accuracy."""
    return f"after/train/{metric}"


def gap_name(metric: str) -> str:
    """The metric that says how much better `metric` is there than on test rows."""
    return f"after/generalization_gap/{metric}"


def steps_to_name(value: float) -> str:
    """What metrics about the steps to `value` begin with: after/steps_to_0.85."""
    return f"{STEPS_TO}{value:g}"


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, both included."""

    kind: Literal["int", "float"]
    low: float
    high: float
    log: bool
    """Whether every factor is as likely, instead of every distance."""


Domain = Range | tuple[Any, ...]
"""What a searched setting may be: a number of a range, or one of several values."""


def _domain(given: Any) -> Domain:
    """`[a, b, c]`, `{int: [low, high], log: true}` or `{float: [low, high]}`."""
    if isinstance(given, list | tuple):
        scalars = all(
            value is None or isinstance(value, bool | int | float | str) for value in given
        )
        if scalars and given and len(set(map(repr, given))) == len(given):
            return tuple(given)
        raise ValueError(f"expected different single values, got {given!r}")
    form = "{int: [low, high]} or {float: [low, high]}, with `log: true` where factors count"
    if not isinstance(given, Mapping) or len({"int", "float"} & set(given)) != 1:
        raise ValueError(f"expected a list of values, {form}; got {given!r}")
    kind: Literal["int", "float"] = "int" if "int" in given else "float"
    ends, log = given[kind], given.get("log", False)
    numbers = (int,) if kind == "int" else (int, float)
    if (
        set(given) - {kind, "log"}
        or not isinstance(log, bool)
        or not isinstance(ends, list | tuple)
        or len(ends) != 2
        or any(isinstance(end, bool) or not isinstance(end, numbers) for end in ends)
    ):
        raise ValueError(f"expected {form}; got {given!r}")
    low, high = ends
    if not low < high or (log and low <= 0):
        raise ValueError(f"expected low < high{', both above 0 with log' * log}; got {given!r}")
    return Range(kind, low, high, log)


class SearchObjective(Section):
    """What a search wants of a point; never a metric of the test set."""

    metric: Annotated[Line, Field(examples=["valid/accuracy", "cost/trainable_parameters"])]
    """`valid/<metric>` or `cost/<field>`."""
    direction: Literal["maximize", "minimize"] = "maximize"
    """Which way is better."""


class Pruning(Section):
    """Ends points that lag: below the median of finished points at the same step.

    A pruned point has no result, so a search with pruning says which point is good, not by how much
    points differ.
    """

    points: Int = Field(5, ge=1)
    """Finished points before any is ended."""
    steps: Int = Field(0, ge=0)
    """No point is ended before this optimizer step."""


class Search(Section):
    """The stage before the seeds in which Optuna chooses what to try, point by point."""

    arm: Annotated[Line, Field(examples=["phi"])]
    """The arm whose settings are searched; its seeds are trained with the best point."""
    trials: Int = Field(ge=1, examples=[60])
    """Points, however each ends."""
    sampler: Literal["tpe", "random"] = "tpe"
    """Optuna's, which chooses the points."""
    startup: Int = Field(10, ge=1)
    """Random points before the sampler learns from them."""
    space: Annotated[
        dict[str, Annotated[Any, BeforeValidator(_domain)]],
        Field(min_length=1, examples=[{"adapter.num_basis": {"int": [4, 128], "log": True}}]),
    ]
    """Dotted settings of `adapter` and `train`, each with what it may be: a list of values, or
    `{int: [low, high]}` or `{float: [low, high]}`, with `log: true` where factors count."""
    objectives: Annotated[tuple[SearchObjective, ...], Field(min_length=1, max_length=3)]
    """The first one chooses; with two or more the report shows the Pareto set."""
    seed: Int = Field(ge=0, lt=2**32, examples=[1000])
    """Of the sampler and of every point's training; not one of `seeds`."""
    pruning: Pruning | None = None
    """On the first objective; needs `train.eval_every`. Null: every point runs to its end."""
