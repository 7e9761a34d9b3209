"""`--only SETTING=VALUE`: the part of a study that a run is about."""

from collections.abc import Sequence

from basis_zoo.registry import did_you_mean
from studies.engine.definition.points import value_at
from studies.engine.definition.yaml_source import parse_scalar
from studies.engine.errors import StudyError
from studies.engine.labels import short_value
from studies.engine.records import Trial


def only(trials: Sequence[Trial], conditions: Sequence[str]) -> list[Trial]:
    """The trials that match `conditions`: `adapter.num_basis=8`, `arm=lora`, `task=rte`, `seed=0`.

    Conditions on one setting are alternatives; different settings must all match. Raises
    `StudyError` for a setting that no trial has and a value that no trial gives it.
    """
    wanted: dict[str, list[object]] = {}
    for condition in conditions:
        path, sign, text = condition.partition("=")
        path = path.strip()
        have = [value for trial in trials for value in _values(trial, path)]
        if not sign or not have:
            several = ["task"] if any(trial.task for trial in trials) else []
            sections = [(s, own) for t in trials for s, own in t.config.items()]
            paths = {f"{s}.{key}" for s, own in sections if isinstance(own, dict) for key in own}
            known = sorted({"arm", "seed", *several, *paths})
            raise StudyError(f"--only {condition!r}: {_refusal(condition, trials, known)}")
        value = text.strip() if path in ("arm", "task") else parse_scalar(text)
        if value not in have:
            values = ", ".join(dict.fromkeys(short_value(each) for each in have))
            hint = did_you_mean(text.strip(), values.split(", "))
            raise StudyError(f"--only {condition!r}: no trial has it.{hint} Values: {values}")
        wanted.setdefault(path, []).append(value)
    chosen = list(trials)
    for path, either in wanted.items():
        chosen = [t for t in chosen if any(value in either for value in _values(t, path))]
    if not chosen:
        raise StudyError(f"--only {' '.join(conditions)}: no trial matches all of these")
    return chosen


def _refusal(condition: str, trials: Sequence[Trial], known: Sequence[str]) -> str:
    """Why `condition` is none, and what it was probably meant to be."""
    path, sign, _ = condition.partition("=")
    arms = [name for trial in trials for name in (trial.arm, trial.label)]
    wrong = f"{path!r} is no setting" if sign else "expected SETTING=VALUE, got no '='"
    if condition in arms:
        return f"{wrong}. For the arm of this name: --only 'arm={condition}'"
    last = [name for name in known if name.rpartition(".")[2] == path]
    hint = f" Did you mean {last[0]!r}?" if last and sign else did_you_mean(path, known)
    return f"{wrong}.{hint} Settings: {', '.join(known)}"


def _values(trial: Trial, path: str) -> list[object]:
    """What `trial` has at `path`: nothing, one value, or the names of arm and candidate."""
    if path == "arm":
        return [trial.arm, trial.label]
    if path == "seed":
        return [trial.seed]
    if path == "task":
        return [trial.task] if trial.task else []
    value = value_at(trial.config, path, otherwise=...)
    return [] if value is ... else [value]
