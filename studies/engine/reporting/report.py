"""A study's report: Markdown, JSON and figures in one folder, the same for the same results."""

import functools
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from studies import published
from studies.engine.definition.study import Study
from studies.engine.planning.preregistration import NO_CHANGES, Changes
from studies.engine.planning.tuning import Choice
from studies.engine.program import program
from studies.engine.records import Cost
from studies.engine.reporting import (
    after_plots,
    after_tables,
    plots,
    rendering,
    search_report,
    spectra_plots,
    surface_plots,
    task_tables,
    two_factor_report,
)
from studies.engine.reporting.outcome import Outcome, Pairs, collect
from studies.engine.reporting.panels import file_names
from studies.engine.reporting.remarks import beyond_the_interval, reading, remarks
from studies.engine.reporting.search_outcome import SearchOutcome
from studies.engine.trials.metrics_file import is_number, read_metrics
from studies.engine.verdicts.row_scores import row_reader
from studies.files import write_text

SCHEMA = 1
"""Version of `report.json`."""
_OF_OUTCOME = ("question", "profile", "metric", "direction", "select_on", "baseline", "axis",
               "majority", "over_tasks", "search", "after", "two_factors", "failed", "data",
               "environments", "environment_of")  # fmt: skip
_OF_ARM = ("note", "swept", "summary", "comparison", "cost", "collapsed", "published")
"""Attributes of an outcome, and of an arm, that are in `report.json` by their own names."""


@dataclass(frozen=True)
class Report:
    """Where a report lies, and its short forms."""

    markdown: Path
    json: Path
    figures: tuple[Path, ...]
    """Each figure as PNG, then as SVG."""
    text: str
    """The table for the terminal, without colours."""
    note: str
    """Question, table and remarks as Markdown short enough for a note."""
    outcome: Outcome
    """What it says, as values."""
    curves: plots.Curves
    """Of the arms that its figures show."""


@dataclass(frozen=True)
class Draft:
    """A report that is not written yet; its figures are drawn when they are first asked for."""

    outcome: Outcome
    """What it says, as values."""
    trials_dir: Path
    sections: tuple[str, ...]
    """Of its Markdown, those that not every study has."""

    @functools.cached_property
    def curves(self) -> plots.Curves:
        """Of the arms that its figures show; of several tasks each has its own, TASK/METRIC."""
        if not self.outcome.is_mean:
            return read_curves(self.outcome.for_figures(), self.trials_dir)
        return {
            f"{name}/{metric}": lines
            for name, own in self.outcome.tasks.items()
            for metric, lines in read_curves(own.for_figures(), self.trials_dir).items()
        }

    @functools.cached_property
    def figures(self) -> dict[str, Figure]:
        """Every figure by its file's name; arms beyond what can be told apart are left out."""
        drawn = self.outcome.for_figures()
        figures: dict[str, Figure] = {}
        if any(arm.values for arm in drawn.arms):
            figures["comparison"] = plots.plot_comparison(drawn)
        figures |= two_factor_report.figures(drawn)
        if self.curves:
            figures["learning"] = plots.plot_learning_curves(drawn, self.curves)
        if drawn.tasks and any(not arm.is_baseline for arm in drawn.arms):
            figures["tasks"] = plots.plot_tasks(drawn)
        figures |= after_plots.figures(drawn)
        tasks = drawn.tasks if drawn.is_mean else {}
        ends = {name: f"_{file}" for name, file in file_names(tasks, odd=r"[^-\w]+").items()}
        for name, own in (tasks or {"": drawn}).items():
            inside = spectra_plots.figures(own.for_figures(), self.trials_dir)
            inside |= surface_plots.figures(own.for_figures(), self.trials_dir)
            figures |= {f"{what}{ends.get(name, '')}": figure for what, figure in inside.items()}
        if self.outcome.search is not None:
            figures |= search_report.figures(self.outcome.search, drawn)
        return figures

    @functools.cached_property
    def markdown(self) -> str:
        """The text, which shows the figures as files beside it."""
        return rendering.markdown(
            self.outcome, [f"{name}.png" for name in self.figures], self.sections
        )

    def write(self, out_dir: Path) -> Report:
        """Write report.md, report.json and the figures to `out_dir`, over those of that name."""
        outcome = self.outcome
        out_dir.mkdir(parents=True, exist_ok=True)
        figures = [path for named in self.figures.items() for path in plots.save(*named, out_dir)]
        report_md, report_json = out_dir / "report.md", out_dir / "report.json"
        write_text(report_md, self.markdown)
        data = json.dumps(
            _as_data(outcome), indent=2, sort_keys=True, allow_nan=False, default=_plain
        )
        write_text(report_json, f"{data}\n")
        text, note = rendering.terminal(outcome), rendering.note(outcome)
        return Report(report_md, report_json, tuple(figures), text, note, outcome, self.curves)


def draft(
    study: Study,
    trials_dir: Path,
    pairs: Pairs,
    choices: Sequence[Choice] = (),
    search: SearchOutcome | None = None,
    changed: Changes = NO_CHANGES,
) -> Draft:
    """The report of `pairs`.

    Args:
        study: what was asked.
        trials_dir: folder that holds `<key>/metrics.jsonl`. Arms without these files have no
            learning curve.
        pairs: every trial that ran with what it found, in the order of the plan; failed ones too.
        choices: what the tuning stage found, see `studies.engine.planning.tuning`.
        search: what the search found, see `studies.engine.searching.search`.
        changed: what of claims, looks and seeds is not as it was before the first result.

    Raises ValueError where `pairs` is empty or has two results for one arm and seed, and
    `StudyError` where what a trial has kept beside its result is damaged.
    """
    if not pairs and search is None:
        raise ValueError(
            f"study {study.name!r} has no results to report: run it first, "
            f"{program()} {study.path.name}"
        )
    outcome = collect(study, pairs, choices, search, row_reader(study, trials_dir))
    outcome = replace(outcome, changed=changed)
    sections = after_tables.markdown(outcome.after, outcome.metric, outcome.chosen_on)
    if outcome.two_factors is not None:
        sections.insert(0, two_factor_report.markdown(outcome.two_factors, outcome.metric))
    if search is not None:
        sections.insert(0, search_report.markdown(search))
    if study.published is not None and study.published.x is None:
        printed = published.printed(study.published.table, study.published.part)
        sections.insert(0, task_tables.paper(printed))
    return Draft(outcome, trials_dir, tuple(sections))


def _plain(value: Any) -> Any:
    """`value` in what JSON has."""
    return value.model_dump() if isinstance(value, Cost) else asdict(value)


def _as_data(outcome: Outcome) -> dict[str, Any]:
    """The report for JSON, but for values that `_plain` knows."""
    known, left_out = beyond_the_interval(outcome)
    return {
        "schema_version": SCHEMA,
        **{name: getattr(outcome, name) for name in _OF_OUTCOME},
        "study": outcome.name,
        "published_table": outcome.table.name if outcome.table else None,
        "arms": _arms_as_data(outcome),
        "tasks": {
            name: {"metric": own.metric, "majority": own.majority, "arms": _arms_as_data(own)}
            for name, own in outcome.tasks.items()
        },
        "tuning": [
            {
                "arm": choice.arm,
                "task": choice.task,
                "chosen": choice.settings,
                "scores": [
                    {"settings": tried, "mean": mean, "seeds": seeds}
                    for (tried, mean), seeds in itertools.zip_longest(choice.scores, choice.seeds)
                ],
                "close": choice.close,
            }
            for choice in outcome.choices
        ],
        "claims": outcome.verdicts,
        "claims_changed": outcome.changed.claims,
        "looks_changed": outcome.changed.looks,
        "seeds_added": outcome.changed.seeds,
        "published_known": known,
        "published_left_out": [arm.name for arm, *_ in left_out],
        "remarks": remarks(outcome),
        "reading": reading(outcome),
    }


def _arms_as_data(outcome: Outcome) -> list[dict[str, Any]]:
    return [
        {
            **{name: getattr(arm, name) for name in _OF_ARM},
            "arm": arm.name,
            "baseline": arm.is_baseline,
            "seeds": {str(seed): value for seed, value in arm.values.items()},
            "keys": {str(seed): key for seed, key in arm.keys.items()},
            "finding": arm.comparison and arm.comparison.words(outcome.direction),
        }
        for arm in outcome.arms
    ]


def read_curves(outcome: Outcome, trials_dir: Path) -> plots.Curves:
    """Mean over seeds, by step, of the training loss and the metric that choices are made on.

    Reads `<trials_dir>/<key>/metrics.jsonl` of finished seeds. A step counts where every seed of
    the arm that has a curve logged it.
    """
    wanted = ["train/loss"] + ([outcome.select_on] if outcome.select_on else [])
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for arm in outcome.arms:
        files = [trials_dir / arm.keys[seed] / "metrics.jsonl" for seed in arm.values]
        logs = [read_metrics(file) for file in files if file.is_file()]
        for metric in wanted:
            every = [
                {e["step"]: e[metric] for e in log if is_number(e.get(metric))} for log in logs
            ]
            runs = [run for run in every if run]
            steps = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
            means = [(step, fmean(run[step] for run in runs)) for step in steps]
            if len(means) > 1:
                curves.setdefault(metric, {})[arm.name] = means
    return curves
