"""What was evaluated after training, gathered by arm: read off the names of the metrics."""

import re
import statistics
from collections.abc import Mapping
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
    found = []
    for arm, own in results.items():
        known = {seed: result.metrics for seed, result in own.items()}
        seeds = {s: m for s, m in known.items() if any(n.startswith("after/") for n in m)}
        if seeds:
            found.append(_arm(arm, seeds, metric))
    return tuple(found)


def _arm(arm: str, seeds: Mapping[int, Mapping[str, float]], metric: str) -> ArmAfter:
    """What `seeds`, to the metrics of the arm's trial, say."""
    names = sorted({name for metrics in seeds.values() for name in metrics})

    def values(name: str) -> dict[int, float]:
        return {seed: metrics[name] for seed, metrics in seeds.items() if name in metrics}

    def mean(name: str) -> float:
        return statistics.fmean(values(name).values())

    def summary(name: str) -> Summary:
        return summarize(list(values(name).values()))

    def below(start: str) -> dict[str, float]:
        """Means of all metrics whose names begin with `start`, by what follows."""
        return {n.removeprefix(start): mean(n) for n in names if n.startswith(start)}

    def steps_to(reached: str) -> StepsTo:
        value = reached.removeprefix(STEPS_TO).removesuffix("/reached")
        # the mean over tasks is 1 where all of them had it
        count = sum(had >= 1 for had in values(reached).values())
        return StepsTo(value, count, summary(f"{reached.removesuffix('reached')}steps"))

    curve, trained = [], values(metric)
    for share in sorted({float(hit[1]) for n in names if (hit := _SHARE.match(n))}, reverse=True):
        if pruned := values(f"{para_name(share)}/{metric}"):
            facts = {fact: mean(f"{para_name(share)}/{fact}") for fact in PARA_FACTS}
            own = summarize(list(pruned.values()))
            curve.append(Pruned(share, summary=own, difference=compare(pruned, trained), **facts))
    affine, generalization = None, None
    if fitted := values(name := f"after/affine/{metric}"):
        lost = mean("after/affine/non_affine_share")
        affine = Affine(lost, summary(name), compare(fitted, trained))
    of_test = metric.partition("/")[2]
    if values(gap := gap_name(of_test)):
        generalization = Generalization(summary(train_name(of_test)), summary(gap))
    steps = sorted(float(hit[1]) for name in names if (hit := _STEP.match(name)))
    times = sorted({int(hit[1]) for name in names if (hit := _TIME.match(name))})
    parts = {part: below(f"{spectra_name()}/{part}/") for part in PARTS}
    return ArmAfter(
        arm=arm,
        trained=summary(metric),
        curve=tuple(curve),
        affine=affine,
        landscape=tuple((step, summary(landscape_name(step))) for step in steps),
        ranks=tuple(Ranks(part, numbers) for part, numbers in parts.items() if numbers),
        over_time=tuple((step, below(f"{spectra_name(step)}/all/")) for step in times),
        generalization=generalization,
        steps_to=tuple(steps_to(name) for name in names if name.endswith("/reached")),
    )
