"""Bring results that were found elsewhere into a study's run folder."""

import lzma
import math
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from studies.engine.definition.study import Study
from studies.engine.errors import StudyError
from studies.engine.planning import edits, runs
from studies.engine.planning.causes import causes
from studies.engine.records import Result, Trial, read_result, read_trial, write_record
from studies.engine.running.attempts import set_aside
from studies.engine.trials.metrics_file import is_number, read_metrics
from studies.engine.trials.predictions import read_predictions

FIRST_YEAR, LAST_YEAR = 1970, 2199
"""In which a trial may say that it started; a clock that was never set says 1970."""
MOST_SECONDS = 1e9
"""Thirty years, which no trial takes."""
MOST_STEPS, MOST_ATTEMPTS = 1e12, 1e6
LARGEST = 1e100
"""No metric of a model in float32 comes near, and sums of squares beyond are infinite."""
LARGEST_ARCHIVE = 2**31
"""Bytes that an archive may hold; results of a study without their curves take a hundredth."""
SKIPPED = ("attempt-*", "*checkpoint-*", "result.json", "trial.json", "pid", ".*")
"""Entries of a trial's folder that are not taken along."""
MOST_STRANGERS = 5
"""Results of unknown points that are named; the archive of another study has hundreds."""


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

    def summary(self, keys: Collection[str], later: str) -> str:
        """How many there are; taken and known are those of the trials with these `keys`.

        `later` is what strangers belong to; empty where they are refused.
        """
        taken, known = (sum(t.key in keys for t in each) for each in (self.taken, self.known))
        refused = len(self.refused) + (0 if later else len(self.strangers))
        left = f", {len(self.strangers)} of {later}" if later and self.strangers else ""
        return f"{taken} results taken, {known} known already, {refused} refused{left}"

    def refusals(self, later: str) -> Iterator[str]:
        """Lines that say what was refused and why; `later` as in `summary`."""
        strangers = [] if later else self.strangers
        for folder, reason in [*self.refused, *strangers[:MOST_STRANGERS]]:
            yield f"refused: {folder}: {reason}"
        if len(strangers) > MOST_STRANGERS:
            yield f"refused: {len(strangers) - MOST_STRANGERS} more of which the plan has no point"


@contextmanager
def opened(source: Path) -> Iterator[Path]:
    """`source` as a folder: itself, or for the time being what it holds, if it is a tar archive.

    Raises `StudyError` where it is neither, damaged, too large or would write outside its folder.
    """
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise StudyError(f"--import {source}: there is no such folder or archive")
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(source) as archive:
                size = 0
                for entry in archive:
                    size += entry.size
                    if size > LARGEST_ARCHIVE:
                        raise StudyError(f"--import {source}: more than {LARGEST_ARCHIVE:,} bytes")
                    archive.extract(entry, folder, filter="data")  # nothing outside the folder
        except (OSError, tarfile.TarError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise StudyError(f"--import {source}: no whole tar archive: {error}") from error
        yield Path(folder)


def import_results(study: Study, trials: Sequence[Trial], source: Path, runs_dir: Path) -> Imported:
    """Copy the whole results below `source` that belong to one of `trials`.

    Where `source` has a folder for the study and profile, as `studies.engine.work` makes it, only
    that is looked at. A failed result is taken where nothing is known of its trial; a done one
    replaces a failed one. Nobody else may work on the study in `runs_dir` meanwhile.
    """
    by_key = {trial.key: trial for trial in trials}
    imported = Imported()
    own = source / study.name / study.profile
    source = own if own.is_dir() else source
    for path in sorted(source.rglob("result.json")):
        if not (folder := path.parent).name.startswith("attempt-"):
            try:
                _import_one(study, by_key, folder, runs_dir, imported)
            except (StudyError, PermissionError) as error:
                imported.refused.append((folder, str(error)))
    return imported


def _unlike(study: Study, folder: Path, planned: Iterable[Trial]) -> str:
    """In what the trial in `folder` differs from the nearest planned one, where that is known."""
    try:
        theirs = read_trial(folder)
    except (OSError, ValueError):
        return ""
    near = edits.nearest([trial for trial in planned if trial.stage == theirs.stage])(theirs)
    if near is None or near.key == theirs.key:
        return ""
    reasons = causes(study, theirs, near, {near.arm})
    return f": {theirs.title} seed {theirs.seed}: {' and '.join(cause.arm for cause in reasons)}"


def _import_one(
    study: Study, by_key: dict[str, Trial], folder: Path, runs_dir: Path, imported: Imported
) -> None:
    """Raises `StudyError` or `PermissionError` where the result is refused."""
    result = read_result(folder) if (folder / "result.json").is_file() else None
    if result is None:
        raise StudyError("result.json is not whole, or of another version")
    trial = by_key.get(result.key)
    if trial is None:
        why = f"the plan has no point {result.key}{_unlike(study, folder, by_key.values())}"
        imported.strangers.append((folder, why))
        return
    metric = study.objective_of(trial.task).metric
    if result.status == "done" and runs.value_of(result, metric) is None:
        raise StudyError(f"it says done without a finite {metric}")
    here = runs.result_of(trial, runs_dir)
    if here is not None and (here.status == "done" or result.status == "failed"):
        imported.known.append(trial)
        return
    if folder.is_symlink() or any(path.is_symlink() for path in folder.rglob("*")):
        raise StudyError("it holds a link, which may lead anywhere")
    curve = folder / "metrics.jsonl"
    try:
        _check_plausible(result, read_metrics(curve) if curve.exists() else [])
        read_predictions(folder, result)
    except OSError as error:
        raise StudyError(str(error)) from error
    _copy(folder, runs.trial_dir(trial, runs_dir), trial, result)
    imported.taken.append(trial)


def _check_plausible(result: Result, curve: Sequence[Mapping[str, Any]]) -> None:
    """Raise `StudyError` where no trial can have found that; some find NaN and infinity."""
    started = datetime.fromisoformat(result.started) if result.started else datetime.now(UTC)
    if not FIRST_YEAR <= started.year <= LAST_YEAR:
        raise StudyError(f"it says that it started in the year {started.year}")
    if result.seconds > MOST_SECONDS:
        raise StudyError(f"it says that it took {result.seconds:.3g} seconds")
    if result.attempt > MOST_ATTEMPTS:
        raise StudyError(f"it says that it is attempt {result.attempt!s:.20}")
    cost = {} if result.cost is None else result.cost.model_dump(exclude_none=True)
    for name, value in [*result.metrics.items(), *cost.items()]:
        if LARGEST < abs(value) < math.inf:  # a comparison that no whole number is too large for
            raise StudyError(f"{name[:80]} is beyond {LARGEST:g}, which no trial finds")
    for entry in curve:
        if not (0 <= entry["step"] <= MOST_STEPS and 0 <= entry["seconds"] <= MOST_SECONDS):
            place = f"step {entry['step']:.3g} after {entry['seconds']:.3g} seconds"
            raise StudyError(f"metrics.jsonl has {place}, which no trial has")
        for name, value in entry.items():
            if not is_number(value) or abs(value) > LARGEST:
                message = f"metrics.jsonl: {name[:80]} is {value!r:.80}, which no trial finds"
                raise StudyError(message)


def _copy(source: Path, target: Path, trial: Trial, result: Result) -> None:
    """`source` as the folder of `trial`; result.json last, so that it vouches for the rest."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".importing-") as scratch:
        whole = Path(scratch)
        for path in source.rglob("*"):
            name = path.relative_to(source)
            skipped = any(fnmatch(part, each) for part in name.parts for each in SKIPPED)
            if path.is_file() and not skipped:
                (whole / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, whole / name)  # with our permissions, not with theirs
        attempt = set_aside(target)
        for path in whole.iterdir():
            path.replace(target / path.name)
    write_record(target / "trial.json", trial)
    update = {"attempt": max(attempt, result.attempt)}
    write_record(target / "result.json", result.model_copy(update=update))
