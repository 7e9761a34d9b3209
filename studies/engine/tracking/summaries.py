"""What MLflow's run of an arm holds: its answer, in numbers that are rounded to be read.

The whole numbers are in report.json, and in the runs of the arm's trials.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from studies.engine.reporting.outcome import Arm, Outcome
from studies.engine.reporting.tables import interval
from studies.engine.tracking import mlflow_client
from studies.engine.tracking.contents import RUN_NAME, TAG, Point, accepted, cut, settings
from studies.engine.tracking.view import DIFFERENCE, INTERVAL, on_task

if TYPE_CHECKING:  # matplotlib takes a second
    from studies.engine.reporting.plots import Curves
    from studies.engine.reporting.report import Report
    from studies.engine.tracking.mlflow_client import MlflowClient

RUNS = "tags.kind = 'arm'"
COLOUR = "mlflow.runColor"
"""Tag of the colour that MLflow draws a run in; an arm has that of the report's figures."""


class Summary(NamedTuple):
    """A run of `kind=arm`."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: tuple[Point, ...]

    @property
    def content(self) -> str:
        """A hash of everything in it: the same is not written again."""
        return hashlib.sha256(json.dumps(self[:4], sort_keys=True).encode()).hexdigest()[:16]


def write(client: "MlflowClient", experiment: str, wanted: Sequence[Summary]) -> None:
    """Make the arms' runs those `wanted`; one that is as it was stays."""
    left = {each.content: each for each in wanted}
    for run in mlflow_client.runs(client, experiment, RUNS):
        whole = run.info.status == "FINISHED"
        if not whole or left.pop(run.data.tags.get("content", ""), None) is None:
            client.delete_run(run.info.run_id)  # metrics and params cannot be written over
    now = int(time.time() * 1000)
    for content, each in left.items():
        tags = {**each.tags, "content": content}
        run_id = client.create_run(experiment, now, tags, run_name=each.name).info.run_id
        points = [point._replace(moment=now + point.moment) for point in each.points]
        mlflow_client.log(client, run_id, points, each.params)
        client.set_terminated(run_id)


def all_of(
    report: "Report", configs: Mapping[str, Mapping[str, Any]], about: Mapping[str, str]
) -> list[Summary]:
    """The runs of the arms in `report` that have a configuration; `about` are further tags."""
    from studies.engine.reporting.panels import styles  # matplotlib takes a second

    looks = styles(report.outcome)
    return [
        _summary(arm, report, configs[arm.name], {**about, COLOUR: looks[arm.name].colour})
        for arm in report.outcome.arms
        if arm.name in configs
    ]


def _summary(
    arm: Arm, report: "Report", config: Mapping[str, Any], about: Mapping[str, str]
) -> Summary:
    outcome, compared = report.outcome, arm.comparison
    tags = {
        **about,
        "kind": "arm",
        "arm": arm.name,
        "baseline": str(arm.is_baseline).lower(),
        "interval": interval(arm.summary.estimate).partition(" ")[2],
        "difference": interval(arm.gain, "+") if compared else "",
        "finding": compared.words(outcome.direction) if compared else "baseline",
        "mlflow.note.content": arm.note,
    }
    tags = {name: cut(value, TAG) for name, value in tags.items() if value}
    points = [
        Point(accepted(metric), mean, 1, int(step))
        for metric, lines in report.curves.items()
        for step, mean in lines.get(arm.name, ())
    ]
    points += [*_numbers(arm, outcome.metric, report.curves), *_by_task(arm, outcome)]
    return Summary(cut(arm.name, RUN_NAME), tags, settings(config), tuple(points))


def _by_task(arm: Arm, outcome: Outcome) -> list[Point]:
    """The arm's mean and difference on each of several tasks."""
    points = []
    for name, own in outcome.tasks.items():
        for each in own.arms:
            if each.name == arm.name:
                values = {on_task(name, own.metric): each.summary.mean,
                          on_task(name, DIFFERENCE[1]): each.gain[0]}  # fmt: skip
                points += [Point(k, rounded(v), 2, 0) for k, v in values.items() if v is not None]
    return points


def _numbers(arm: Arm, metric: str, curves: "Curves") -> list[Point]:
    """Mean, interval, difference, p, n and costs, as far as they are known."""
    mean, low, high = arm.summary.estimate
    difference, least, most = arm.gain
    p = None
    if arm.comparison:
        p = arm.comparison.p if arm.comparison.p_holm is None else arm.comparison.p_holm
    values: dict[str, float | None] = {
        metric: mean,
        **dict(zip(INTERVAL, (low, high), strict=True)),
        **dict(zip(DIFFERENCE, (least, difference, most), strict=True)),
        "p": p,
        "n": arm.summary.n,
    }
    if arm.cost is not None:
        values |= {f"cost/{name}": value for name, value in arm.cost.model_dump().items()}
    last = {name: lines[arm.name][-1][0] for name, lines in curves.items() if arm.name in lines}
    return [
        Point(accepted(name), rounded(value), 2, int(last.get(name, 0)))
        for name, value in values.items()
        if value is not None
    ]


def rounded(value: float) -> float:
    """`value` with four decimals, of less than a tenth with three digits; whole numbers as such."""
    if value == int(value):
        return value
    return float(f"{value:.3g}" if abs(value) < 0.1 else f"{value:.4f}")
