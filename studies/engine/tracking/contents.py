"""What MLflow's run of a trial holds, in the names, lengths and numbers that MLflow takes.

Nothing is refused here: what a page cannot show is cut, the trial's files have it whole.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from studies.engine.labels import flat, short_value
from studies.engine.records import Result, Trial
from studies.engine.trials.metrics_file import is_number

NAME, RUN_NAME, PARAM, TAG = 250, 250, 500, 5000
"""The most characters of each; the least of what MLflow's versions and databases take."""
LATEST = 253_402_300_799_000
"""The last millisecond of the year 9999."""
MOST_STEPS = 2**53
STATUSES = {"done": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}
"""What MLflow calls the ends of a trial."""


class Point(NamedTuple):
    """A value of a metric."""

    name: str
    value: float
    moment: int
    """Milliseconds since 1970."""
    step: int


def tags(trial: Trial, result: Result, baseline: str, more: Mapping[str, str]) -> dict[str, str]:
    """The tags; `more` are those that every run of the study has."""
    entries = {
        "study": trial.study,
        "profile": trial.profile,
        "kind": "trial",
        "stage": trial.stage,
        "state": state(result),
        "arm": trial.label,
        "seed": trial.seed,
        "point": trial.key,
        "attempt": result.attempt,
        "baseline": str(trial.arm == baseline).lower(),
        "superseded": "false",
        "git_sha": result.environment.get("commit", "unknown"),
        **more,
    }
    if trial.task:
        entries["task"] = trial.task
    if "hash" in result.data:
        entries["data_sha"] = result.data["hash"]
    if result.failure is not None:
        if entries["state"] == "failed":
            entries["failure"] = result.failure.kind
        entries["mlflow.note.content"] = result.failure.message
    return {name: cut(value, TAG) for name, value in entries.items()}


def run_name(trial: Trial) -> str:
    """What the page calls the run."""
    end = f" s{trial.seed}"
    return cut(trial.title, RUN_NAME - len(end)) + end


def state(result: Result) -> str:
    """How the trial ended: done, failed or pruned."""
    return "pruned" if result.pruned else result.status


def status(result: Result) -> str:
    """MLflow's word for `state`."""
    return STATUSES[state(result)]


def params(trial: Trial) -> dict[str, str]:
    """Every setting of the trial by its dotted path, to filter and to compare by."""
    return {"seed": str(trial.seed)} | settings(trial.config)


def settings(config: Mapping[str, Any]) -> dict[str, str]:
    """The values of a resolved configuration by dotted path, as the tables write them."""
    return {accepted(path): cut(short_value(value), PARAM) for path, value in flat(config).items()}


def points(result: Result, curve: Sequence[Mapping[str, Any]], start: int) -> list[Point]:
    """Every value of every metric: the lines of metrics.jsonl, then what was found at the end."""
    logged = [
        Point(
            accepted(name),
            float(value),
            later(start, entry["seconds"]),
            int(min(max(entry["step"], 0), MOST_STEPS)),
        )
        for entry in curve
        for name, value in entry.items()
        if name not in ("seconds", "step") and is_number(value)
    ]
    last = max((point.step for point in logged), default=0)
    known = {(point.name, point.step, point.value) for point in logged}
    curved = {point.name for point in logged}
    final = dict(result.metrics)
    if result.cost is not None:
        cost = result.cost.model_dump(exclude_none=True)
        final |= {f"cost/{name}": float(value) for name, value in cost.items()}
    end = later(start, result.seconds)
    for given, value in final.items():
        name = accepted(given)
        if (name, last, value) not in known:
            # the page draws bars, not a curve, for what is known at step 0 only
            logged.append(Point(name, value, end, last if name in curved else 0))
    return list(dict.fromkeys(logged))


def start_time(result: Result) -> int:
    """Milliseconds since 1970 of the trial's start; now where a failed trial has none."""
    moment = datetime.fromisoformat(result.started) if result.started else datetime.now(UTC)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return later(0, moment.timestamp())


def later(start: int, seconds: float) -> int:
    """`seconds` after the moment `start`, in milliseconds."""
    return int(min(max(start + seconds * 1000, 1), LATEST))  # 0 is "now" to MLflow


def accepted(given: str) -> str:
    """`given` in the letters that MLflow takes in names, and as a path that has no other form."""
    text = re.sub(r"[^/\w.\- :]", "_", cut(given, NAME))
    return "/".join(part for part in text.split("/") if part not in ("", ".", "..")) or "_"


def cut(value: object, limit: int) -> str:
    """`value` as text that every database takes."""
    return str(value).encode("utf-8", "replace").decode().replace("\0", "")[:limit]
