"""What `keep` and `train.keep: best` need of a study: scores by row, and a metric to choose by."""

from collections.abc import Sequence
from typing import Any

from studies import tasks
from studies.engine.definition.points import Point, Problems, place_of
from studies.engine.definition.study import Study

KEEP = "train.keep"
TOGETHER = (KEEP, "train.patience", "train.eval_every", "train.max_steps")
"""Settings of which not every value goes with every other where the best is kept."""


def check(study: Study, points: Sequence[Point], problems: Problems) -> None:
    """Report where the best evaluation is to be kept and nothing says which is the best, or where
    a stage before the seeds would try what is no training."""
    tries = [where for where, tried in study.chosen.items() if _has_best(tried.get(KEEP))]
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


def _has_best(tried: Any) -> bool:
    return isinstance(tried, tuple) and "best" in tried
