"""The views of a study's MLflow page: the arms, which the link opens, their trials, and a stage.

A view is an experiment's tag `mlflow.sharedViewState.<key>`. MLflow does not document it; where it
does not know a key, it shows its plain table. MLflow 3.17 lists views that have a name in the menu
"Views", and keeps their state as text beside the name; earlier ones read the state itself. A tag
here is both.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from studies.engine.definition.study import Objective
from studies.engine.records import Result, Trial
from studies.engine.tracking import charts
from studies.engine.tracking.contents import accepted

LIMIT, EARLIER_LIMIT = 20_000, 5_000
"""Characters that an experiment's tag may have, in MLflow from 3.16 on and before."""
ARMS, TRIALS = "arms", "trials"
"""Keys of the views of summary runs and of trials; a stage's view has the stage's name."""
NAMES = {"search": "Search", "tune": "Tuning"}
"""Of the views of stages, in MLflow's menu."""
DIFFERENCE = "difference/low", "difference/mean", "difference/high"
INTERVAL = "interval/low", "interval/high"
"""Metrics of summary runs."""
DRAWN = 6
"""Settings against which the objective is drawn at most."""


@dataclass(frozen=True)
class Row:
    """What the views know of the trials of one arm, or of one candidate of a stage."""

    stage: str
    settings: Mapping[str, Any]
    """Every setting by dotted path."""
    varied: frozenset[str]
    """Those that the study sweeps or tries."""
    sections: frozenset[str] = frozenset()
    """Prefixes of the metrics."""


def row_of(trial: Trial, result: Result) -> Row:
    """The row of `trial`."""
    names = [*result.metrics, *(["cost/x"] if result.cost else [])]
    sections = frozenset(map(charts.section_of, names))
    return Row(trial.stage, trial.settings, frozenset(trial.varied), sections)


def merged(rows: Mapping[tuple[str, str], Row]) -> dict[str, Row]:
    """By label: of several tasks one row, with every value of settings that differ between them."""
    by_label: dict[str, list[Row]] = {}
    for (label, _), row in rows.items():
        by_label.setdefault(label, []).append(row)
    merged = {}
    for label, own in by_label.items():
        paths = dict.fromkeys(path for row in own for path in row.settings)
        settings = {path: _joined([row.settings.get(path) for row in own]) for path in paths}
        varied = frozenset[str]().union(*(row.varied for row in own))
        merged[label] = Row(own[0].stage, settings, varied, _sections(own))
    return merged


def _joined(values: Sequence[Any]) -> Any:
    """The one value, or a tuple of each once."""
    once = [value for i, value in enumerate(values) if value not in values[:i]]
    return once[0] if len(once) == 1 else tuple(once)


def on_task(task: str, metric: str) -> str:
    """What a summary run calls `metric` on one of several tasks, or of one part."""
    return accepted(metric if task == metric else f"{task}/{metric}")


def varied_settings(rows: Iterable[Row], all_rows: Iterable[Row]) -> dict[str, bool]:
    """The settings that tell `rows` apart, of those that any of `all_rows` asks for.

    Each with whether it is a number wherever it is set.
    """
    rows = list(rows)
    columns: dict[str, bool] = {}
    for path in sorted(frozenset[str]().union(*(row.varied for row in all_rows))):
        values = [row.settings.get(path) for row in rows]
        if len({repr(value) for value in values}) > 1:
            numbers = [value for value in values if value is not None]
            columns[path] = all(type(value) in (int, float) for value in numbers)
    return columns


def views(
    objective: Objective,
    rows: Mapping[str, Row],
    *,
    summarized: bool,
    whole: Objective | None = None,
    tasks: Mapping[str, Objective] = MappingProxyType({}),
    limit: int = LIMIT,
) -> dict[str, str]:
    """The tag of each view by its key; `rows` by label, `summarized` once arms have runs.

    Of several `tasks`, or parts, each has its objective, and the `whole` of them has one. A tag has
    at most `limit` characters.
    """
    seeds = {label: row for label, row in rows.items() if row.stage == "seeds"}
    visible = seeds or rows
    each = [own for name, own in tasks.items() if name != own.metric]  # a part is called as it is
    each = each or [objective]
    trials = _trials(each, visible, rows)
    arms = _arms(whole or objective, seeds, rows, tasks) if summarized else trials
    states = {ARMS: ("Arms", arms), TRIALS: ("Trials by arm", trials)}
    for stage in sorted({row.stage for row in rows.values()} - {"seeds"}):
        own = {label: row for label, row in rows.items() if row.stage == stage}
        states[stage] = (NAMES[stage], _stage(each, stage, own))
    now = int(time.time() * 1000)
    return {
        key: _tag(name, state, now - place, limit)  # the menu shows the latest first
        for place, (key, (name, state)) in enumerate(states.items())
    }


def _arms(
    objective: Objective,
    rows: Mapping[str, Row],
    all_rows: Mapping[str, Row],
    tasks: Mapping[str, Objective],
) -> dict[str, Any]:
    """One run an arm: the answer in numbers."""
    paths, metric = varied_settings(rows.values(), all_rows.values()), objective.metric
    widths = {f"metrics.`{metric}`": 120, "tags.`interval`": 140, "tags.`difference`": 190,
              "metrics.`p`": 70, "metrics.`n`": 50, "tags.`finding`": 170}  # fmt: skip
    own = [on_task(name, each.metric) for name, each in tasks.items()]
    widths |= {f"metrics.`{name}`": max(110, 7 * len(name)) for name in own}
    answer = [
        charts.bar(metric),
        *([charts.bar(*own)] if own else []),
        charts.bar(INTERVAL[0], metric, INTERVAL[1]),
        charts.bar(*DIFFERENCE),
    ]
    learning = [
        chart
        for name, each in tasks.items()
        for chart in (_curves([each], rows, name) if name != each.metric else ())
    ]
    sections = {
        "Answer": answer,
        "Learning": learning or _curves([objective], rows),
        "What it costs": _costs(metric),
        "What was swept": [charts.parallel(map(accepted, paths), [metric]),
                           *_against(paths, metric)] if paths else [],
    }  # fmt: skip
    rest = {"cost", "interval", "difference", charts.REST}
    return _state(objective, "tags.kind = 'arm'", widths | _params(paths), sections, rest)


def _trials(
    objectives: Sequence[Objective], rows: Mapping[str, Row], all_rows: Mapping[str, Row]
) -> dict[str, Any]:
    """One run a trial, grouped by arm, and by task where there are several `objectives`."""
    stages = sorted({row.stage for row in rows.values()})
    query = "tags.kind = 'trial' and tags.superseded = 'false'"
    if stages == ["seeds"]:
        query += " and tags.stage = 'seeds'"
    # MLflow shows a group's mean of a setting, and "-" where it is no number
    apart = varied_settings(rows.values(), all_rows.values())
    paths = [path for path, numeric in apart.items() if numeric]
    several, metrics = len(objectives) > 1, _names(objectives, "metric")
    tags = ["task", "arm"] if several else ["arm"]
    sections = {
        "Answer": [*map(charts.bar, metrics), *_curves(objectives, rows)],
        "What it costs": [chart for metric in metrics for chart in _costs(metric)],
        "What was swept": [chart for metric in metrics for chart in _against(apart, metric)],
    }
    group = {
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": tag} for tag in tags],
        },
        "groupsExpanded": {f"tag.arm.{label}": False for label in sorted(rows) if not several},
    }
    names = [*metrics, *_names(objectives, "select_on"), "train/loss"]
    widths = dict.fromkeys((f"metrics.`{name}`" for name in names), 170) | _params(paths)
    return _state(objectives[0], query, widths, sections, _sections(rows.values())) | group


def _stage(objectives: Sequence[Objective], stage: str, rows: Mapping[str, Row]) -> dict[str, Any]:
    """One run a trial of a stage that chooses settings on validation."""
    paths = varied_settings(rows.values(), rows.values())
    query = f"tags.kind = 'trial' and tags.superseded = 'false' and tags.stage = '{stage}'"
    by = _names(objectives, "select_on") or _names(objectives, "metric")
    several = {"tags.`task`": 100} if len(objectives) > 1 else {}
    sections = {
        "What was tried": [*(charts.parallel(map(accepted, paths), [name]) for name in by),
                           *(chart for name in by for chart in _against(paths, name))],
        "Learning": _curves(objectives, rows),
        "What it costs": [chart for name in by for chart in _costs(name)],
    }  # fmt: skip
    widths = several | {f"metrics.`{name}`": 150 for name in by}
    widths |= _params(paths) | {"tags.`state`": 100}
    state = _state(objectives[0], query, widths, sections, _sections(rows.values()))
    return state | {"orderByKey": f"metrics.`{by[0]}`"}


def _sections(rows: Iterable[Row]) -> frozenset[str]:
    return frozenset[str]().union(*(row.sections for row in rows))


def _names(objectives: Sequence[Objective], key: str) -> list[str]:
    """What they call `metric` or `select_on`, each name once."""
    return list(dict.fromkeys(name for each in objectives if (name := getattr(each, key))))


def _params(paths: Iterable[str]) -> dict[str, int]:
    """Columns of settings, each as wide as its name."""
    return {f"params.`{name}`": max(110, 8 * len(name) + 30) for name in map(accepted, paths)}


def _curves(
    objectives: Sequence[Objective], rows: Mapping[str, Row], task: str = ""
) -> list[charts.Chart]:
    """What trials log while they train; of one of several tasks, under the names of summaries."""
    validated = any(row.settings.get("train.eval_every") for row in rows.values())
    names = ["train/loss", *(_names(objectives, "select_on") if validated else [])]
    return [charts.line(on_task(task, name) if task else name) for name in names]


def _costs(metric: str) -> list[charts.Chart]:
    """`metric` against parameters and time."""
    return [charts.scatter(f"cost/{name}", metric) for name in
            ("trainable_parameters", "train_seconds", "step_seconds")]  # fmt: skip


def _against(paths: Mapping[str, bool], metric: str) -> list[charts.Chart]:
    """`metric` against each setting that is a number."""
    numbers = [accepted(path) for path, numeric in paths.items() if numeric]
    return [charts.scatter(name, metric, of_param=True) for name in numbers[:DRAWN]]


def _state(
    objective: Objective,
    query: str,
    widths: Mapping[str, int],
    sections: Mapping[str, Sequence[charts.Chart]],
    rest: Iterable[str],
) -> dict[str, Any]:
    """The state of MLflow's runs page."""
    return {
        "searchFilter": query,
        "orderByKey": f"metrics.`{objective.metric}`",
        "orderByAsc": objective.direction == "minimize",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "groupBy": None,
        "selectedColumns": list(widths),
        "columnOrder": ["attributes.`Run Name`", *widths],
        "columnWidths": {"attributes.`Run Name`": 220, **widths},
        "groupsExpanded": {},
        "runsHiddenMode": "SHOW_ALL",  # the charts draw ten arms otherwise
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runListHidden": False,
        **charts.laid_out({name: own for name, own in sections.items() if own}, rest),
    }


def _tag(name: str, state: Mapping[str, Any], moment: int, limit: int) -> str:
    """The tag of a view; what `limit` characters cannot hold is left out, least missed first."""
    less: Sequence[Mapping[str, Any]] = (
        {"groupsExpanded": {}},
        charts.laid_out({}, ()),
        {"selectedColumns": [], "columnOrder": [], "columnWidths": {}},
    )
    for i in range(len(less) + 1):
        content = {**state}
        for each in less[:i]:
            content |= each
        about = {"name": name, "createdAt": moment, "updatedAt": moment}
        text = json.dumps(content | about | {"state": json.dumps(content)})
        if len(text) <= limit:
            return text
    return "{}"
