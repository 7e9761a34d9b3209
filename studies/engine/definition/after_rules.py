"""What the section `after` may ask for: what some arm has, at steps that its training has."""

from collections.abc import Mapping, Sequence

from studies.engine.definition import checks
from studies.engine.definition.points import Point, Problems
from studies.engine.definition.study import Study
from studies.engine.definition.train import Train, planned_steps


def check(
    study: Study, points: Sequence[Point], metrics: Mapping[str, str], problems: Problems
) -> None:
    """Report evaluations that no arm can have; `metrics` are those of the task."""
    if (after := study.after) is None:
        return
    quantised = any("quantization" in point.config["backbone"] for point in points)
    adapters = [(point.arm, checks.traits(point.config["adapter"])) for point in points]
    rules = {
        "para": (any(each.pruned for _, each in adapters), "adds a matrix to the weight"),
        "affine": (any(each.phi for _, each in adapters), "has a phi"),
    }
    for key, (fits, what) in rules.items():
        if getattr(after, key) and not fits:
            problems.at(f"no arm {what}", "after", key)
        if getattr(after, key) and quantised:
            message = "needs weights that are not quantised: remove backbone.quantization"
            problems.at(message, "after", key)
    other = [arm for arm, each in adapters if each.needs_weights]
    if after.spectra and quantised and other:
        message = f"the ranks of '{other[0]}' need weights that are not quantised: remove "
        problems.at(f"{message}backbone.quantization or the arm", "after", "spectra")
    if after.generalization and not metrics:
        problems.at("needs a metric that all arms report", "after", "generalization")
    if after.landscape is not None and "loss" not in metrics:
        problems.at("needs a task that reports a loss", "after", "landscape")
    known = ((point.arm, known_steps(point)) for point in points if after.steps)
    for arm, steps in known:
        if steps is not None and after.steps[-1] > steps:
            message = f"the training of the arm '{arm}' has {steps} steps, got {after.steps[-1]}"
            problems.at(f"{message}: leave it out, or train longer", "after", "spectra", "steps")
            break
    if after.steps_to:
        _check_evaluations(study, points, problems)


def _check_evaluations(study: Study, points: Sequence[Point], problems: Problems) -> None:
    """Report where no evaluation in the course of training tells when a value was reached."""
    where = ("after", "steps_to")
    if any(study.objective_of(point.task).select_on is None for point in points):
        message = "needs objective.select_on, e.g. select_on: valid/accuracy, whose value it is"
        problems.at(message, *where)
    for point in points:
        every, steps = point.config["train"]["eval_every"], known_steps(point)
        if every is None or (steps is not None and every >= steps):
            got = "none" if every is None else f"{every} of {steps} steps"
            message = f"needs evaluations before the end: set train.eval_every, got {got}"
            problems.at(f"{message} for the arm '{point.arm}'", *where)
            return


def known_steps(point: Point) -> int | None:
    """The most optimizer steps that the training of `point` can have; None where rows are known
    only once they are read."""
    settings = Train.model_validate(point.config["train"])
    rows = checks.training_rows(point.config["task"])
    return settings.max_steps if rows is None else planned_steps(settings, rows)
