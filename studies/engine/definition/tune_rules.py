"""What the section `tune` may say: every arm can have every value, and validation chooses."""

import json
from collections.abc import Mapping, Sequence

from studies.engine import labels
from studies.engine.definition import checks
from studies.engine.definition.points import Point, Problems, apply, is_choosable, refusal
from studies.engine.definition.study import Study
from studies.engine.definition.task_rules import Metrics, common
from studies.engine.definition.tune import Tune
from studies.engine.records import deciding


def check(study: Study, points: Sequence[Point], metrics: Metrics, problems: Problems) -> None:
    """Report what the section `tune` cannot mean."""
    if study.tune is None:
        return
    for path, tried in {"seeds": study.tune.seeds, **study.tune.values}.items():
        where = ("tune", path)
        names = list(map(labels.short_value, tried))
        if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            problems.at(f"each once, got {', '.join(repeated)} repeatedly (at six digits)", *where)
    for key, own in (("seeds", study.tune.seeds), ("race", study.tune.race_seeds)):
        if again := sorted({*own} & {*study.seeds}):
            by = "comes to " * (key == "race")
            numbers = ", ".join(map(str, again))
            message = f"{by}{numbers} of `seeds`: what is chosen must be tried anew"
            problems.at(message, "tune", key)
    for path, tried in study.tune.values.items():
        where = ("tune", path)
        if not is_choosable(path, problems, *where):
            continue
        if study.match is not None and path == "adapter.r":
            problems.at("`match` chooses the rank: tune it or match it", *where)
        for point in points:
            if path in point.places and path not in point.factors:
                who = f"arm '{point.arm}'" if path in point.swept else f"task '{point.task}'"
                problems.at(f"the {who} sets it itself: remove it there or here", *where)
        beyond = study.tune.beyond(path)
        for value in (*tried, *beyond):
            by = f"`extend` comes to {labels.short_value(value)}: " if value in beyond else ""
            for point in points:
                said = f"the arm '{point.arm}' cannot have "
                if why := refusal(point, path, value, checks.check_adapter_options, said):
                    problems.at(f"{by}{why}", *where)
    for task in dict.fromkeys(task for _, task in metrics):
        _check_metric(study, task, common(metrics, task), problems)
    if not problems and any(point.factors for point in points):
        _check_apart(study.tune, points, problems)


def _check_apart(tune: Tune, points: Sequence[Point], problems: Problems) -> None:
    """Report arms of which one may come to be the other, as they have multiples of one value."""
    known: dict[str, tuple[Point, str]] = {}
    beyond = tune.further
    for settings in (*tune.listed, *beyond):
        for point in points:
            config = deciding(apply(point, settings).config)
            own = point, labels.short_settings(settings)
            other = known.setdefault(json.dumps(config, sort_keys=True, default=repr), own)
            if other[0].cell != point.cell:
                pair = " is ".join(f"'{each.arm}' with {tried}" for each, tried in (own, other))
                by = ", or lower `extend`" if settings in beyond else ""
                problems.at(f"{pair}: try values that are no such multiples of others{by}", "tune")
                return


def _check_metric(study: Study, task: str, metrics: Mapping[str, str], problems: Problems) -> None:
    """Report a metric that is none of validation, or whose better is the objective's worse."""
    metric = study.objective_of(task).select_on
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
