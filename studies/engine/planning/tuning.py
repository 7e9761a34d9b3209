"""The stage before the seeds: every arm tries the same values, and validation chooses one.

`tune: {train.learning_rate: [1.0e-3, 4.0e-3], seeds: [100]}` runs arms × values × seeds as trials
like any other, takes for each arm the values with the best mean of `objective.select_on`, and only
then plans the seeds of the study with them. No arm gets more values or seeds than another, and the
test set is not looked at.
"""

import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from studies.engine import runs
from studies.engine.definition import checks, labels
from studies.engine.definition.points import SECTIONS, Point, Problems, is_choosable, set_path
from studies.engine.definition.study import Study
from studies.engine.records import Trial


@dataclass(frozen=True)
class Choice:
    """What validation chose for one arm."""

    arm: str
    settings: Mapping[str, Any]
    """Dotted settings; {} where no value gave a result, and the arm keeps the study's own."""
    scores: tuple[tuple[Mapping[str, Any], float | None], ...]
    """Each combination of values with its mean; None where a seed failed."""


def combinations(study: Study) -> list[dict[str, Any]]:
    """Every combination of the values to be tried; none where the study tunes nothing."""
    paths = [path for path in study.tune if path != "seeds"]
    if not paths:
        return []
    choices = itertools.product(*(study.tune[path] for path in paths))
    return [dict(zip(paths, choice, strict=True)) for choice in choices]


def tuned_points(study: Study, points: Sequence[Point]) -> Iterator[tuple[int, Point]]:
    """Seed and point of every trial of the stage."""
    if not study.tune:
        return
    for seed in study.tune["seeds"]:
        for settings in combinations(study):
            for point in points:
                yield seed, replace(apply(point, settings), arm=label(point.arm, settings))


def label(arm: str, settings: Mapping[str, Any]) -> str:
    """What an arm is called while it tries `settings`."""
    names = labels.short_names(settings)
    tried = " ".join(f"{names[path]}={labels.shown(value)}" for path, value in settings.items())
    return f"{arm} [{tried}]"


def arm_of(trial: Trial) -> str:
    """The arm that a trial of the stage is for; that of any other trial is its own."""
    return trial.arm.rpartition(" [")[0] if trial.arm.endswith("]") else trial.arm


def apply(point: Point, settings: Mapping[str, Any]) -> Point:
    """`point` with `settings`, which are part of its configuration, not of what it sweeps.

    Raises:
        pydantic.ValidationError: a value is not one that its section takes.
    """
    config = deepcopy(point.config)
    for path, value in settings.items():
        section, _, rest = path.partition(".")
        set_path(config[section], rest.split("."), value)
        if (model := SECTIONS[section]) is not None:
            config[section] = model.model_validate(config[section]).model_dump()
    return replace(point, config=config)


def choose(study: Study, trials: Sequence[Trial], runs_dir: Path) -> list[Choice]:
    """A choice for each arm of which every trial in the stage's `trials` has a result."""
    if not trials:
        return []
    metric = study.objective.select_on
    assert metric is not None, "refused when the study was read"
    values: dict[str, list[float | None]] = {}
    waiting = set()
    for trial in trials:
        result = runs.result_of(trial, runs_dir)
        if result is None:
            waiting.add(arm_of(trial))
        values.setdefault(trial.arm, []).append(runs.value_of(result, metric))
    tried = combinations(study)
    arms = dict.fromkeys(map(arm_of, trials))
    return [_choice(study, arm, tried, values) for arm in arms if arm not in waiting]


def check(
    study: Study, points: Sequence[Point], metrics: Mapping[str, str], problems: Problems
) -> None:
    """Report what the section `tune` cannot mean; `metrics` are those of the task."""
    if not study.tune:
        return
    for path, tried in study.tune.items():

        def problem(message: str, path: str = path) -> None:
            problems.add(study.place("tune", path), f"tune.{path}", message)

        if repeated := _repeated(list(map(labels.shown, tried))):
            problem(f"each once, got {', '.join(repeated)} repeatedly (at six digits)")
        if path == "seeds":
            if again := sorted(set(tried) & set(study.seeds)):
                numbers = ", ".join(map(str, again))
                problem(f"{numbers} of `seeds`: what is chosen must be tried anew")
            continue
        if not is_choosable(path, study.place("tune", path), f"tune.{path}", problems):
            continue
        for point in points:
            if path in point.swept:
                problem(f"the arm '{point.arm}' sets it itself: remove it there or here")
        for value in tried:
            for point in points if path.startswith("adapter.") else points[:1]:
                _try(point, path, value, problem)
    _check_metric(study, metrics, problems)


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if names.count(name) > 1]


def _try(point: Point, path: str, value: Any, problem: Callable[[str], None]) -> None:
    """Report a `value` that the arm cannot have."""
    try:
        tried = apply(point, {path: value})
        if path.startswith("adapter."):
            checks.check_adapter_options(dict(tried.config["adapter"]))
    except ValidationError as error:
        problem(f"{error.errors(include_url=False)[0]['msg']}, got {value!r}")
    except (ValueError, TypeError) as error:
        problem(f"the arm '{point.arm}' cannot have {value!r}: {error}")


def _check_metric(study: Study, metrics: Mapping[str, str], problems: Problems) -> None:
    """Report a metric that is none of validation, or whose better is the objective's worse."""
    metric = study.objective.select_on
    split, _, name = (metric or "").partition("/")
    message = ""
    if split == "test":
        return  # refused for every study
    if split != "valid":
        message = "tuning needs a validation metric, e.g. select_on: valid/accuracy"
    elif metrics.get(name, study.objective.direction) != study.objective.direction:
        message = (
            f"tuning takes the values that {study.objective.direction} it, but '{metric}' is to "
            f"{metrics[name]}: name a metric of the objective's direction"
        )
    if message:
        place = study.place("objective", "select_on") if metric else study.place("tune")
        problems.add(place, "objective.select_on", message)


def _choice(
    study: Study,
    arm: str,
    tried: Sequence[Mapping[str, Any]],
    values: Mapping[str, Sequence[float | None]],
) -> Choice:
    scores: list[tuple[Mapping[str, Any], float | None]] = []
    for settings in tried:
        scores.append((settings, mean(values[label(arm, settings)])))
    best = best_of([score for _, score in scores], study.objective.direction)
    return Choice(arm, {} if best is None else scores[best][0], tuple(scores))


def mean(values: Sequence[float | None]) -> float | None:
    """The score of values that were tried; None where a seed failed."""
    found = [value for value in values if value is not None]
    return statistics.fmean(found) if found and len(found) == len(values) else None


def best_of(scores: Sequence[float | None], direction: str) -> int | None:
    """Which of `scores` is the best, the first of equals; None where there is none."""
    sign = 1 if direction == "maximize" else -1
    known = [i for i, score in enumerate(scores) if score is not None]
    return max(known, key=lambda i: sign * scores[i], default=None)
