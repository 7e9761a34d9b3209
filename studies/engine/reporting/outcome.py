"""What a study found: its trials gathered by arm, compared and annotated, before any rendering."""

import functools
import math
import statistics as stdlib_statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from studies.engine.definition import published
from studies.engine.planning.tuning import Choice
from studies.engine.records import Cost, Result, Trial
from studies.engine.reporting.after_outcome import ArmAfter, gather
from studies.engine.reporting.claims import Verdict, judge
from studies.engine.reporting.search_outcome import SearchOutcome
from studies.engine.reporting.statistics import Comparison, Summary, compare_arms, summarize

Pairs = Sequence[tuple[Trial, Result]]
"""Every trial that ran with what it found, in the order of the plan."""

DRAWN = 40
"""Arms that a figure shows at most: more cannot be told apart, and take minutes to draw."""


class Objective(Protocol):
    """What a study optimizes."""

    metric: str
    direction: str
    """maximize or minimize."""
    select_on: str | None
    """The validation metric that choices are made on."""


class Study(Protocol):
    """What this room reads of a study; `studies.engine.definition.schema.Study` has it."""

    name: str
    question: str
    profile: str
    baseline: str
    objective: Objective
    published: Any
    """None, or an object with `table` and `x` (a dotted path)."""
    claims: Sequence[Any]
    """Rules written before the run, each a `studies.engine.definition.study.ClaimRule`."""
    arms: Sequence[Any]
    """The arms written by hand, each with `name` and `note`."""
    path: Path


@dataclass(frozen=True)
class Arm:
    """One arm with all its seeds."""

    name: str
    swept: Mapping[str, Any]
    is_baseline: bool
    values: Mapping[int, float]
    """Seed to the objective's metric, finished seeds only, ascending."""
    summary: Summary
    comparison: Comparison | None
    """None for the baseline itself."""
    cost: Cost | None
    """Median over seeds (peak memory: the largest); None where no seed finished."""
    published: published.Figure | None
    keys: Mapping[int, str]
    """Seed to the trial's key, of every seed that ran."""
    x: Any = None
    """The arm's place on the study's axis, None for an arm beside it."""
    note: str = ""
    """What the study's author says about the arm."""

    @property
    def published_difference(self) -> float | None:
        """The paper's difference to its own baseline; None for the baseline itself."""
        return self.published.difference if self.published and not self.is_baseline else None


@dataclass(frozen=True)
class Failed:
    """A trial without a usable result."""

    arm: str
    seed: int
    kind: str
    message: str
    attempt: int


@dataclass(frozen=True)
class Outcome:
    """Everything a report says, as values."""

    name: str
    question: str
    profile: str
    metric: str
    direction: str
    select_on: str | None
    baseline: str
    axis: str | None
    """Dotted path of the setting that the arms are placed by; None where nothing was swept."""
    table: published.Table | None
    arms: tuple[Arm, ...]
    """The baseline first, then as the plan has them."""
    choices: tuple[Choice, ...]
    """What validation chose for the arms before the seeds; none where nothing was tuned."""
    verdicts: tuple[Verdict, ...]
    """On the study's claims, in their order."""
    failed: tuple[Failed, ...]
    data: tuple[Mapping[str, Any], ...]
    """What the trials trained on; one entry unless something is wrong."""
    environments: tuple[Mapping[str, Any], ...]
    """Distinct environments of finished trials, without the host's name."""
    environment_of: Mapping[str, tuple[int, ...]]
    """Arm to indices into `environments`."""
    after: tuple[ArmAfter, ...] = ()
    """What was evaluated after training."""
    notes: tuple[tuple[str, int, str], ...] = ()
    """What trials went through, each with its arm and seed."""
    search: SearchOutcome | None = None
    """What the search for one arm's settings found."""
    claims_changed: bool = False
    """Whether the claims are others than before the first result."""

    def drawn(self) -> "Outcome":
        """With the arms that figures show: of more than `DRAWN`, the baseline and the best."""
        if len(self.arms) <= DRAWN:
            return self
        sign = -1 if self.direction == "maximize" else 1
        known = [arm for arm in self.arms if arm.values and not arm.is_baseline]
        known.sort(key=lambda arm: sign * (arm.summary.mean or 0.0))
        best = {arm.name for arm in known[: DRAWN - 1]}
        return replace(self, arms=tuple(a for a in self.arms if a.is_baseline or a.name in best))

    @property
    def majority(self) -> float | None:
        """Share of the most frequent class in the test set, where the task reports one."""
        shares = {d["majority"]["test"] for d in self.data if "test" in d.get("majority", {})}
        return shares.pop() if len(shares) == 1 else None

    @functools.cached_property
    def seeds(self) -> tuple[int, ...]:
        """Every seed that some arm ran."""
        return tuple(sorted({seed for arm in self.arms for seed in arm.keys}))


def collect(
    study: Study,
    pairs: Pairs,
    choices: Sequence[Choice] = (),
    search: SearchOutcome | None = None,
) -> Outcome:
    """Gather `pairs` by arm; `choices` and `search` are what the stages before them found.

    Raises ValueError where two trials share arm and seed: their mean would count one seed twice.
    """
    _refuse_twins(pairs)
    table = None if study.published is None else published.get_table(study.published.table)
    axis = _axis(study, pairs)
    metric = study.objective.metric
    faults = [_fault(trial, result, metric) for trial, result in pairs]
    done = [pair for pair, fault in zip(pairs, faults, strict=True) if fault is None]
    every, done_of = _by_arm(pairs), _by_arm(done)
    values: dict[str, dict[int, float]] = {trial.arm: {} for trial, _ in pairs}
    for trial, result in sorted(done, key=lambda pair: pair[0].seed):
        values[trial.arm][trial.seed] = result.metrics[metric]
    comparisons = compare_arms(values, study.baseline)
    notes = {arm.name: arm.note for arm in study.arms}
    arms = []
    for name in sorted(values, key=lambda arm: arm != study.baseline):  # stable: baseline first
        trials = sorted((t for t, _ in every[name]), key=lambda t: t.seed)
        own = done_of.get(name, [])
        is_baseline = name == study.baseline
        x = None if axis is None or is_baseline else setting(trials[0], axis)
        figure = None
        if table is not None:
            rows = setting(trials[0], "adapter.method") == published.METHOD
            figure = table.baseline_figure if is_baseline else table.at(x) if rows else None
        arms.append(
            Arm(
                name=name,
                swept=dict(trials[0].swept),
                is_baseline=is_baseline,
                values=values[name],
                summary=summarize(list(values[name].values())),
                comparison=comparisons.get(name),
                cost=_cost([r.cost for _, r in own if r.cost]),
                published=figure,
                keys={t.seed: t.key for t in trials},
                x=x,
                note="; ".join(filter(None, (notes.get(name, ""), _matched(own)))),
            )
        )
    environments = _distinct(_without_host(r.environment) for _, r in done)
    return Outcome(
        name=study.name,
        question=study.question,
        profile=study.profile,
        metric=metric,
        direction=study.objective.direction,
        select_on=study.objective.select_on,
        baseline=study.baseline,
        axis=axis,
        table=table,
        arms=tuple(arms),
        choices=tuple(choices),
        verdicts=tuple(_verdicts(study, done)),
        failed=tuple(fault for fault in faults if fault is not None),
        data=_distinct(r.data for _, r in done),
        environments=environments,
        environment_of={arm: _indices(done_of.get(arm, []), environments) for arm in values},
        after=gather(sorted(done, key=lambda pair: pair[0].arm != study.baseline), metric),
        notes=tuple((trial.arm, trial.seed, note) for trial, r in done for note in r.notes),
        search=search,
    )


def _verdicts(study: Study, done: Pairs) -> list[Verdict]:
    results: dict[str, dict[int, Result]] = {}
    for trial, result in done:
        results.setdefault(trial.arm, {})[trial.seed] = result
    return judge(study.claims, results, study.objective.metric, study.objective.direction)


def _by_arm(pairs: Pairs) -> dict[str, list[tuple[Trial, Result]]]:
    found: dict[str, list[tuple[Trial, Result]]] = {}
    for trial, result in pairs:
        found.setdefault(trial.arm, []).append((trial, result))
    return found


def _matched(done: Pairs) -> str:
    """What size was chosen for an arm that is matched to the baseline, by its finished trials."""
    for _, result in done:
        if result.chosen:
            c = result.chosen
            size = f"{c['option']} = {c['value']}" if c.get("option") else "no size to choose"
            return (
                f"{size}: {c['parameters']:,} trained parameters beside the head, for the "
                f"baseline's {c['reference_parameters']:,}"
            )
    return ""


def setting(trial: Trial, path: str) -> Any:
    """The trial's value at a dotted `path`, swept or from its configuration; None where absent."""
    if path in trial.swept:
        return trial.swept[path]
    value: Any = trial.config
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def _axis(study: Study, pairs: Pairs) -> str | None:
    """The published table's axis, else the setting swept over most values."""
    if study.published is not None:
        return study.published.x
    seen: dict[str, set[str]] = {}
    for trial, _ in pairs:
        if trial.arm != study.baseline:
            for path, value in trial.swept.items():
                seen.setdefault(path, set()).add(repr(value))
    return max(seen, key=lambda path: len(seen[path]), default=None)


def _fault(trial: Trial, result: Result, metric: str) -> Failed | None:
    if result.failure is not None:
        kind, message = result.failure.kind, result.failure.message
    elif result.status == "failed":
        kind, message = "exception", "failed without a message; see the trial's log.txt"
    elif metric not in result.metrics:
        has = ", ".join(sorted(result.metrics)) or "none"
        kind, message = "exception", f"finished without the objective {metric!r}; it has: {has}"
    elif not math.isfinite(result.metrics[metric]):
        kind, message = "not_finite", f"{metric} is {result.metrics[metric]}"
    else:
        return None
    return Failed(trial.arm, trial.seed, kind, message, result.attempt)


def _refuse_twins(pairs: Pairs) -> None:
    seen: set[tuple[str, int]] = set()
    for trial, _ in pairs:
        if (trial.arm, trial.seed) in seen:
            raise ValueError(
                f"arm {trial.arm!r} has two trials with seed {trial.seed}: give one result for "
                "each arm and seed, the latest attempt"
            )
        seen.add((trial.arm, trial.seed))


def _cost(costs: Sequence[Cost]) -> Cost | None:
    if not costs:
        return None
    merged: dict[str, Any] = {}
    for field in Cost.model_fields:
        known = [v for cost in costs if (v := getattr(cost, field)) is not None]
        merge = max if field == "peak_memory_bytes" else stdlib_statistics.median_low
        merged[field] = merge(known) if known else None
    return Cost(**merged)


def _without_host(environment: Mapping[str, Any]) -> dict[str, Any]:
    # a report is shared; the name of the machine it ran on says nothing to its reader
    return {k: environment[k] for k in sorted(environment) if k != "host"}


def _distinct(values: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    found: list[Mapping[str, Any]] = []
    for value in values:
        if value and value not in found:
            found.append(value)
    return tuple(found)


def _indices(done: Pairs, environments: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    known = (_without_host(r.environment) for _, r in done)
    return tuple(sorted({environments.index(e) for e in known if e}))
