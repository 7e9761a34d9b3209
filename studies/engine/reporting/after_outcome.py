"""What was evaluated after training, gathered by arm: read off the names of the metrics."""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from studies.engine.definition.sections import PARA_FACTS, landscape_name, para_name
from studies.engine.records import Result, Trial
from studies.engine.reporting.statistics import Comparison, Summary, compare, summarize

_SHARE = re.compile(r"after/para_([^/]+)/")
_STEP = re.compile(r"after/landscape/(.+)")


@dataclass(frozen=True)
class Kept:
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
class ArmAfter:
    """What was evaluated after training of one arm."""

    arm: str
    trained: Summary
    curve: tuple[Kept, ...]
    """By falling share; empty where the arm was not pruned."""
    affine: Affine | None
    landscape: tuple[tuple[float, Summary], ...]
    """Steps with the validation loss there."""


def gather(done: Sequence[tuple[Trial, Result]], metric: str) -> tuple[ArmAfter, ...]:
    """Every arm of which something was evaluated after training, in the order of `done`."""
    arms: dict[str, dict[int, Mapping[str, float]]] = {}
    for trial, result in done:
        if any(name.startswith("after/") for name in result.metrics):
            arms.setdefault(trial.arm, {})[trial.seed] = result.metrics
    return tuple(_arm(arm, seeds, metric) for arm, seeds in arms.items())


def _arm(arm: str, seeds: Mapping[int, Mapping[str, float]], metric: str) -> ArmAfter:
    names = sorted({name for metrics in seeds.values() for name in metrics})
    shares = {float(hit[1]) for name in names if (hit := _SHARE.match(name))}
    steps = sorted(float(hit[1]) for name in names if (hit := _STEP.match(name)))
    trained = _values(seeds, metric)
    curve = (_kept(share, seeds, metric, trained) for share in sorted(shares, reverse=True))
    affine = _values(seeds, f"after/affine/{metric}")
    lost = _values(seeds, "after/affine/non_affine_share")
    return ArmAfter(
        arm=arm,
        trained=summarize(list(trained.values())),
        curve=tuple(kept for kept in curve if kept is not None),
        affine=Affine(
            statistics.fmean(lost.values()),
            summarize(list(affine.values())),
            compare(affine, trained),
        )
        if affine
        else None,
        landscape=tuple(
            (step, summarize(list(_values(seeds, landscape_name(step)).values()))) for step in steps
        ),
    )


def _kept(
    share: float,
    seeds: Mapping[int, Mapping[str, float]],
    metric: str,
    trained: Mapping[int, float],
) -> Kept | None:
    """None where no seed has the metric."""
    found = _values(seeds, f"{para_name(share)}/{metric}")
    if not found:
        return None
    facts = [
        statistics.fmean(_values(seeds, f"{para_name(share)}/{fact}").values())
        for fact in PARA_FACTS
    ]
    return Kept(share, *facts, summarize(list(found.values())), compare(found, trained))


def _values(seeds: Mapping[int, Mapping[str, float]], name: str) -> dict[int, float]:
    return {seed: metrics[name] for seed, metrics in sorted(seeds.items()) if name in metrics}
