"""What an edit means for the trials that were run before: what is kept, what is new, and why.

A trial is its resolved configuration, its seed, and the content of the files and plug-ins that it
uses. So a new seed or arm adds trials, a renamed arm keeps its own, and an arm with other settings
or other data has other trials: those it had before stay in their folders and are left out of the
report. Nothing finished ever changes its meaning.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from studies.engine.definition.study import Study
from studies.engine.planning import runs
from studies.engine.planning.causes import Cause, causes
from studies.engine.records import Stage, Trial, deciding, read_trial

Again = Callable[[Trial], Trial | None]
"""From a trial that was run to what it would be now; None where that is unknown."""


def remarks(
    study: Study,
    stage: Stage,
    trials: Sequence[Trial],
    runs_dir: Path,
    *,
    undecided: Collection[tuple[str, str]] = (),
    again: Again | None = None,
    possible: Collection[Trial] = (),
) -> list[str]:
    """Lines about the finished trials of `stage`; none where nothing was edited.

    `trials` are those of every stage as they are now; nothing is said of arms and tasks that
    are `undecided`, whose trials of `stage` are not known yet. `again` knows what `trials` cannot
    tell. `possible` ones may be asked for by results to come.
    """
    folder = runs.study_dir(study, runs_dir) / "trials"
    before = [t for t in finished(folder) if t.stage == stage and t.cell not in undecided]
    own = [trial for trial in trials if trial.stage == stage]
    planned = {trial.key for trial in (*trials, *possible)}
    gone = [trial for trial in before if trial.key not in planned]
    lines = _left_out(study, gone, own, again or nearest(own), folder)
    summary = []
    if gone:
        happened = "; ".join(dict.fromkeys(c.what for reasons, _ in lines for c in reasons))
        left, new = len(before) - len(gone), {trial.key for trial in own}
        waiting = len(new - {trial.key for trial in before})
        more = "" if stage == "search" else f", {waiting} of {len(new)} are new or waiting"
        summary = [f"{happened}: of {len(before)} finished trials {left} are kept{more}"]
    return [*summary, *(line for _, line in lines), *_renamed(before, own)]


def finished(folder: Path) -> Iterator[Trial]:
    """Each trial in `folder`, of those of a study, that has a result."""
    for path in sorted(folder.glob("*/result.json")):
        try:
            yield read_trial(path.parent)
        except (OSError, ValueError):  # no folder of ours
            continue


def nearest(planned: Sequence[Trial]) -> Again:
    """Finds the planned trial of the same settings and seed, else of the same arm and seed."""
    alike = {_settings(trial): trial for trial in planned}
    named = {(t.cell, t.seed, json.dumps(t.candidate, sort_keys=True)): t for t in planned}

    def find(old: Trial) -> Trial | None:
        name = old.cell, old.seed, json.dumps(old.candidate, sort_keys=True)
        return alike.get(_settings(old)) or named.get(name)

    return find


def _settings(trial: Trial) -> str:
    return json.dumps([deciding(trial.config), trial.seed], sort_keys=True, default=repr)


def _left_out(
    study: Study, gone: Sequence[Trial], planned: Sequence[Trial], again: Again, folder: Path
) -> list[tuple[tuple[Cause, ...], str]]:
    """Why results are in the report no more, with a line for arms that share cause and seeds."""
    arms = {trial.arm for trial in planned}
    seeds: dict[tuple[str, tuple[Cause, ...]], set[int]] = {}
    for old in gone:
        reasons = causes(study, old, again(old), arms)
        seeds.setdefault((old.arm, reasons), set()).add(old.seed)
    shared: dict[tuple[tuple[Cause, ...], tuple[int, ...]], list[str]] = {}
    for (arm, reasons), each in sorted(seeds.items(), key=lambda pair: pair[0][0]):
        shared.setdefault((reasons, tuple(sorted(each))), []).append(f"'{arm}'")
    lines = []
    for (reasons, numbers), names in shared.items():
        back = " and ".join(dict.fromkeys(cause.back for cause in reasons if cause.back))
        line = (
            f"{'arm' if len(names) == 1 else 'arms'} {', '.join(names)}: "
            f"{' and '.join(cause.arm for cause in reasons)}; results of before (seeds "
            f"{', '.join(map(str, numbers))}) stay in {folder}, left out of the report"
            f"{f'; {back} to have them back' if back else ''}"
        )
        lines.append((reasons, line))
    return lines


def _renamed(before: Sequence[Trial], planned: Sequence[Trial]) -> list[str]:
    now = {trial.key: trial for trial in planned}
    pairs = {
        (old.arm, now[old.key].arm)
        for old in before
        if old.key in now
        and old.arm not in (now[old.key].arm, now[old.key].label)  # label: version 1
    }
    return [f"arm '{old}' is now called '{new}'; its trials are kept" for old, new in sorted(pairs)]
