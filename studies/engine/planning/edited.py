"""What an edited study file means for the trials that were run before: what is kept, what is new.

A trial is its resolved configuration and seed. So a new seed or arm adds trials, a renamed arm
keeps its own, and an arm with other settings has other trials: those it had before stay in their
folders and are left out of the report. Nothing finished ever changes its meaning.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from studies.engine.definition.study import ClaimRule, Study
from studies.engine.planning import runs
from studies.engine.records import Trial
from studies.files import write_text


def remarks(
    study: Study, trials: Sequence[Trial], runs_dir: Path, *, keep: bool = True
) -> list[str]:
    """Lines for the person at the terminal; none where nothing was edited.

    `trials` are those of every stage of the study as it is now. With `keep` its claims are noted
    down as those that were written before the run, where no result is there yet.
    """
    folder = runs.study_dir(study, runs_dir)
    before = dict(_finished(folder / "trials"))
    lines = []
    planned = {trial.key: trial for trial in trials}
    gone = {key: label for key, label in before.items() if key not in planned}
    if gone:
        kept = len(before) - len(gone)
        lines.append(
            f"{study.path.name} was edited: of {len(before)} finished trials {kept} are kept, "
            f"{len(planned) - kept} of {len(planned)} are new or waiting"
        )
        lines += _left_out(gone, {trial.arm for trial in trials}, folder)
    renamed = {
        (before[key][0], trial.arm)
        for key, trial in planned.items()
        if key in before and before[key][0] not in (trial.arm, trial.label)  # label: version 1
    }
    lines += [f"arm '{old}' is now called '{new}'; its trials are kept" for old, new in
              sorted(renamed)]  # fmt: skip
    return lines + _claims(study, runs_dir, bool(before), keep)


def _finished(folder: Path) -> Iterator[tuple[str, tuple[str, int]]]:
    """Key, arm and seed of each trial that has a result."""
    for path in sorted(folder.glob("*/result.json")):
        try:
            trial = json.loads((path.parent / "trial.json").read_bytes())
            yield path.parent.name, (str(trial["arm"]), int(trial["seed"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # no folder of ours
            continue


def _left_out(gone: dict[str, tuple[str, int]], arms: set[str], folder: Path) -> list[str]:
    """Which results are in the report no more, and why."""
    by_arm: dict[str, list[int]] = {}
    for arm, seed in gone.values():
        by_arm.setdefault(arm, []).append(seed)
    return [
        f"arm '{arm}' {'has other settings or seeds' if arm in arms else 'is no more'}: what it "
        f"found before (seeds {', '.join(map(str, sorted(seeds)))}) stays in {folder / 'trials'} "
        "and is left out of the report; undo the edit to have it back"
        for arm, seeds in sorted(by_arm.items())
    ]


def claims_changed(study: Study, runs_dir: Path) -> bool:
    """Whether the claims are others than those that were noted down before the first result."""
    then, now = _noted(study, runs_dir), _now(study)
    if then is None or now["claims"] == then["claims"] == []:
        return False
    return any(then[key] != now.get(key) for key in then)


def _claims(study: Study, runs_dir: Path, known: bool, keep: bool) -> list[str]:
    """Say where the claims are not those that were written before the first result."""
    if known and claims_changed(study, runs_dir):
        return [
            f"the claims of {study.path.name}, or the objective that they are about, were changed "
            "after results were there: they were not written before the run "
            f"({_file(study, runs_dir)} has those that were). A new --runs folder starts afresh"
        ]
    if keep and (not known or _noted(study, runs_dir) is None):
        write_text(_file(study, runs_dir), json.dumps(_now(study), indent=2))
    return []


def _now(study: Study) -> dict[str, Any]:
    return {
        "metric": study.objective.metric,
        "direction": study.objective.direction,
        "claims": [claim.model_dump(mode="json") for claim in study.claims],
    }


def _noted(study: Study, runs_dir: Path) -> dict[str, Any] | None:
    """What was noted down; earlier versions noted the claims alone, as a list."""
    try:
        found = json.loads(_file(study, runs_dir).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if isinstance(found, list):
        found = {"claims": found}
    if not isinstance(found, dict) or "claims" not in found:
        return None
    # a key that claims have got since was not given then
    since = {k: f.default for k, f in ClaimRule.model_fields.items() if not f.is_required()}
    return found | {"claims": [since | claim for claim in found["claims"]]}


def _file(study: Study, runs_dir: Path) -> Path:
    return runs.study_dir(study, runs_dir) / "claims.json"
