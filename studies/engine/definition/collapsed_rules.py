"""What a claim about collapsed runs, `metric: collapsed`, must be like to have an exact test."""

from collections.abc import Iterator, Sequence

from studies.engine.definition.points import Point
from studies.engine.definition.study import ClaimRule, Study
from studies.engine.definition.task_rules import Metrics
from studies.tasks.metrics import has_chance_level

COLLAPSED = "collapsed"
"""A claim's metric that no trial reports: the share of runs that fell to chance."""
_NO_MARGIN = (
    "two arms' shares of collapsed runs have no exact test with a margin: leave it out, say higher "
    "or lower, or compare each arm with a number"
)


def problems(
    claim: ClaimRule, study: Study, points: Sequence[Point], metrics: Metrics
) -> Iterator[tuple[str, str]]:
    """Keys of `claim` that are wrong, with why; it is about `points` that report `metrics`."""
    for key in ("contrast", "trend", "beyond", "relative", "than_metric"):
        if getattr(claim, key):
            message = "compares one arm with another or with a number: leave it out"
            yield key, f"a claim about collapsed runs {message}"
            return
    if claim.statistic == "median":
        yield "statistic", "runs that collapsed are counted, which has no median: leave it out"
    if isinstance(claim.than, str):
        for key in ("margin", "resolution"):
            if getattr(claim, key):
                yield key, _NO_MARGIN
    elif claim.than is not None and not 0 <= claim.than <= 1:
        yield "than", f"a share of runs is from 0 to 1, got {claim.than:g}"
    elif claim.than is not None:
        end = claim.than + claim.margin * (1 if claim.expect.endswith("higher") else -1)
        if not claim.expect.endswith("within") and not 0 <= round(end, 12) <= 1:
            yield "margin", f"a share of runs is from 0 to 1, and with the margin {end:g}"
        elif (end_of_all := _unreachable(claim, claim.than)) is not None:
            word = claim.expect.replace("_", " ")
            message = f"no number of runs shows a share that is {word} than {end_of_all:g}"
            yield "than", f"{message}: say near it, by `expect: within` and a `margin`"
    if study.tasks and claim.task is None:
        names = ", ".join(task.name for task in study.tasks)
        yield "metric", f"runs collapse on one task: say by `task` on which, of {names}"
        return
    lacking = [point for point in points if not has_chance_level(metrics[point.cell])]
    if lacking:
        name, known = lacking[0].config["task"]["name"], ", ".join(metrics[lacking[0].cell])
        message = (
            "a run is collapsed where its accuracy is that of always giving one answer, and the "
            f"task {name} has no such level ({known}): claim something of another metric"
        )
        yield "metric", message


def _unreachable(claim: ClaimRule, than: float) -> float | None:
    """The end of all shares, 0 or 1, beyond which `claim` wants the share to lie, if it does.

    `not_higher` is tested below the margin, and `not_lower` above it.
    """
    margin = claim.margin if claim.expect in ("higher", "not_higher") else -claim.margin
    if claim.expect in ("lower", "not_higher") and than + margin <= 0:
        return 0.0
    if claim.expect in ("higher", "not_lower") and than + margin >= 1:
        return 1.0
    return None
