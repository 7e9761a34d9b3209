"""Ask for every point of a study, before anything runs, whether it can be built."""

import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from studies import backbones, published
from studies.engine.definition import (
    after_rules,
    checks,
    claim_rules,
    overrides,
    search_rules,
    task_rules,
    train_rules,
    tune_rules,
)
from studies.engine.definition.points import Point, Problems, expand, no_arm, place_of
from studies.engine.definition.study import Study
from studies.engine.labels import short_value
from studies.engine.records import deciding
from studies.sections import unlike


def problems_of(study: Study, refused: bool = False) -> list[str]:
    """Every problem found in resolving and checking the arms of `study`.

    Where the file is `refused` already, or a name in it is wrong, the checks that need torch are
    left out: what they say is said once the rest is right.
    """
    points, problems = expand(study)
    _check_names(study, points, problems)
    overrides.check(study, points, problems)
    for point in points:
        _ask(study, point, "backbone", backbones.check, problems)
        _ask(study, point, "adapter", checks.check_adapter_names, problems)
    answers = {p.cell: _ask(study, p, "task", checks.check_task, problems) for p in points}
    by_cell = answers if answers and None not in answers.values() else None
    metrics = None if by_cell is None else task_rules.common(by_cell)
    if by_cell is not None:
        task_rules.check_objectives(study, by_cell, problems)
        train_rules.check_predictions(study, points, problems)
    _check_published(study, points, problems)
    claim_rules.check(study, points, by_cell, problems, refused)
    train_rules.check_best(study, points, problems)
    if not problems and not refused:
        for point in points:
            _ask(study, point, "adapter", checks.check_adapter_options, problems)
        train_rules.check_phi(study, points, problems)
    if points and metrics is not None and not problems:
        after_rules.check(study, points, metrics, problems)
        search_rules.check(study, points, metrics, problems)
        tune_rules.check(study, points, by_cell or {}, problems)
    if not problems and not refused:
        for point in points:
            _ask(study, point, "adapter", checks.check_adapter, problems)
        _check_models(study, points, problems)
    return list(problems)


def _check_models(study: Study, points: list[Point], problems: Problems) -> None:
    """Report backbones that do not fit their task, and names of modules that they have not.

    Arms that differ in numbers alone find the same modules: one of them is asked for all. Without
    a phi, whose numbers are checked by now, a number may also be too large for the modules.
    """
    checked: set[str] = set()
    for point in points:
        backbone, task, adapter = (point.config[s] for s in ("backbone", "task", "adapter"))
        phi = checks.traits(adapter).phi
        words = [
            {key: value for key, value in section.items() if type(value) not in (int, float)}
            for section in ((task, adapter) if phi else (task,))
        ]
        whole = {} if phi else adapter
        alike = json.dumps([backbone, whole, words], sort_keys=True, default=repr)
        if alike in checked:
            continue
        checked.add(alike)
        fits = functools.partial(checks.check_fit, task)
        if _ask(study, point, "backbone", fits, problems):
            has_modules = functools.partial(checks.check_modules, backbone, task)
            _ask(study, point, "adapter", has_modules, problems)


def _check_names(study: Study, points: list[Point], problems: Problems) -> None:
    """Report arms that share a name or a configuration, and a baseline that is no arm."""
    by_name: dict[tuple[str, str], Point] = {}
    by_config: dict[str, Point] = {}
    resolved = not problems  # settings in error are left out, and make arms alike
    for point in points:
        content = json.dumps(deciding(point.config), sort_keys=True, default=repr)
        twin = by_name.setdefault(point.cell, point)
        same = by_config.setdefault(content, point)
        if twin is not point and same is point:
            problems.add(point.place, "arms", f"two arms are called '{point.arm}'; rename one")
        if same is not point and resolved:
            on = [f" on '{each.task}'" if each.task else "" for each in (same, point)]
            alike = f"'{same.arm}'{on[0]} and '{point.arm}'{on[1]} are the same point"
            given = "".join(f" --set {k}={short_value(v)}" for k, v in study.set.items())
            other = f" with{given}; set something else, or" if given else ";"
            problems.add(point.place, "arms", f"{alike}{other} remove one")
    arms = dict.fromkeys(point.arm for point in points)
    if study.baseline not in arms and not (problems and not points):
        left_out = study.baseline in study.exclude
        message = f"`exclude` leaves '{study.baseline}' out: keep it, or name another arm"
        problems.at(message if left_out else no_arm(study.baseline, arms), "baseline")


def _check_published(study: Study, points: list[Point], problems: Problems) -> None:
    if study.published is None:
        return
    name, part = study.published.table, study.published.part
    try:
        ablations = published.tables()
        if name in published.other_tables() or (
            study.published.x is None and name not in ablations
        ):
            published.printed(name, part)
            for key in ("x", "rows"):
                if getattr(study.published, key):
                    message = f"{name} is shown as it is printed, beside no arm: leave it out"
                    problems.at(message, "published", key)
            return
        published.check(name, study.objective_of().metric)
        values = published.get_table(name).values
    except ValueError as error:
        problems.at(str(error), "published", "table")
        return
    if study.tasks or part is not None or study.published.x is None:
        message = f"{name} is of one task and has no parts: give the swept setting `x` alone"
        problems.at(message, "published", "table")
        return
    arms = [point.arm for point in points]
    for arm, value in study.published.rows.items():
        if arm not in arms:
            problems.at(no_arm(arm, arms), "published", "rows", arm)
        if value is not None and value not in values:
            has = ", ".join(map(short_value, values))
            problems.at(f"no row for {short_value(value)}; it has {has}", "published", "rows", arm)
    x, known = study.published.x, dict.fromkeys(path for point in points for path in point.swept)
    if x not in known:
        problems.at(unlike(f"no arm varies '{x}'", x, known, "Varied"), "published", "x")


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
        named = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        message = f"{named}{error}".removeprefix(f"{section}: ")
        own = [path.partition(".")[2] for path in point.places if path.startswith(f"{section}.")]
        blamed = _blamed(message, given, own)
        key = f"{section}.{blamed}" if blamed else section
        touched = (place for path, place in point.places.items() if path.startswith(section))
        first = next(touched, study.place(section))
        problems.add(place_of(study, key, point.places) if blamed else first, key, message)
        return None


def _blamed(message: str, options: Mapping[str, Any], own: list[str]) -> str | None:
    """The option that `message` speaks of.

    One that it names as an option or in backticks, else a quoted one that the arm itself sets
    (`own`), else one whose value it quotes, else any quoted one.
    """
    quoted = re.findall(r"['\"]([^'\"]+)['\"]", message.partition(" Did you mean ")[0])
    named = re.findall(r"option ['\"]([^'\"]+)['\"]", message) + re.findall(r"`([^`]+)`", message)
    by_value = [k for q in quoted for k, v in options.items() if isinstance(v, str) and v == q]
    mine = [name for name in quoted if name in own]
    candidates = [*named, *mine, *by_value, *quoted]
    return next((name for name in candidates if name in options), None)
