"""What a study found, as tables of pandas: one row a trial, an arm or a claim."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from studies.engine.labels import flat
from studies.engine.planning.runs import trial_dir
from studies.engine.records import Cost, Result, Trial
from studies.engine.reporting.outcome import Arm, Outcome

TRIAL = ["arm", "task", "seed", "stage", "status"]
"""First columns of `trials`; settings, metrics and costs follow, and `ABOUT` last."""
ABOUT = ["seconds", "failure", "key", "folder"]
CLAIM = ["claim", "rule", "statistic", "verdict", "n", "look", "difference", "low", "high", "level",
         "resolution", "bound", "seeds_needed", "at_most", "task", "over", "finding", "note",
         "arms"]  # fmt: skip
"""Columns of `claims`."""


def trials(
    states: Sequence[tuple[Trial, str]], results: Mapping[str, Result | None], runs_dir: Path
) -> pd.DataFrame:
    """One row a trial: `states` says how far each is, and `results`, by key, what it found.

    Columns are `TRIAL`, the settings that some trial was swept or tuned by, by dotted path, metrics
    as results have them (`test/accuracy`), costs (`cost/step_seconds`), and `ABOUT`. What a trial
    has not is NaN.
    """
    swept = [flat({**trial.swept, **trial.candidate}) for trial, _ in states]
    paths = dict.fromkeys(path for own in swept for path in own)
    rows, metrics, costs = [], dict[str, None](), dict[str, None]()
    for trial, state in states:
        result, settings = results[trial.key], trial.settings
        measured = {} if result is None else result.metrics
        cost = _cost(None if result is None else result.cost)
        failure = None if result is None else result.failure
        metrics |= dict.fromkeys(measured)
        costs |= dict.fromkeys(cost)
        own = {path: settings[path] for path in paths if path in settings}
        first = (trial.arm, trial.task, trial.seed, trial.stage, state)
        last = (
            None if result is None else result.seconds,
            failure and f"{failure.kind}: {failure.message}",
            trial.key,
            str(trial_dir(trial, runs_dir)),
        )
        rows.append(
            dict(zip(TRIAL, first, strict=True))
            | {**own, **measured, **cost}
            | dict(zip(ABOUT, last, strict=True))
        )
    return _frame(rows, [*TRIAL, *paths, *metrics, *costs, *ABOUT])


def arms(outcome: Outcome) -> pd.DataFrame:
    """One row an arm, as in the report: `low` and `high` are the ends of the mean's interval.

    Of several tasks, or parts of one, each has rows of its own below those of the whole, whose
    `task` is empty. The baseline has no difference. Settings are those that an arm sets itself,
    costs medians over its seeds.
    """
    rows = [
        {"arm": arm.name, "task": name} | _arm(arm, own)
        for name, own in {"": outcome, **outcome.tasks}.items()
        for arm in own.arms
    ]
    keys = dict.fromkeys(key for row in rows for key in row)
    return _frame(rows, sorted(keys, key=lambda key: key.startswith("cost/")))


def claims(outcome: Outcome) -> pd.DataFrame:
    """One row a claim: `low` and `high` are the ends of the difference's interval at `level`."""
    rows = [asdict(verdict) | {"verdict": verdict.word} for verdict in outcome.verdicts]
    return _frame(rows, CLAIM)


def _arm(arm: Arm, outcome: Outcome) -> dict[str, Any]:
    difference, low, high = arm.gain
    compared, fallen = arm.comparison, arm.collapsed
    return {
        "n": arm.summary.n,
        "mean": arm.summary.mean,
        "std": arm.summary.std,
        "low": arm.summary.low,
        "high": arm.summary.high,
        "difference": difference,
        "difference_low": low,
        "difference_high": high,
        "p": compared and compared.p,
        "p_holm": compared and compared.p_holm,
        "finding": compared and compared.words(outcome.direction),
        "baseline": arm.is_baseline,
        "metric": outcome.metric,
        "collapsed": fallen and fallen.count,
        "published": arm.published and arm.published.mean,
        "published_difference": arm.published_difference,
        "note": arm.note,
        **flat(arm.swept),
        **_cost(arm.cost),
    }


def _cost(cost: Cost | None) -> dict[str, Any]:
    """By the names that claims have for them."""
    return {} if cost is None else {f"cost/{k}": v for k, v in cost.model_dump().items()}


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    frame = pd.DataFrame([dict(row) for row in rows], columns=list(columns))
    for name in frame.columns:
        if frame[name].isna().all():  # None cannot be compared with a number
            frame[name] = frame[name].astype(float)
    return frame
