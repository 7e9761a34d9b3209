"""What an edited study file means for the trials that were run before: what is kept, what is new.

A trial is its resolved configuration and seed. So a new seed or arm adds trials, a renamed arm
keeps its own, and an arm with other settings has other trials: those it had before stay in their
folders and are left out of the report. Nothing finished ever changes its meaning.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from studies.engine import runs
from studies.engine.definition.study import Study
from studies.engine.records import Trial, write_text


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
        if key in before and before[key][0] != trial.arm
    }
    lines += [f"arm '{old}' is now called '{new}'; its trials are kept" for old, new in
              sorted(renamed)]  # fmt: skip
    return lines + _claims(study, folder / "claims.json", bool(before), keep)


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


def _claims(study: Study, file: Path, known: bool, keep: bool) -> list[str]:
    """Say where the claims are not those that were written before the first result."""
    now: list[Any] = [claim.model_dump(mode="json") for claim in study.claims]
    try:
        then = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        then = None
    if then == now:
        return []
    if then is None or not known:
        if keep:
            write_text(file, json.dumps(now, indent=2))
        return []
    return [
        f"the claims of {study.path.name} were changed after results were there: they were not "
        f"written before the run ({file} has those that were). A new --runs folder starts afresh"
    ]
