"""What was evaluated after training, gathered by arm: read off the names of the metrics."""

import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from studies.engine.definition.sections import (
    PARA_FACTS,
    PARTS,
    STEPS_TO,
    gap_name,
    landscape_name,
    para_name,
    spectra_name,
    train_name,
)
from studies.engine.records import Result
from studies.engine.verdicts.statistics import Comparison, Summary, compare, summarize

Seeds = Mapping[int, Mapping[str, float]]
"""Seed, ascending, to the metrics of one arm's trial."""
_SHARE = re.compile(r"after/para_([^/]+)/")
_TIME = re.compile(rf"{spectra_name()}/step_(\d+)/")
_STEP = re.compile(r"after/landscape/(.+)")


@dataclass(frozen=True)
class Pruned:
    """One arm at one share of its trained parameters, chosen by PARA."""

    share: float
    parameters: float
    """Of the pruned adapter, as plain LoRA; like all below a mean over seeds."""
    kept_energy: float
    rank_mean: float
    rank_spread: float
    """Standard deviation of the ranks over the layers."""
    summary: Summary
    difference: Comparison
    """To the trained model, paired by seed."""


@dataclass(frozen=True)
class Affine:
    """One arm with every phi replaced by its best affine fit."""

    non_affine_share: float
    """Mean over modules and seeds of the part of phi that the fit loses."""
    summary: Summary
    difference: Comparison
    """To the trained model, paired by seed."""


@dataclass(frozen=True)
class Ranks:
    """How the ranks of one arm's updates are spread over a part of the model."""

    part: str
    """all, attention or mlp."""
    numbers: Mapping[str, float]
    """By the end of the metric's name, such as stable_rank_spread; means over seeds. Those of phi's
    sizes, such as amplitude_norm, are among them."""


@dataclass(frozen=True)
class Generalization:
    """One arm on rows that it was trained on."""

    train: Summary
    gap: Summary
    """How much better the objective's metric is there than on test rows."""


@dataclass(frozen=True)
class StepsTo:
    """How long one arm took to a value of what is chosen by."""

    value: str
    reached: int
    """Seeds that had it, of several tasks on all of them."""
    steps: Summary
    """Those that had not count as all steps of their training."""


@dataclass(frozen=True)
class ArmAfter:
    """What was evaluated after training of one arm."""

    arm: str
    trained: Summary
    curve: tuple[Pruned, ...]
    """By falling share; empty where the arm was not pruned."""
    affine: Affine | None
    landscape: tuple[tuple[float, Summary], ...]
    """Steps with the validation loss there."""
    ranks: tuple[Ranks, ...] = ()
    """Empty where the method has no update that is a matrix."""
    over_time: tuple[tuple[int, Mapping[str, float]], ...] = ()
    """Steps of the training with the numbers of `all` after each, means over seeds."""
    generalization: Generalization | None = None
    steps_to: tuple[StepsTo, ...] = ()


def gather(results: Mapping[str, Mapping[int, Result]], metric: str) -> tuple[ArmAfter, ...]:
    """Every arm of which something was evaluated after training; `results` by arm and seed."""
    return tuple(
        _arm(arm, seeds, metric)
        for arm, own in results.items()
        if (seeds := {seed: r.metrics for seed, r in own.items() if _is_after(r.metrics)})
    )


def _is_after(metrics: Iterable[str]) -> bool:
    return any(name.startswith("after/") for name in metrics)


def _arm(arm: str, seeds: Seeds, metric: str) -> ArmAfter:
    names = sorted({name for metrics in seeds.values() for name in metrics})
    shares = {float(hit[1]) for name in names if (hit := _SHARE.match(name))}
    steps = sorted(float(hit[1]) for name in names if (hit := _STEP.match(name)))
    times = {int(hit[1]) for name in names if (hit := _TIME.match(name))}
    trained = _values(seeds, metric)
    curve = (_pruned(share, seeds, metric, trained) for share in sorted(shares, reverse=True))
    affine = None
    if values := _values(seeds, f"after/affine/{metric}"):
        lost = _mean(seeds, "after/affine/non_affine_share")
        affine = Affine(lost, _summary(values), compare(values, trained))
    return ArmAfter(
        arm=arm,
        trained=_summary(trained),
        curve=tuple(point for point in curve if point is not None),
        affine=affine,
        landscape=tuple((step, _summary(_values(seeds, landscape_name(step)))) for step in steps),
        ranks=tuple(
            Ranks(part, own)
            for part in PARTS
            if (own := _below(f"{spectra_name()}/{part}/", seeds))
        ),
        over_time=tuple(
            (step, _below(f"{spectra_name(step)}/all/", seeds)) for step in sorted(times)
        ),
        generalization=_generalization(seeds, metric.partition("/")[2]),
        steps_to=tuple(_steps_to(seeds, n) for n in names if n.endswith("/reached")),
    )


def _generalization(seeds: Seeds, metric: str) -> Generalization | None:
    gaps = _values(seeds, gap_name(metric))
    train = _values(seeds, train_name(metric))
    return Generalization(_summary(train), _summary(gaps)) if gaps else None


def _steps_to(seeds: Seeds, name: str) -> StepsTo:
    reached = _values(seeds, name)
    steps = _values(seeds, f"{name.removesuffix('reached')}steps")
    value = name.removeprefix(STEPS_TO).removesuffix("/reached")
    # the mean over tasks is 1 where all of them had it
    return StepsTo(value, sum(had >= 1 for had in reached.values()), _summary(steps))


def _below(start: str, seeds: Seeds) -> dict[str, float]:
    """Means of all metrics whose names begin with `start`, by what follows."""
    names = sorted({name for metrics in seeds.values() for name in metrics})
    return {n.removeprefix(start): _mean(seeds, n) for n in names if n.startswith(start)}


def _pruned(share: float, seeds: Seeds, metric: str, trained: Mapping[int, float]) -> Pruned | None:
    """None where no seed has the metric."""
    values = _values(seeds, f"{para_name(share)}/{metric}")
    if not values:
        return None
    facts = {fact: _mean(seeds, f"{para_name(share)}/{fact}") for fact in PARA_FACTS}
    return Pruned(share, summary=_summary(values), difference=compare(values, trained), **facts)


def _values(seeds: Seeds, name: str) -> dict[int, float]:
    return {seed: metrics[name] for seed, metrics in seeds.items() if name in metrics}


def _mean(seeds: Seeds, name: str) -> float:
    return statistics.fmean(_values(seeds, name).values())


def _summary(values: Mapping[int, float]) -> Summary:
    return summarize(list(values.values()))
