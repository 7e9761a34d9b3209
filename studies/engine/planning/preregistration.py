"""What was asked before the first result: claims, and the looks at which they are judged.

They are noted in `claims.json` until a result is there. Claims, looks or seeds that are others
afterwards may follow from the results, and that is said.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from studies.engine.definition.study import ClaimRule, Study
from studies.engine.planning import runs
from studies.engine.planning.edits import finished
from studies.files import write_text


@dataclass(frozen=True)
class Changes:
    """What is not as it was noted before the first result."""

    claims: bool = False
    """The claims, or the objective that they are about."""
    looks: bool = False
    """After how many seeds claims are judged."""
    seeds: tuple[int, ...] = ()
    """Seeds that were added to a list."""


NO_CHANGES = Changes()


def remarks(study: Study, runs_dir: Path, *, keep: bool) -> list[str]:
    """Lines where claims or looks are not those that were written before the first result.

    With `keep` they are noted down as such where no result is there yet.
    """
    folder, file, name = runs.study_dir(study, runs_dir), _file(study, runs_dir), study.path.name
    known = any(finished(folder / "trials"))
    since = changes(study, runs_dir) if known else NO_CHANGES
    about = {
        f"the claims of {name}, or the objective that they are about,": (since.claims, "written"),
        f"the looks of {name} at its claims (`seeds`)": (since.looks, "planned"),
    }
    lines = [
        f"{what} were changed after results were there: they were not {how} before the run "
        f"({file} has those that were). A new --runs folder starts afresh"
        for what, (changed, how) in about.items()
        if changed
    ]
    if not lines and keep and (not known or _registered(study, runs_dir) is None):
        write_text(file, json.dumps(_now(study), indent=2))
    return lines


def changes(study: Study, runs_dir: Path) -> Changes:
    """What is not as it was noted down; nothing where nothing was."""
    then, now = _registered(study, runs_dir), _now(study)
    if then is None:
        return NO_CHANGES
    spread = then.pop("seeds", None)
    had_claims = not now["claims"] == then["claims"] == []
    for each in (then, now):  # their order says nothing
        each["claims"] = sorted(each["claims"], key=lambda claim: json.dumps(claim, sort_keys=True))
    other = any(then.get(key) != now.get(key) for key in ("tasks", *then))
    if study.until_decided:  # earlier versions noted no seeds, and knew lists alone
        return Changes(had_claims and other, had_claims and spread != now["seeds"])
    listed = spread if isinstance(spread, list) else study.seeds
    added = tuple(seed for seed in study.seeds if seed not in listed)
    return Changes(had_claims and other, had_claims and isinstance(spread, dict), added)


def _now(study: Study) -> dict[str, Any]:
    objective, growth = study.objective_of(), study.growth
    content: dict[str, Any] = {
        "metric": objective.metric,
        "direction": objective.direction,
        "claims": [claim.model_dump(mode="json") for claim in study.claims],
        "seeds": (
            list(study.seeds)
            if growth is None
            else {"looks": list(growth.sizes), "first": growth.first}
        ),
    }
    if study.tasks:
        content["tasks"] = {task.name: study.objective_of(task.name).metric for task in study.tasks}
    return content


def _registered(study: Study, runs_dir: Path) -> dict[str, Any] | None:
    """What was noted down; earlier versions noted the claims alone, as a list.

    They also knew better and worse, by the objective, beside higher and lower.
    """
    try:
        content = json.loads(_file(study, runs_dir).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    content = {"claims": content} if isinstance(content, list) else content
    if not isinstance(content, dict) or not _are_claims(claims := content.get("claims")):
        return None
    better, worse = "higher", "lower"
    if content.get("direction", study.objective.direction) == "minimize":
        better, worse = worse, better
    for claim in claims:
        claim["expect"] = claim["expect"].replace("better", better).replace("worse", worse)
    # a key that claims have got since was not given then
    since = {k: f.default for k, f in ClaimRule.model_fields.items() if not f.is_required()}
    return content | {"claims": [since | claim for claim in claims]}


def _are_claims(content: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Whether a file that anybody may have edited has claims there."""
    return isinstance(content, list) and all(
        isinstance(claim, dict) and isinstance(claim.get("expect"), str) for claim in content
    )


def _file(study: Study, runs_dir: Path) -> Path:
    return runs.study_dir(study, runs_dir) / "claims.json"
