"""A study's report: Markdown, JSON and figures in one folder, the same for the same results."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from studies.engine.planning.tuning import Choice
from studies.engine.reporting import (
    after_plots,
    after_tables,
    plots,
    rendering,
    search_report,
    spectra_plots,
)
from studies.engine.reporting.outcome import Outcome, Pairs, Study, collect
from studies.engine.reporting.remarks import beyond_the_interval, reading, remarks
from studies.engine.reporting.search_outcome import SearchOutcome
from studies.engine.reporting.statistics import summarize
from studies.engine.trials.metrics_file import is_number, read_metrics

SCHEMA = 1
"""Version of `report.json`."""


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


def write_report(
    study: Study,
    pairs: Pairs,
    out_dir: Path,
    trials_dir: Path | None = None,
    choices: Sequence[Choice] = (),
    search: SearchOutcome | None = None,
    claims_changed: bool = False,
) -> Report:
    """Write report.md, report.json and the figures of `pairs` to `out_dir`.

    Args:
        study: what was asked; see `studies.engine.reporting.outcome.Study`.
        pairs: every trial that ran with what it found, in the order of the plan; failed ones too.
        out_dir: made where it is missing; earlier files of the same names are replaced.
        trials_dir: folder that holds `<key>/metrics.jsonl`; by default `out_dir/../trials`. Arms
            without these files have no learning curve.

        choices: what the tuning stage found, see `studies.engine.planning.tuning`.
        search: what the search found, see `studies.engine.searching.search`.
        claims_changed: whether the study's claims are others than before its first result.

    Raises ValueError where `pairs` is empty or has two results for one arm and seed.
    """
    if not pairs and search is None:
        raise ValueError(
            f"study {study.name!r} has no results to report: run it first, "
            f"python run_study.py {study.path.name}"
        )
    outcome = replace(collect(study, pairs, choices, search), claims_changed=claims_changed)
    out_dir.mkdir(parents=True, exist_ok=True)
    figures: list[Path] = []
    trials_dir = trials_dir or out_dir.parent / "trials"
    drawn = outcome.drawn()
    if any(arm.values for arm in drawn.arms):
        figures += plots.save(plots.plot_comparison(drawn), out_dir, "comparison")
    if curves := read_curves(drawn, trials_dir):
        figures += plots.save(plots.plot_learning_curves(drawn, curves), out_dir, "learning")
    more_figures = after_plots.figures(drawn) | spectra_plots.figures(drawn, trials_dir)
    if search is not None:
        more_figures |= search_report.figures(search, outcome)
    for name, figure in more_figures.items():
        figures += plots.save(figure, out_dir, name)
    report_md, report_json = out_dir / "report.md", out_dir / "report.json"
    more = after_tables.markdown(outcome.after, outcome.metric)
    if search is not None:
        more.insert(0, search_report.markdown(search))
    shown = [path.name for path in figures if path.suffix == ".png"]
    report_md.write_text(rendering.markdown(outcome, shown, more), encoding="utf-8")
    report_json.write_text(
        json.dumps(as_data(outcome), indent=2, sort_keys=True, allow_nan=False) + "\n",
        encoding="utf-8",
    )
    text, note = rendering.terminal(outcome), rendering.note(outcome)
    return Report(report_md, report_json, tuple(figures), text, note)


def as_data(outcome: Outcome) -> dict[str, Any]:
    """The report as plain values, for JSON."""
    arms = []
    known, left_out = beyond_the_interval(outcome)
    for arm in outcome.arms:
        finding = arm.comparison.words(outcome.direction) if arm.comparison else None
        arms.append(
            {
                "arm": arm.name,
                "baseline": arm.is_baseline,
                "note": arm.note,
                "swept": dict(arm.swept),
                "seeds": {str(seed): value for seed, value in arm.values.items()},
                "keys": {str(seed): key for seed, key in arm.keys.items()},
                "summary": asdict(arm.summary),
                "comparison": asdict(arm.comparison) if arm.comparison else None,
                "finding": finding,
                "cost": arm.cost.model_dump() if arm.cost else None,
                "published": asdict(arm.published) if arm.published else None,
            }
        )
    return {
        "schema_version": SCHEMA,
        "study": outcome.name,
        "question": outcome.question,
        "profile": outcome.profile,
        "metric": outcome.metric,
        "direction": outcome.direction,
        "select_on": outcome.select_on,
        "baseline": outcome.baseline,
        "axis": outcome.axis,
        "published_table": outcome.table.name if outcome.table else None,
        "majority": outcome.majority,
        "arms": arms,
        "tuning": [
            {
                "arm": choice.arm,
                "chosen": dict(choice.settings),
                "scores": [{"settings": dict(s), "mean": mean} for s, mean in choice.scores],
            }
            for choice in outcome.choices
        ],
        "claims": [asdict(verdict) for verdict in outcome.verdicts],
        "claims_changed": outcome.claims_changed,
        "published_known": known,
        "published_left_out": [arm.name for arm, *_ in left_out],
        "search": None if outcome.search is None else asdict(outcome.search),
        "after": [asdict(arm) for arm in outcome.after],
        "failed": [asdict(failed) for failed in outcome.failed],
        "data": [dict(d) for d in outcome.data],
        "environments": [dict(e) for e in outcome.environments],
        "environment_of": {arm: list(where) for arm, where in outcome.environment_of.items()},
        "remarks": remarks(outcome),
        "reading": reading(outcome),
    }


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
            runs = [points for log in logs if (points := _points(log, metric))]
            steps = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
            means = [(step, summarize([run[step] for run in runs]).mean) for step in steps]
            if len(means) > 1:
                curves.setdefault(metric, {})[arm.name] = means
    return curves


def _points(log: list[dict[str, float]], metric: str) -> Mapping[float, float]:
    return {e["step"]: e[metric] for e in log if is_number(e.get(metric))}
