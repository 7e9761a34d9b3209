"""What a study may keep: `train.keep: best` needs a metric of validation to choose by."""

from collections.abc import Sequence

from studies.engine.definition.points import Point, Problems, place_of
from studies.engine.definition.study import Study

KEEP = "train.keep"


def check(study: Study, points: Sequence[Point], problems: Problems) -> None:
    """Report where the best evaluation is to be kept and nothing says which is the best."""
    if study.objective.select_on is not None:  # a metric of validation, else refused elsewhere
        return
    message = "best needs objective.select_on, e.g. select_on: valid/accuracy, to choose by"
    for point in points:
        if point.config["train"].get("keep") == "best":
            problems.add(place_of(study, KEEP, point.places), KEEP, message)
            return
    space = study.search.space if study.search is not None else {}
    for where, tried in ((("tune",), study.tune), (("search", "space"), space)):
        values = tried.get(KEEP)
        if isinstance(values, tuple) and "best" in values:
            problems.at(message, *where, KEEP)
