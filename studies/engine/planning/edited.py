"""What an edit means for the trials that were run before: what is kept, what is new, and why.

A trial is its resolved configuration, its seed, and the content of the files and plug-ins that it
uses. So a new seed or arm adds trials, a renamed arm keeps its own, and an arm with other settings
or other data has other trials: those it had before stay in their folders and are left out of the
report. Nothing finished ever changes its meaning.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from studies.engine.definition.study import ClaimRule, Study
from studies.engine.planning import runs
from studies.engine.planning.causes import Cause, causes
from studies.engine.records import Stage, Trial, deciding, read_trial
from studies.files import write_text

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
) -> list[str]:
    """Lines about the finished trials of `stage`; none where nothing was edited.

    `trials` are those of every stage as they are now; nothing is said of arms and tasks that
    are `undecided`, whose trials of `stage` are not known yet. `again` knows what `trials` cannot
    tell.
    """
    folder = runs.study_dir(study, runs_dir) / "trials"
    before = [t for t in finished(folder) if t.stage == stage and t.cell not in undecided]
    own = [trial for trial in trials if trial.stage == stage]
    planned = {trial.key for trial in trials}
    gone = [trial for trial in before if trial.key not in planned]
    lines = _left_out(study, gone, own, again or nearest(own), folder)
    if gone:
        happened = "; ".join(dict.fromkeys(c.what for found, _ in lines for c in found))
        kept, new = len(before) - len(gone), {trial.key for trial in own}
        waiting = len(new - {trial.key for trial in before})
        told = f"{happened}: of {len(before)} finished trials {kept} are kept"
        told += "" if stage == "search" else f", {waiting} of {len(new)} are new or waiting"
        return [told, *(line for _, line in lines), *_renamed(before, own)]
    return _renamed(before, own)


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
        found = causes(study, old, again(old), arms)
        seeds.setdefault((old.arm, found), set()).add(old.seed)
    shared: dict[tuple[tuple[Cause, ...], tuple[int, ...]], list[str]] = {}
    for (arm, found), each in sorted(seeds.items(), key=lambda pair: pair[0][0]):
        shared.setdefault((found, tuple(sorted(each))), []).append(f"'{arm}'")
    return [(found, _line(names, found, numbers, folder)) for (found, numbers), names
            in shared.items()]  # fmt: skip


def _line(names: list[str], found: Sequence[Cause], seeds: Sequence[int], folder: Path) -> str:
    back = " and ".join(dict.fromkeys(cause.back for cause in found if cause.back))
    return (
        f"arm{'s' * (len(names) > 1)} {', '.join(names)}: "
        f"{' and '.join(cause.arm for cause in found)}; results of before (seeds "
        f"{', '.join(map(str, seeds))}) stay in {folder}, left out of the report"
        f"{f'; {back} to have them back' if back else ''}"
    )


def _renamed(before: Sequence[Trial], planned: Sequence[Trial]) -> list[str]:
    now = {trial.key: trial for trial in planned}
    pairs = {
        (old.arm, now[old.key].arm)
        for old in before
        if old.key in now
        and old.arm not in (now[old.key].arm, now[old.key].label)  # label: version 1
    }
    return [f"arm '{old}' is now called '{new}'; its trials are kept" for old, new in sorted(pairs)]


def claim_remarks(study: Study, runs_dir: Path, *, keep: bool) -> list[str]:
    """Lines where the claims are not those that were written before the first result.

    With `keep` they are noted down as such where no result is there yet.
    """
    known = any(finished(runs.study_dir(study, runs_dir) / "trials"))
    if known and claims_changed(study, runs_dir):
        return [
            f"the claims of {study.path.name}, or the objective that they are about, were changed "
            "after results were there: they were not written before the run "
            f"({_file(study, runs_dir)} has those that were). A new --runs folder starts afresh"
        ]
    if keep and (not known or _noted(study, runs_dir) is None):
        write_text(_file(study, runs_dir), json.dumps(_now(study), indent=2))
    return []


def claims_changed(study: Study, runs_dir: Path) -> bool:
    """Whether the claims are others than those that were noted down before the first result."""
    then, now = _noted(study, runs_dir), _now(study)
    if then is None or now["claims"] == then["claims"] == []:
        return False
    return any(then.get(key) != now.get(key) for key in ("tasks", *then))


def _now(study: Study) -> dict[str, Any]:
    objective = study.objective_of()
    found: dict[str, Any] = {
        "metric": objective.metric,
        "direction": objective.direction,
        "claims": [claim.model_dump(mode="json") for claim in study.claims],
    }
    if study.tasks:
        found["tasks"] = {task.name: study.objective_of(task.name).metric for task in study.tasks}
    return found


def _noted(study: Study, runs_dir: Path) -> dict[str, Any] | None:
    """What was noted down; earlier versions noted the claims alone, as a list.

    They also knew better and worse, by the objective, beside higher and lower.
    """
    try:
        found = json.loads(_file(study, runs_dir).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if isinstance(found, list):
        found = {"claims": found}
    if not isinstance(found, dict) or "claims" not in found:
        return None
    better, worse = "higher", "lower"
    if found.get("direction", study.objective.direction) == "minimize":
        better, worse = worse, better
    for claim in found["claims"]:
        claim["expect"] = claim["expect"].replace("better", better).replace("worse", worse)
    # a key that claims have got since was not given then
    since = {k: f.default for k, f in ClaimRule.model_fields.items() if not f.is_required()}
    return found | {"claims": [since | claim for claim in found["claims"]]}


def _file(study: Study, runs_dir: Path) -> Path:
    return runs.study_dir(study, runs_dir) / "claims.json"
