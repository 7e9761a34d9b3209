"""Bring results that were found on another machine into a study's run folder."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from studies.engine import runs
from studies.engine.definition.study import Study
from studies.engine.dispatching.child import set_aside
from studies.engine.errors import StudyError
from studies.engine.records import Result, Trial, read_result, write_record
from studies.engine.trials.metrics_file import read_metrics


@dataclass
class Imported:
    """What became of each result that was found."""

    taken: list[Trial] = field(default_factory=list)
    known: list[Trial] = field(default_factory=list)
    """Done here already; what is here stays."""
    refused: list[tuple[Path, str]] = field(default_factory=list)
    """Folder and why."""
    strangers: list[tuple[Path, str]] = field(default_factory=list)
    """Refused because no trial has their key; a later stage may have it."""


def import_results(study: Study, trials: Sequence[Trial], source: Path, runs_dir: Path) -> Imported:
    """Copy the whole results below `source` that belong to one of `trials`.

    Where `source` has a folder for the study and profile, as `studies.engine.work` makes it, only
    that is looked at. A failed result is taken where nothing is known of its trial; a done one
    replaces a failed one.

    Raises:
        StudyError: the study is being run in `runs_dir`.
    """
    by_key = {trial.key: trial for trial in trials}
    found = Imported()
    own = source / study.name / study.profile
    source = own if own.is_dir() else source
    folder = runs.study_dir(study, runs_dir)
    with runs.locked(folder / ".lock", f"{folder} is in use: this study is being run"):
        for path in sorted(source.rglob("result.json")):
            if not path.parent.name.startswith("attempt-"):
                _import_one(study, by_key, path.parent, runs_dir, found)
    return found


def _import_one(
    study: Study, by_key: dict[str, Trial], folder: Path, runs_dir: Path, found: Imported
) -> None:
    whole = (folder / "result.json").is_file()
    result = read_result(folder) if whole else None
    if result is None:
        found.refused.append((folder, "result.json is not whole, or of another version"))
        return
    trial = by_key.get(result.key)
    if trial is None:
        found.strangers.append((folder, f"the plan has no point {result.key}"))
        return
    metric = study.objective.metric
    if result.status == "done" and runs.value_of(result, metric) is None:
        found.refused.append((folder, f"it says done without a finite {metric}"))
        return
    here = runs.result_of(trial, runs_dir)
    if here is not None and (here.status == "done" or result.status == "failed"):
        found.known.append(trial)
        return
    if folder.is_symlink() or any(path.is_symlink() for path in folder.rglob("*")):
        found.refused.append((folder, "it holds a link, which may lead anywhere"))
        return
    try:
        if (folder / "metrics.jsonl").exists():
            read_metrics(folder / "metrics.jsonl")
    except (StudyError, OSError) as error:
        found.refused.append((folder, str(error)))
        return
    _copy(folder, runs.trial_dir(trial, runs_dir), trial, result)
    found.taken.append(trial)


def _copy(source: Path, target: Path, trial: Trial, result: Result) -> None:
    """`source` as the folder of `trial`; result.json last, so that it vouches for the rest."""
    attempt = set_aside(target)
    skipped = shutil.ignore_patterns(
        "attempt-*", "*checkpoint-*", "result.json", "trial.json", "pid", ".*"
    )
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        whole = Path(scratch) / "files"
        shutil.copytree(source, whole, ignore=skipped)
        for path in whole.iterdir():
            path.replace(target / path.name)
    write_record(target / "trial.json", trial)
    update = {"attempt": max(attempt, result.attempt)}
    write_record(target / "result.json", result.model_copy(update=update))
