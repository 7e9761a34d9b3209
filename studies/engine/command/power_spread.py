"""Which spread `--power` plans with: one that is stated, or that of results."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from studies.engine.definition.contrasts import WeightedSum, trend_points, weighted_sum
from studies.engine.definition.study import ClaimRule, Study
from studies.engine.errors import StudyError
from studies.engine.planning import runs
from studies.engine.planning.edits import finished
from studies.engine.records import Result, Trial, value_of
from studies.engine.reporting.over_tasks import means
from studies.engine.verdicts.median import OF_FREEDOM, Median
from studies.engine.verdicts.row_scores import Results
from studies.engine.verdicts.samples import sample
from studies.engine.verdicts.spread import Spread, pooled
from studies.engine.verdicts.statistics import Measured

LEAST = 3
"""Seeds that all arms of a claim share before their own spread is taken."""
LEAST_OF_MEDIAN = 5
"""The same of a claim about a median, by whose quartiles it is taken."""


@dataclass(frozen=True)
class Spreads:
    """The spreads that a study is planned with."""

    whole: Spread
    """Of differences from the baseline in the objective."""
    claims: tuple[Spread | str, ...]
    """Of the number of each claim, or why there is none."""


def stated(study: Study, value: float) -> Spreads:
    """The spreads where paired differences in the objective have the standard deviation `value`."""
    whole = Spread(value, source="as stated")
    metric = study.objective_of().metric
    claims = [
        _scaled(whole, metric, total, metric)
        if claim.task is None
        else f"not known: {value:.3g} is of the mean over tasks"
        for claim, total in _sums(study)
    ]
    return Spreads(whole, tuple(claims))


def of_results(study: Study, trials: Sequence[Trial], runs_dir: Path) -> Spreads:
    """The spreads of what lies in `runs_dir` of the arms of `trials`, with whichever seeds.

    Raises `StudyError` where no spread of differences from the baseline can be taken from there.
    """
    pairs = list(_finished(study, trials, runs_dir))
    several = {
        task.name: (
            _by_arm(pair for pair in pairs if pair[0].task == task.name),
            study.objective_of(task.name).metric,
        )
        for task in study.tasks
    }
    over_all = _by_arm(means(study, pairs) if study.tasks else pairs), study.objective_of().metric
    whole = pooled(_values(*over_all), study.baseline)
    if whole is None:
        folder = runs.study_dir(study, runs_dir)
        raise StudyError(_nothing(study, folder, _values(*over_all)))
    claims = tuple(
        _of_claim(claim, total, *several.get(claim.task or "", over_all), study.baseline)
        for claim, total in _sums(study)
    )
    return Spreads(replace(whole, source=f"{whole.source}, in {runs_dir}"), claims)


def _sums(study: Study) -> list[tuple[ClaimRule, WeightedSum]]:
    points = trend_points(study)
    return [(claim, weighted_sum(claim, points)) for claim in study.claims]


def _finished(
    study: Study, trials: Sequence[Trial], runs_dir: Path
) -> Iterator[tuple[Trial, Result]]:
    """Finished trials of the arms of `trials`; a pilot may have had other seeds."""
    cells = {trial.cell: trial for trial in trials}
    before = finished(runs.study_dir(study, runs_dir) / "trials")
    seeds = sorted({trial.seed for trial in [*trials, *before]})
    for trial in cells.values():
        for seed in seeds:
            own = trial.model_copy(update={"seed": seed})
            if (result := runs.result_of(own, runs_dir)) is not None:
                yield own, result


def _by_arm(pairs: Iterable[tuple[Trial, Result]]) -> Results:
    results: dict[str, dict[int, Result]] = {}
    for trial, result in pairs:
        if result.status == "done":
            results.setdefault(trial.arm, {})[trial.seed] = result
    return results


def _values(results: Results, metric: str) -> dict[str, dict[int, float]]:
    return {
        arm: {s: v for s, r in own.items() if (v := value_of(r, metric)) is not None}
        for arm, own in results.items()
    }


def _of_claim(
    claim: ClaimRule, total: WeightedSum, results: Results, metric: str, baseline: str
) -> Spread | str:
    """Of the number itself; else as differences from the baseline let expect."""
    own = sample(total, results, metric)
    if own.exact:
        return "none: the same for every seed"
    enough = own.n >= LEAST_OF_MEDIAN
    if claim.statistic == "median" and enough and (wide := Median.of(own.numbers).spread):
        return Spread(wide, OF_FREEDOM * (own.n - 1), f"{own.n} seeds, by their quartiles")
    if isinstance(own.measured, Measured) and own.n >= LEAST:
        spread, freedom = own.measured.error * math.sqrt(own.n), own.measured.freedom
        return Spread(spread, freedom, f"{own.n} seeds")
    measure = total.terms[0].metric or metric
    around = pooled(_values(results, measure), baseline)
    if around is None:
        return "not known: too few results"
    return _scaled(replace(around, source="pooled"), measure, total, metric)


def _scaled(spread: Spread, of: str, total: WeightedSum, metric: str) -> Spread | str:
    """The spread of `total`, whose metric is `metric`, from that of differences in the metric `of`.

    Where arms vary alike and share what a seed does to all, a sum of them whose weights add up to 0
    has the variance of a difference times half the sum of its squared weights.
    """
    weights: dict[str, float] = {}
    for term in total.terms:
        if (term.metric or metric) != of:
            return f"not known: {spread.value:.3g} is of {of}"
        if term.unit is not None or not isinstance(term.of, str):
            against = "a number" if term.unit is None else "another arm, as a share"
            return f"not known: {spread.value:.3g} is of a difference of arms, not to {against}"
        weights[term.of] = weights.get(term.of, 0.0) + term.weight
    squares = math.fsum(weight**2 for weight in weights.values())
    if abs(math.fsum(weights.values())) > 1e-9 * math.sqrt(squares):
        return f"not known: {spread.value:.3g} is of a difference of arms, not of their level"
    return replace(spread, value=spread.value * math.sqrt(squares / 2))


def _nothing(study: Study, folder: Path, values: Mapping[str, Mapping[int, float]]) -> str:
    """Why there is no spread, and what to do."""
    reference = values.get(study.baseline, {})
    shared = [len(own.keys() & reference.keys()) for arm, own in values.items()
              if arm != study.baseline]  # fmt: skip
    why = f"no two seeds that an arm and the baseline {study.baseline} have both finished"
    if max(shared, default=0) > 1:
        why = "every arm's difference from the baseline is the same for every seed"
    first = max(study.seeds) + 1
    return (
        f"--power: {folder} has {why}, so that no spread is known: state it, as in --power 0.006, "
        f"or run a pilot with seeds of its own, --set 'seeds={[*range(first, first + 5)]}' --runs "
        "pilot, and give --power pilot"
    )
