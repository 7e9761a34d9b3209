"""What the sections `train` and `keep` need: a metric to choose by, scores by row, a phi."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from basis_zoo.registry import unknown
from studies import tasks
from studies.engine.definition import checks, saved_phi
from studies.engine.definition.points import Point, Problems, apply, place_of
from studies.engine.definition.sections import Range
from studies.engine.definition.study import Study
from studies.engine.definition.train import Train

KEEP = "train.keep"
TOGETHER = (KEEP, "train.patience", "train.eval_every", "train.max_steps")
"""Settings of which not every value goes with every other where the best is kept."""

LOAD = "load_phi"
NEEDS = {
    "phi_rate": "trained phi",
    "phi_from": "trained phi",
    "phi_until": "trained phi",
    "bandwidth_to": "bandwidths",
    "input_scale_to": "fixed input scale",
    LOAD: LOAD,
}
"""What settings of `train` need of an adapter where they are not the default."""


def check_best(study: Study, points: Sequence[Point], problems: Problems) -> None:
    """Report where the best evaluation is to be kept and nothing says which is the best, or where
    a stage before the seeds would try what is no training."""
    kept = {where: tried.get(KEEP) for where, tried in study.chosen.items()}
    tries = [where for where, each in kept.items() if isinstance(each, tuple) and "best" in each]
    keeps = [point for point in points if point.config["train"].get("keep") == "best"]
    lost = [point for point in points if study.objective_of(point.task).select_on is None]
    if lost:  # another metric than of validation is refused elsewhere
        message = "best needs objective.select_on, e.g. select_on: valid/accuracy, to choose by"
        for where in tries:
            problems.at(message, *where, KEEP)
        for point in [point for point in keeps if point in lost][:1]:
            problems.add(place_of(study, KEEP, point.places), KEEP, message)
    for where, tried in study.chosen.items() if tries or keeps else ():
        if len(both := [path for path in TOGETHER if path in tried]) > 1:
            message = f"with train.keep: best, choose one of {', '.join(both)} and set the others"
            problems.at(message, *where, both[0])


def check_predictions(study: Study, points: Sequence[Point], problems: Problems) -> None:
    """Report where predictions are to be kept of tasks, all usable, without means over rows."""
    if "predictions" not in study.keep:
        return
    infos = [tasks.check(point.config["task"]) for point in points]
    if infos and not any(info.has_row_means for info in infos):
        names = ", ".join(dict.fromkeys(info.name for info in infos))
        problems.at(
            f"predictions: no metric of {names} is a mean over test rows, so no row has a score: "
            "leave it out, claims are tested over seeds alone",
            "keep",
        )


def check_phi(study: Study, points: Sequence[Point], problems: Problems) -> None:
    """Report penalties that there are not, and settings of phi that an arm has no use for, also
    among the values that a stage before the seeds tries."""
    for point in points:
        for setting, need in _asked(point.config["train"]):
            key = f"train.{setting}"
            if why := _refusal(point, setting, need):
                problems.add(place_of(study, key, point.places), key, why)
    for where, path, point in _tried(study, points):
        for setting, need in _asked(point.config["train"]) if not problems else ():
            if why := _refusal(point, setting, need):
                problems.at(why, *where, path)


def _asked(train: dict[str, Any]) -> list[tuple[str, str]]:
    """The settings of `train` that ask something of phi, and the need or penalty of each."""
    penalties = [(f"penalties.{name}", name) for name in train.get("penalties", {})]
    defaults = Train.model_fields
    return penalties + [
        (name, need) for name, need in NEEDS.items() if train[name] != defaults[name].default
    ]


def _refusal(point: Point, setting: str, need: str) -> str | None:
    if setting == LOAD:
        return _not_loadable(point)
    known = checks.words()["names"]["penalty"]
    if setting not in NEEDS and need not in known:
        return unknown("penalty", need, known) + checks.OWN
    why = checks.lacks(point.config["adapter"], need)
    return why and (
        f"the adapter of the arm '{point.arm}' has {why}; or set this in those arms alone that "
        "have it, by `set`"
    )


def _not_loadable(point: Point) -> str | None:
    """Why the arm cannot begin with the phi that its `train` names."""
    given = point.config["train"][LOAD]
    try:
        place = saved_phi.folder(given)
    except ValueError as error:
        return str(error)
    why = checks.phi_refusal(point.config["adapter"], str(place), saved_phi.content(given))
    return why and f"the adapter of the arm '{point.arm}' has {why}"


def _tried(study: Study, points: Sequence[Point]) -> Iterator[tuple[tuple[str, ...], str, Point]]:
    """The arms with each value that a stage tries on them, and where that stands."""
    searched = [p for p in points if study.search is not None and p.arm == study.search.arm]
    for where, tried in study.chosen.items():
        arms = points if where == ("tune",) else searched
        for path, domain in tried.items():
            values = (domain.high,) if isinstance(domain, Range) else domain
            asks = path.partition(".")[2].partition(".")[0] in ("penalties", *NEEDS)
            for point in arms:
                for value in values if asks or _asked(point.config["train"]) else ():
                    try:
                        yield where, path, apply(point, {path: value})
                    except (ValidationError, ValueError, KeyError):
                        continue  # said by the stage's own rules
