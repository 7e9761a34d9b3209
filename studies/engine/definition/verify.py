"""Ask for every point of a study, before anything runs, whether it can be built."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from basis_zoo.registry import did_you_mean
from studies.engine.definition import checks, published
from studies.engine.definition.points import Point, Problems, expand, place_of
from studies.engine.definition.study import Study
from studies.engine.planning import tuning
from studies.engine.records import Cost, deciding
from studies.engine.searching import search


def points_of(study: Study, refused: bool = False) -> tuple[list[Point], list[str]]:
    """The arms of `study`, and every problem found in resolving and checking them.

    Where the file is `refused` already, the check that takes long (fitting starts) is left out.
    """
    points, problems = expand(study)
    _check_names(study, points, problems)
    for point in points:
        _ask(study, point, "backbone", checks.check_backbone, problems)
        _ask(study, point, "adapter", checks.check_adapter_options, problems)
    metrics = _check_task(study, points, problems)
    if metrics is not None:
        _check_objective(study, metrics, problems)
    _check_published(study, points, problems)
    _check_claims(study, points, problems)
    if points and metrics is not None and not problems:
        _check_after(study, points, metrics, problems)
        search.check(study, points, metrics, problems)
        tuning.check(study, points, metrics, problems)
    if not problems and not refused:
        for point in points:
            _ask(study, point, "adapter", checks.check_adapter, problems)
    return points, list(problems)


def _check_names(study: Study, points: list[Point], problems: Problems) -> None:
    """Report arms that share a name or a configuration, and a baseline that is no arm."""
    by_name: dict[str, Point] = {}
    by_config: dict[str, Point] = {}
    resolved = not problems  # settings in error are left out, and make arms alike
    for point in points:
        twin = by_name.setdefault(point.arm, point)
        same = by_config.setdefault(_canonical(deciding(point.config)), point)
        if twin is not point and same is point:
            problems.add(point.place, "arms", f"two arms are called '{point.arm}'; rename one")
        if same is not point and resolved:
            message = f"'{same.arm}' and '{point.arm}' are the same point; remove one"
            problems.add(point.place, "arms", message)
    if study.baseline not in by_name and not (problems and not points):
        hint = did_you_mean(study.baseline, by_name)
        message = f"no arm is called '{study.baseline}'.{hint} Arms: {', '.join(by_name)}"
        problems.add(study.place("baseline"), "baseline", message)


def _canonical(config: Any) -> str:
    return json.dumps(config, sort_keys=True, default=repr)


def _check_task(study: Study, points: list[Point], problems: Problems) -> Mapping[str, str] | None:
    """The metrics that every point's task reports; None where some task is not usable."""
    answers = [_ask(study, point, "task", checks.check_task, problems) for point in points]
    if not answers or any(answer is None for answer in answers):
        return None
    return {
        name: better
        for name, better in answers[0].items()
        if all(name in answer for answer in answers)
    }


def _check_objective(study: Study, metrics: Mapping[str, str], problems: Problems) -> None:
    known = {f"{split}/{name}": metrics[name] for split in ("test", "valid") for name in metrics}
    for key in ("metric", "select_on"):
        given = getattr(study.objective, key)
        if given is not None and given not in known:
            hint = did_you_mean(given, known)
            message = f"the task reports no '{given}'.{hint} Known: {', '.join(known)}"
            problems.add(study.place("objective", key), f"objective.{key}", message)
        elif key == "select_on" and given is not None and given.startswith("test/"):
            message = f"choices are made on validation, never on test: valid/{given[5:]}"
            problems.add(study.place("objective", key), f"objective.{key}", message)
    better = known.get(study.objective.metric, study.objective.direction)
    if better != study.objective.direction:
        message = f"'{study.objective.metric}' is to {better}, got {study.objective.direction}"
        problems.add(study.place("objective", "direction"), "objective.direction", message)


def _check_published(study: Study, points: list[Point], problems: Problems) -> None:
    if study.published is None:
        return
    try:
        published.check(study.published.table, study.objective.metric)
    except ValueError as error:
        problems.add(study.place("published", "table"), "published.table", str(error))
    known = list(dict.fromkeys(path for point in points for path in point.swept))
    if study.published.x not in known:
        hint = did_you_mean(study.published.x, known)
        message = f"no arm varies '{study.published.x}'.{hint} Varied: {', '.join(known)}"
        problems.add(study.place("published", "x"), "published.x", message)


def _check_claims(study: Study, points: list[Point], problems: Problems) -> None:
    """Report claims about arms or costs that there are not."""
    arms = [point.arm for point in points]
    for i, claim in enumerate(study.claims):
        named: list[tuple[tuple[str, ...], str | float]] = [
            (("arm",), claim.arm),
            (("than",), claim.than),
        ]
        if claim.beyond is not None:
            named += [
                (("beyond", "arm"), claim.beyond.arm),
                (("beyond", "than"), claim.beyond.than),
            ]
        for where, arm in named:
            if isinstance(arm, str) and arm not in arms:
                message = f"no arm is called '{arm}'.{did_you_mean(arm, arms)} Arms: "
                place = study.place("claims", i, *where)
                key = f"claims[{i}].{'.'.join(where)}"
                problems.add(place, key, message + ", ".join(arms))
        for key in ("metric", "than_metric"):
            section, _, name = (getattr(claim, key) or "").partition("/")
            if section == "cost" and name not in Cost.model_fields:
                known = ", ".join(Cost.model_fields)
                message = f"no cost is called '{name}'.{did_you_mean(name, Cost.model_fields)}"
                place = study.place("claims", i, key)
                problems.add(place, f"claims[{i}].{key}", f"{message} Costs: {known}")


def _check_after(
    study: Study, points: list[Point], metrics: Mapping[str, str], problems: Problems
) -> None:
    """Report evaluations after training that no arm can have, and claims about others."""
    after = study.after
    if after is not None:
        quantised = any("quantization" in point.config["backbone"] for point in points)
        asked = [
            ("para", after.para is not None, checks.can_be_pruned, "adds a matrix to the weight"),
            ("affine", after.affine, checks.has_phi, "has a phi"),
        ]
        for key, wanted, fits, what in asked:
            if wanted and not any(fits(point.config["adapter"]) for point in points):
                problems.add(study.place("after", key), f"after.{key}", f"no arm {what}")
            if wanted and quantised:
                message = "needs weights that are not quantised: remove backbone.quantization"
                problems.add(study.place("after", key), f"after.{key}", message)
        if after.landscape is not None and "loss" not in metrics:
            place = study.place("after", "landscape")
            problems.add(place, "after.landscape", "needs a task that reports a loss")
    known = after.names(metrics) if after is not None else []
    for i, claim in enumerate(study.claims):
        for key in ("metric", "than_metric"):
            name = getattr(claim, key) or ""
            if name.startswith("after/") and name not in known:
                hint = did_you_mean(name, known) or " Ask for it in the section `after`"
                message = f"nothing measures '{name}'.{hint}"
                problems.add(study.place("claims", i, key), f"claims[{i}].{key}", message)


def _ask(
    study: Study,
    point: Point,
    section: str,
    check: Callable[[dict[str, Any]], Any],
    problems: Problems,
) -> Any:
    """What `check` says of the point's `section`; its refusal becomes a problem with a place."""
    given = point.config[section]
    if section in point.refused or not isinstance(given, dict):
        return None  # reported when the point was resolved
    try:
        return check(dict(given))
    except Exception as error:  # a room's mistake about strange input is the reader's input too
        message = (
            str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        )
        own = [path.partition(".")[2] for path in point.places if path.startswith(f"{section}.")]
        blamed = _blamed(message, given, own)
        key = f"{section}.{blamed}" if blamed else section
        place = place_of(study, key, point.places) if blamed else _first(point, section, study)
        problems.add(place, key, message)
        return None


def _first(point: Point, section: str, study: Study) -> str:
    """Where the arm touches `section`, or where the study does."""
    touched = (place for path, place in point.places.items() if path.startswith(section))
    return next(touched, study.place(section))


def _blamed(message: str, options: Mapping[str, Any], own: list[str]) -> str | None:
    """The option that `message` speaks of.

    One that it names as an option or in backticks, else a quoted one that the arm itself sets
    (`own`), else one whose value it quotes, else any quoted one.
    """
    quoted = re.findall(r"['\"]([^'\"]+)['\"]", message)
    named = re.findall(r"option ['\"]([^'\"]+)['\"]", message) + re.findall(r"`([^`]+)`", message)
    by_value = [k for q in quoted for k, v in options.items() if isinstance(v, str) and v == q]
    mine = [name for name in quoted if name in own]
    candidates = [*named, *mine, *by_value, *quoted]
    return next((name for name in candidates if name in options), None)
