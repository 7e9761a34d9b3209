"""What the section `claims` may name: arms that there are, and metrics that their trials report."""

from collections.abc import Iterator, Mapping, Sequence

from basis_zoo.registry import did_you_mean
from studies.engine.definition import checks, contrasts
from studies.engine.definition.points import Point, Problems
from studies.engine.definition.study import ClaimRule, Study
from studies.engine.definition.task_rules import COSTS, Metrics
from studies.engine.records import Cost
from studies.sections import unlike
from studies.tasks.metrics import has_chance_level

COLLAPSED = "collapsed"
"""A claim's metric that no trial reports: the share of runs that fell to chance."""


def check(
    study: Study,
    points: Sequence[Point],
    metrics: Metrics | None,
    problems: Problems,
    refused: bool,
) -> None:
    """Report claims that no trial could decide; `metrics` is None where a task is not usable.

    Where the file is `refused` already, claims that are not there may be those in error.
    """
    if study.until_decided and not study.claims and not refused:
        message = "the study has no `claims`, so that nothing is to be decided: add some, or list"
        problems.at(f"{message} the seeds", "seeds", "until")
    rules = [claim.model_copy(update={"claim": ""}) for claim in study.claims]
    for i, claim in enumerate(study.claims):
        if (first := rules.index(rules[i])) < i:
            message = f"the same rule as claims[{first}], which would take its share of the error"
            problems.at(f"{message} twice: leave one out", "claims", i)
        if claim.task is not None and claim.task not in (names := [t.name for t in study.tasks]):
            message = "the study has one task alone: leave it out"
            if names:
                message = unlike(f"no task is called '{claim.task}'", claim.task, names, "Tasks")
            problems.at(message, "claims", i, "task")
            continue
        meant = [point for point in points if claim.task in (None, point.task)]
        own = list({point.arm: point for point in meant[::-1]}.values())[::-1]  # each arm once
        wrong = list(contrasts.problems(claim, own))
        if claim.trend and study.tune and claim.trend.over in study.tune.values:
            wrong.append((("trend", "over"), "`tune` chooses it: nobody knows yet what arms have"))
        for where, message in wrong:
            problems.at(message, "claims", i, *where)
        if wrong or metrics is None:
            continue
        if claim.metric == COLLAPSED:
            for key, message in _about_collapsed(claim, study, meant, metrics):
                problems.at(message, "claims", i, key)
            continue
        for key, message in _in_points(claim, study):
            problems.at(message, "claims", i, key)
        for key, metric, named in _compared(claim, own):
            have = {p.cell: reported(study, p, metrics[p.cell]) for p in meant}
            short = [cell for cell, known in have.items() if metric not in known]
            if lacking := [cell for cell in short if cell[0] in named]:
                every = [name for known in have.values() for name in known]
                problems.at(_refusal(metric, *lacking[0], every), "claims", i, key)


def reported(study: Study, point: Point, metrics: Mapping[str, str]) -> list[str]:
    """Every metric that a trial of `point` has, where its task has `metrics`; costs as well."""
    adapter = point.config["adapter"]
    names = ["train/loss", *(f"{split}/{name}" for split in ("valid", "test") for name in metrics)]
    names += [*checks.monitored(adapter), *COSTS]
    if study.after is not None:
        names += study.after.names(metrics, **checks.traits(adapter)._asdict())
    return names


def _compared(claim: ClaimRule, points: Sequence[Point]) -> Iterator[tuple[str, str, list[str]]]:
    """The keys of `claim` that name a metric, with it and the arms that must have it."""
    terms = contrasts.weighted_sum(claim, points).terms
    for key in ("metric", "than_metric"):
        metric = getattr(claim, key)
        arms = [t.of for t in terms if isinstance(t.of, str) and t.metric == metric]
        if metric is not None:
            yield key, metric, arms


def _about_collapsed(
    claim: ClaimRule, study: Study, points: Sequence[Point], metrics: Metrics
) -> Iterator[tuple[str, str]]:
    """Keys of a `claim` about collapsed runs without an exact test, with why; it is about `points`
    that report `metrics`."""
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
                message = "two arms' shares of collapsed runs have no exact test with a margin"
                remedy = "leave it out, say higher or lower, or compare each arm with a number"
                yield key, f"{message}: {remedy}"
    elif claim.than is not None and not 0 <= claim.than <= 1:
        yield "than", f"a share of runs is from 0 to 1, got {claim.than:g}"
    elif claim.than is not None and not claim.expect.endswith("within"):
        end = claim.than + claim.margin * (1 if claim.expect.endswith("higher") else -1)
        # `not_higher` is tested below the end, and `not_lower` above it
        none_below = claim.expect in ("lower", "not_higher") and end <= 0
        none_above = claim.expect in ("higher", "not_lower") and end >= 1
        if not 0 <= round(end, 12) <= 1:
            yield "margin", f"a share of runs is from 0 to 1, and with the margin {end:g}"
        elif none_below or none_above:
            than = f"{claim.expect.replace('_', ' ')} than {int(none_above)}"
            message = f"no number of runs shows a share that is {than}"
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


def _in_points(claim: ClaimRule, study: Study) -> Iterator[tuple[str, str]]:
    """Keys of `claim` that are in points where the metric is a share, with how to say it."""
    metric = claim.metric or study.objective_of(claim.task or "").metric
    name = metric.rpartition("/")[2]
    if claim.contrast or claim.trend or not (name.startswith("accuracy") or name.endswith("f1")):
        return
    for key in ("than",) if claim.relative else ("than", "margin", "resolution"):
        given = getattr(claim, key)
        if isinstance(given, float | int) and (given > 1 or (given == 1 and key != "than")):
            yield key, f"{metric} is from 0 to 1, got {given:g}: a point is 0.01"


def _refusal(metric: str, arm: str, task: str, known: Sequence[str]) -> str:
    known = list(dict.fromkeys(known))
    section, _, name = metric.partition("/")
    if metric in known and task:
        return (
            f"on the task '{task}' the arm '{arm}' reports no '{metric}': name a metric that it "
            "has on all tasks, or by `task` one where it has this one"
        )
    if metric in known:
        return f"the trials of the arm '{arm}' report no '{metric}': name an arm that has it"
    if section == "cost":
        return unlike(f"no cost is called '{name}'", name, Cost.model_fields, "Costs")
    if section == "after":
        after = [name for name in known if name.startswith("after/")]
        hint = did_you_mean(metric, after) or " Ask for it in the section `after`"
        return f"nothing measures '{metric}'.{hint}"
    listed = [name for name in known if not name.startswith(("cost/", "after/"))]
    listed += [COLLAPSED, "cost/<field>", "after/<evaluation>/..."]
    hint = did_you_mean(name if name == COLLAPSED else metric, [*known, COLLAPSED])
    return f"no trial reports '{metric}'.{hint} Metrics: {', '.join(listed)}"
