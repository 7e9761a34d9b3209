"""The stage before the seeds: every arm tries the same values, and validation chooses one.

`tune: {train.learning_rate: [1.0e-3, 4.0e-3], seeds: [100]}` runs arms × values × seeds as trials
like any other, takes for each arm the values with the best mean of `objective.select_on`, and only
then plans the seeds of the study with them. No arm gets more values or seeds than another, and the
test set is not looked at.
"""

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from studies.engine import runs
from studies.engine.definition import checks, labels
from studies.engine.definition.points import SECTIONS, Point, Problems, check_path, set_path
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


def choose(study: Study, trials: Sequence[Trial], runs_dir: Path) -> list[Choice] | None:
    """A choice for each arm from the stage's `trials`; None while one of them has no result."""
    metric = study.objective.select_on
    assert metric is not None, "refused when the study was read"
    values: dict[str, list[float | None]] = {}
    for trial in trials:
        result = runs.result_of(trial, runs_dir)
        if result is None:
            return None
        values.setdefault(trial.arm, []).append(runs.value_of(result, metric))
    tried = combinations(study)
    arms = dict.fromkeys(trial.arm.rpartition(" [")[0] for trial in trials)
    return [_choice(study, arm, tried, values) for arm in arms]


def check(study: Study, points: Sequence[Point], problems: Problems) -> None:
    """Report what the section `tune` cannot mean."""
    if not study.tune:
        return
    for path, tried in study.tune.items():
        place = study.place("tune", path)
        if path == "seeds":
            continue
        if path.partition(".")[0] not in ("train", "adapter"):
            problems.add(place, f"tune.{path}", "expected a setting of `train` or `adapter`")
            continue
        for point in points:
            if path in point.swept:
                message = f"the arm '{point.arm}' sets it itself: remove it there or here"
                problems.add(place, f"tune.{path}", message)
        known = len(problems)
        check_path(path, place, f"tune.{path}", problems)
        if len(problems) > known:
            continue
        for value, point in itertools.product(tried, points):
            try:
                config = apply(point, {path: value}).config
                if path.startswith("adapter."):
                    checks.check_adapter(dict(config["adapter"]))
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                problems.add(place, f"tune.{path}", f"{first['msg']}, got {value!r}")
            except ValueError as error:
                message = f"arm '{point.arm}', {value!r}: {error}"
                problems.add(place, f"tune.{path}", message)
    if study.objective.select_on is None:
        message = "tuning needs a validation metric, e.g. select_on: valid/accuracy"
        problems.add(study.place("tune"), "objective.select_on", message)


def _choice(
    study: Study,
    arm: str,
    tried: Sequence[Mapping[str, Any]],
    values: Mapping[str, Sequence[float | None]],
) -> Choice:
    scores: list[tuple[Mapping[str, Any], float | None]] = []
    for settings in tried:
        found = [value for value in values[label(arm, settings)] if value is not None]
        whole = len(found) == len(study.tune["seeds"])
        scores.append((settings, statistics.fmean(found) if whole else None))
    known = [(score, settings) for settings, score in scores if score is not None]
    sign = 1 if study.objective.direction == "maximize" else -1
    best = max(known, key=lambda pair: sign * pair[0], default=(None, {}))
    return Choice(arm, best[1], tuple(scores))
