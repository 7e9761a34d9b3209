"""What a study found: its trials gathered by arm, compared and annotated, before any rendering."""

import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from studies import published
from studies.engine.definition import overrides
from studies.engine.definition.contrasts import trend_points
from studies.engine.definition.study import Objective, Study
from studies.engine.planning.preregistration import NO_CHANGES, Changes
from studies.engine.planning.tuning import Choice
from studies.engine.records import BestStep, Cost, Result, Trial
from studies.engine.reporting.after_outcome import ArmAfter, gather
from studies.engine.reporting.arm_facts import figure, matched, median_cost, setting, steps_of
from studies.engine.reporting.over_tasks import ended_on_all, means
from studies.engine.reporting.search_outcome import SearchOutcome
from studies.engine.reporting.two_factors import TwoFactors, two_factors
from studies.engine.verdicts.claims import Verdict, judge
from studies.engine.verdicts.collapsed import Collapsed, collapsed
from studies.engine.verdicts.row_scores import Read
from studies.engine.verdicts.statistics import (
    Comparison,
    Estimate,
    Summary,
    compare_arms,
    compare_over_tasks,
    summarize,
)

Pairs = Sequence[tuple[Trial, Result]]
"""Every trial that ran with what it found, in the order of the plan."""

DRAWN = 40
"""Arms that a figure shows at most: more cannot be told apart, and take minutes to draw."""


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
    """The arm's place on the study's axis; None for an arm beside it, as most baselines are."""
    note: str = ""
    """What the study's author says about the arm."""
    steps: int | None = None
    """Optimizer steps of one trial; None where no seed finished."""
    epochs: float | None = None
    """Passes over the training rows that these were; None where `max_steps` ended them."""
    collapsed: Collapsed | None = None
    """Its runs that fell to chance; None where nothing says what chance is."""

    @property
    def gain(self) -> Estimate:
        """The difference from the baseline with its interval; nothing for the baseline itself."""
        return self.comparison.estimate if self.comparison else (None, None, None)

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
    task: str = ""
    """Of several tasks."""


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
    failed: tuple[Failed, ...]
    data: tuple[Mapping[str, Any], ...]
    """What the trials trained on; one entry unless something is wrong."""
    environments: tuple[Mapping[str, Any], ...]
    """Distinct environments of finished trials, without the host's name."""
    environment_of: Mapping[str, tuple[int, ...]]
    """Arm to indices into `environments`."""
    choices: tuple[Choice, ...] = ()
    """What validation chose for the arms before the seeds; none where nothing was tuned."""
    verdicts: tuple[Verdict, ...] = ()
    """On the study's claims, in their order."""
    after: tuple[ArmAfter, ...] = ()
    """What was evaluated after training."""
    notes: tuple[tuple[str, int, str], ...] = ()
    """What trials went through, each with its arm and seed."""
    search: SearchOutcome | None = None
    """What the search for one arm's settings found."""
    settings: tuple[str, ...] = ()
    """What `--set` changed of the whole study, and in which arms not."""
    unasked: tuple[str, ...] = ()
    """Claims about arms that the profile leaves out."""
    changed: Changes = NO_CHANGES
    """What of claims, looks and seeds is not as it was before the first result."""
    looks: tuple[int, ...] = ()
    """After how many seeds claims are judged, where seeds are added until they are decided."""
    two_factors: TwoFactors | None = None
    """Where arms set two paths in every combination: both effects and the interaction."""
    best_steps: tuple[BestStep, ...] = ()
    """Of trials that are measured with the parameters of their best evaluation."""
    tasks: Mapping[str, "Outcome"] = field(default_factory=dict)
    """The same of each of several tasks, or of each part of one; no claims are judged there."""
    is_mean: bool = False
    """Whether the values of arms are means over `tasks`: no trial has them."""
    over_tasks: Mapping[str, Comparison] = field(default_factory=dict)
    """Arm to its difference from the baseline with `tasks` as the units."""

    @property
    def title(self) -> str:
        """What is compared."""
        return f"{self.metric}, mean over {len(self.tasks)} tasks" * self.is_mean or self.metric

    @property
    def better(self) -> str:
        """Which values are better: higher or lower."""
        return "higher" if self.direction == "maximize" else "lower"

    @property
    def chosen_on(self) -> str:
        """What choices are made on, each metric of several tasks once; empty where nothing is."""
        own = self.tasks.values() if self.is_mean else (self,)
        names = dict.fromkeys(f"`{each.select_on}`" for each in own if each.select_on)
        return " or ".join(names)

    def for_figures(self) -> "Outcome":
        """With the arms that figures show: of more than `DRAWN`, the baseline and the best."""
        if len(self.arms) <= DRAWN:
            return self
        sign = -1 if self.direction == "maximize" else 1
        known = [arm for arm in self.arms if arm.values and not arm.is_baseline]
        known.sort(key=lambda arm: sign * (arm.summary.mean or 0.0))
        best = {arm.name for arm in known[: DRAWN - 1]}
        return replace(self, arms=tuple(a for a in self.arms if a.is_baseline or a.name in best))

    @property
    def reference(self) -> Arm | None:
        """The baseline; None where no seed of it finished."""
        return next((arm for arm in self.arms if arm.is_baseline and arm.values), None)

    @property
    def majority(self) -> float | None:
        """Share of the most frequent class in the test set, where the task reports one."""
        shares = {d["majority"]["test"] for d in self.data if "test" in d.get("majority", {})}
        return shares.pop() if len(shares) == 1 and not self.is_mean else None

    @functools.cached_property
    def seeds(self) -> tuple[int, ...]:
        """Every seed that some arm ran."""
        own = {seed for arm in self.arms for seed in arm.keys}
        return tuple(sorted(own.union(*(task.seeds for task in self.tasks.values()))))


def collect(
    study: Study,
    pairs: Pairs,
    choices: Sequence[Choice] = (),
    search: SearchOutcome | None = None,
    read: Read | None = None,
) -> Outcome:
    """Gather `pairs` by arm; `choices` and `search` are what the stages before them found.

    `read` gives what trials have kept by row, None where the study keeps no predictions.

    Raises ValueError where two trials share arm, task and seed: their mean would count one twice.
    """
    several, on = bool(study.tasks), {}
    for name, objective in study.compared().items():
        own = [pair for pair in pairs if not several or pair[0].task == name]
        on[name] = _of(study, own, objective)
    if several:
        done = [pair for _, _, own in on.values() for pair in own]
        whole, known, _ = _of(study, means(study, pairs), study.objective_of(), done)
        results = ended_on_all(study, pairs, known)
        faults = (replace(f, task=name) for name, (own, *_) in on.items() for f in own.failed)
        arms = tuple(replace(arm, keys={}) for arm in whole.arms)  # no trial is one of them
        whole = replace(whole, is_mean=True, arms=arms, failed=tuple(faults), notes=())
    else:
        whole, results, _ = _of(study, pairs, study.objective)
    measured = {name: (own_results, own.metric) for name, (own, own_results, _) in on.items()}
    looks = [study.seeds[:size] for size in study.looks] if study.until_decided else ()
    verdicts = judge(study.claims, results, whole.metric, trend_points(study),
                     measured if several else {}, looks, read)  # fmt: skip
    tasks = {name: own for name, (own, *_) in on.items()}
    gains: dict[str, dict[str, float]] = {arm.name: {} for arm in whole.arms}
    for name, on_task in tasks.items():
        for arm in on_task.arms:
            if arm.gain[0] is not None:
                gains[arm.name][name] = arm.gain[0]
    # an arm without one on some task would be tested on other tasks than the others
    whole_gains = {arm: own for arm, own in gains.items() if len(own) == len(tasks) > 0}
    return replace(
        whole,
        choices=tuple(choices),
        search=search,
        settings=tuple(overrides.remarks(study)),
        unasked=study.unasked,
        verdicts=tuple(verdicts),
        looks=tuple(map(len, looks)),
        tasks=tasks,
        over_tasks=compare_over_tasks(whole_gains),
    )


def _of(
    study: Study, pairs: Pairs, objective: Objective, done: Pairs | None = None
) -> tuple[Outcome, dict[str, dict[int, Result]], Pairs]:
    """What `pairs`, one for each arm and seed, say by `objective`.

    Also all results by arm and seed, failed where they do not count, and the trials of those that
    do: those `done` where `pairs` are means of them.
    """
    metric, axis = objective.metric, _axis(study, pairs)
    name = None if study.published is None or not study.published.x else study.published.table
    table = None if name is None else published.get_table(name)
    runs = _by_arm(pairs)
    failed = [fault for pair in pairs if (fault := _fault(*pair, metric)) is not None]
    lost = {(fault.arm, fault.seed) for fault in failed}
    if done is None:
        done = [pair for pair in pairs if (pair[0].arm, pair[0].seed) not in lost]
    results = {
        arm: {seed: result for seed, (_, result) in own.items() if (arm, seed) not in lost}
        for arm, own in runs.items()
    }
    ended = {
        arm: {seed: results[arm].get(seed) or _failed(result) for seed, (_, result) in own.items()}
        for arm, own in runs.items()
    }
    fallen = collapsed(ended, metric)
    arms = _arms(study, metric, runs, results, table, axis, fallen)
    places = [(trial.arm, _without_host(result.environment)) for trial, result in done]
    environments = _distinct(place for _, place in places)
    outcome = Outcome(
        name=study.name,
        question=study.question,
        profile=study.profile,
        metric=metric,
        direction=objective.direction,
        select_on=objective.select_on,
        baseline=study.baseline,
        axis=axis,
        table=table,
        arms=arms,
        failed=tuple(failed),
        data=_distinct(result.data for _, result in done),
        environments=environments,
        environment_of={
            arm: tuple(i for i, each in enumerate(environments) if (arm, each) in places)
            for arm in results
        },
        after=gather({arm.name: results[arm.name] for arm in arms}, metric),
        notes=tuple((trial.arm, trial.seed, note) for trial, r in done for note in r.notes),
        two_factors=two_factors(
            {arm.name: arm.swept for arm in arms}, {arm.name: arm.values for arm in arms}
        ),
        best_steps=tuple(result.kept for _, result in done if result.kept is not None),
    )
    return outcome, ended, done


def _arms(
    study: Study,
    metric: str,
    runs: Mapping[str, Mapping[int, tuple[Trial, Result]]],
    results: Mapping[str, Mapping[int, Result]],
    table: published.Table | None,
    axis: str | None,
    fallen: Mapping[str, Collapsed],
) -> tuple[Arm, ...]:
    """The arms, the baseline first: all `runs` by arm and seed, and the `results` that count."""
    values = {
        arm: {seed: result.metrics[metric] for seed, result in own.items()}
        for arm, own in results.items()
    }
    comparisons = compare_arms(values, study.baseline)
    notes = {arm.name: arm.note for arm in study.arms}
    rows = {} if study.published is None else study.published.rows
    swept = {arm: next(iter(own.values()))[0].swept for arm, own in runs.items()}
    base = swept.get(study.baseline, {})
    others = (own for arm, own in swept.items() if arm != study.baseline)
    # the baseline has a place on the axis where another arm is the same but for that
    placed = axis in base and any({**own, axis: None} == {**base, axis: None} for own in others)
    arms = []
    for name in sorted(runs, key=lambda arm: arm != study.baseline):  # stable: as planned
        trials, own = [trial for trial, _ in runs[name].values()], results[name].values()
        is_baseline = name == study.baseline
        x = None if axis is None or (is_baseline and not placed) else setting(trials[0], axis)
        steps, epochs = steps_of(trials[0], next(iter(own), None))
        arms.append(
            Arm(
                name=name,
                swept=dict(swept[name]),
                is_baseline=is_baseline,
                values=values[name],
                summary=summarize(list(values[name].values())),
                comparison=comparisons.get(name),
                cost=median_cost([result.cost for result in own if result.cost]),
                published=figure(table, trials[0], is_baseline, rows.get(name, x)),
                keys={trial.seed: trial.key for trial in trials},
                x=x,
                note="; ".join(filter(None, (notes.get(name, ""), matched(own)))),
                steps=steps,
                epochs=epochs,
                collapsed=fallen.get(name),
            )
        )
    return tuple(arms)


def _by_arm(pairs: Pairs) -> dict[str, dict[int, tuple[Trial, Result]]]:
    """Arm to seed, ascending, to a trial with what it found."""
    arms: dict[str, dict[int, tuple[Trial, Result]]] = {trial.arm: {} for trial, _ in pairs}
    for trial, result in sorted(pairs, key=lambda pair: pair[0].seed):
        if trial.seed in arms[trial.arm]:
            raise ValueError(
                f"arm {trial.arm!r} has two trials with seed {trial.seed}: give one result for "
                "each arm and seed, the latest attempt"
            )
        arms[trial.arm][trial.seed] = trial, result
    return arms


def _axis(study: Study, pairs: Pairs) -> str | None:
    """The published table's axis, else the setting swept over most values."""
    if study.published is not None and study.published.x is not None:
        return study.published.x
    seen: dict[str, set[str]] = {}
    for trial, _ in pairs:
        if trial.arm != study.baseline:
            for path, value in trial.swept.items():
                seen.setdefault(path, set()).add(repr(value))
    return max(seen, key=lambda path: len(seen[path]), default=None)


def _without_host(environment: Mapping[str, Any]) -> dict[str, Any]:
    """`environment` but the machine's name, which says nothing to the reader of a report."""
    return {k: environment[k] for k in sorted(environment) if k != "host"}


def _distinct(values: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Those of `values` that hold something, each once, in their order."""
    return tuple({json.dumps(each, sort_keys=True): each for each in values if each}.values())


def _failed(result: Result) -> Result:
    """Of a trial that ended without a value: a look waits for no more of it."""
    return result if result.status == "failed" else Result(key=result.key, status="failed")


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
