"""What a study asks of its tasks: metrics that they report, and a mean that means something."""

from collections.abc import Iterator, Mapping

from studies.engine.definition.points import Problems
from studies.engine.definition.study import Study
from studies.engine.records import Cost
from studies.sections import unlike

Metrics = Mapping[tuple[str, str], Mapping[str, str]]
"""The metrics that each arm reports on each task, and which way is better."""
COSTS = tuple(f"cost/{name}" for name in Cost.model_fields)
"""What every trial reports beside them."""


def check_objectives(study: Study, metrics: Metrics, problems: Problems) -> None:
    """Report what is compared or chosen by and not reported, and a mean of unlike metrics."""
    for task in dict.fromkeys(task for _, task in metrics):
        own = common(metrics, task)
        known = {f"{split}/{name}": way for split in ("test", "valid") for name, way in own.items()}
        for where, message in _refused(study, task, known):
            problems.at(message, *where)
    if study.tasks:
        _check_mean(study, problems)


def common(metrics: Metrics, task: str | None = None) -> dict[str, str]:
    """The metrics that all arms report on `task`, or without one on all tasks."""
    first, *others = (each for (_, on), each in metrics.items() if task in (None, on))
    return {name: way for name, way in first.items() if all(name in each for each in others)}


def _refused(
    study: Study, task: str, known: Mapping[str, str]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Why what is compared on `task`, which reports `known`, cannot be, and where it is said."""
    objective = study.objective_of(task)
    i = next((i for i, each in enumerate(study.tasks) if each.name == task), None)
    for key in ("metric", "select_on"):
        given = getattr(objective, key)
        own = i is not None and getattr(study.tasks[i], key) is not None
        where: tuple[str | int, ...] = (
            ("objective", key) if i is None else ("tasks", i, *([key] if own else []))
        )
        if given is not None and given not in known:
            who = "the task" if i is None else f"the task '{task}'"
            message = unlike(f"{who} reports no '{given}'", given, known)
            yield where, message if own or i is None else f"{message}; give it its own `{key}`"
        elif key == "select_on" and given is not None and given.startswith("test/"):
            message = f"choices are made on validation, never on test: valid/{given[5:]}"
            yield where, message
    better = known.get(objective.metric, objective.direction)
    if better != objective.direction:
        wrong_way = f"'{objective.metric}' is to {better}, got {objective.direction}"
        if i is None:
            yield ("objective", "direction"), wrong_way
        else:
            more = "all tasks of a study have one direction, or there is no mean over them"
            yield ("tasks", i), f"{wrong_way}: {more}"
    for j, part in enumerate(objective.parts):
        if known.get(part) != objective.direction:
            message = unlike(f"the task reports no '{part}' to {objective.direction}", part, known)
            yield ("objective", "parts", j), message


def _check_mean(study: Study, problems: Problems) -> None:
    """Report tasks of which the mean would be one of unlike numbers."""
    if study.objective.parts:
        problems.at("are of one task: remove them or `tasks`", "objective", "parts")
    if study.search is not None:
        problems.at(
            "a search is about one task: search with `task: NAME` in a study of its own and give "
            "the arm what it finds, or `tune` every arm here, which is done on each task", "search"
        )  # fmt: skip
    of = {task.name: study.objective_of(task.name).metric for task in study.tasks}
    if len(set(of.values())) > 1 and not study.objective.mixed:
        listed = ", ".join(f"{metric} of {name}" for name, metric in of.items())
        problems.at(
            f"the mean over tasks would be one of different metrics ({listed}): say so by "
            "objective.mixed: true, or give all tasks one metric", "tasks"
        )  # fmt: skip
