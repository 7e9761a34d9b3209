"""Arms × seeds as `Trial`s, and the table that shows how far they are."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from basis_zoo.registry import did_you_mean
from studies.engine import runs
from studies.engine.definition import verify
from studies.engine.definition.labels import shown
from studies.engine.definition.plugins import load_plugins
from studies.engine.definition.points import Point
from studies.engine.definition.study import Study
from studies.engine.definition.yaml_source import parse_scalar
from studies.engine.errors import StudyError
from studies.engine.planning import tuning
from studies.engine.planning.plan_file import Candidate, Tuning
from studies.engine.records import Result, Trial
from studies.engine.searching import search

STYLES = {"done": "green", "failed": "red", "running": "yellow", "waiting": "dim"}


def plan(
    study: Study, plugins: Sequence[str | Path] = (), choices: Sequence[tuning.Choice] = ()
) -> list[Trial]:
    """Every trial of `study`, one seed after the other so that arms can be compared early.

    `choices` are what the tuning stage found for the arms, see `plan_tuning`.

    Raises `StudyError` where an arm cannot be built or a plug-in cannot be imported.
    """
    points, make = _prepared(study, plugins)
    return _with_seeds(study, points, make, {choice.arm: choice.settings for choice in choices})


def _with_seeds(
    study: Study,
    points: Sequence[Point],
    make: Callable[[int, Point], Trial],
    settings: Mapping[str, Mapping[str, Any]],
) -> list[Trial]:
    """The trials of the study's seeds, with the settings of the arms that have some."""
    points = [tuning.apply(point, settings.get(point.arm, {})) for point in points]
    if study.after is not None:
        after = {"after": study.after.model_dump(mode="json", exclude_none=True)}
        points = [replace(point, config=point.config | after) for point in points]
    return [make(seed, point) for seed in study.seeds for point in points]


def plan_tuning(study: Study, plugins: Sequence[str | Path] = ()) -> list[Trial]:
    """Every trial of the stage that chooses settings; none where the study tunes nothing."""
    points, make = _prepared(study, plugins)
    return [make(seed, point) for seed, point in tuning.tuned_points(study, points)]


def plan_candidates(
    study: Study, stage: Sequence[Trial], plugins: Sequence[str | Path] = ()
) -> Tuning:
    """What each arm whose tuning trials are all in `stage` may run once they have ended."""
    points, make = _prepared(study, plugins)
    keys: dict[str, list[str]] = {}
    for trial in stage:
        keys.setdefault(trial.arm, []).append(trial.key)

    def scored_by(arm: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(keys.get(tuning.label(arm, settings), ())) if settings else ()

    tried, seeds = tuning.combinations(study), len(study.tune["seeds"])
    arms: dict[str, list[Candidate]] = {
        arm: []
        for arm in dict.fromkeys(map(tuning.arm_of, stage))
        if all(len(scored_by(arm, settings)) == seeds for settings in tried)
    }
    for settings in (*tried, {}):
        trials = _with_seeds(study, points, make, dict.fromkeys(arms, settings))
        for arm, candidates in arms.items():
            own = tuple(trial for trial in trials if trial.arm == arm)
            known = scored_by(arm, settings)
            candidates.append(Candidate(scored_by=known, trials=own, settings=settings))
    assert study.objective.select_on is not None, "refused when the study was read"
    return Tuning(
        select_on=study.objective.select_on,
        direction=study.objective.direction,
        arms=tuple(map(tuple, arms.values())),
    )


def plan_search(study: Study, plugins: Sequence[str | Path] = ()) -> search.Make:
    """What makes the trials of the study's search; see `studies.engine.searching.search`."""
    points, make = _prepared(study, plugins)
    arm = next(point for point in points if point.arm == search.wanted(study).arm)
    return search.make_point(study, arm, make)


def _prepared(
    study: Study, plugins: Sequence[str | Path]
) -> tuple[list[Point], Callable[[int, Point], Trial]]:
    """The arms of `study`, and what makes a trial of a seed and an arm."""
    hashes = load_plugins(plugins)
    points, problems = verify.points_of(study)
    if problems:
        raise StudyError(*problems)
    files = tuple(str(Path(file).resolve()) for file in plugins)

    def make(seed: int, point: Point) -> Trial:
        return Trial(
            study=study.name,
            profile=study.profile,
            arm=point.arm,
            seed=seed,
            swept=point.swept,
            config=point.config,
            plugins=files,
            plugin_hashes=hashes,
        )

    return points, make


def _refusal(condition: str, trials: Sequence[Trial], known: Sequence[str]) -> str:
    """Why `condition` is none, and what it was probably meant to be."""
    path, sign, _ = condition.partition("=")
    arms = [name for trial in trials for name in (trial.arm, tuning.arm_of(trial))]
    wrong = f"{path!r} is no setting" if sign else "expected SETTING=VALUE, got no '='"
    if condition in arms:
        return f"{wrong}. For the arm of this name: --only 'arm={condition}'"
    last = [name for name in known if name.rpartition(".")[2] == path]
    hint = f" Did you mean {last[0]!r}?" if last and sign else did_you_mean(path, known)
    return f"{wrong}.{hint} Settings: {', '.join(known)}"


def only(trials: Sequence[Trial], conditions: Sequence[str], *, tuned: bool = False) -> list[Trial]:
    """The trials that match `conditions` such as `adapter.num_basis=8`, `arm=lora`, `seed=0`.

    Conditions on one setting are alternatives; different settings must all match. Where `trials`
    are `tuned`, the name of an arm means all its trials. Raises `StudyError` for a setting that no
    trial has and a value that no trial gives it.
    """
    wanted: dict[str, list[object]] = {}
    for condition in conditions:
        path, sign, text = condition.partition("=")
        path = path.strip()
        have = [value for trial in trials for value in _values(trial, path, tuned)]
        if not sign or not have:
            known = sorted({"arm", "seed", *(p for trial in trials for p in _paths(trial))})
            raise StudyError(f"--only {condition!r}: {_refusal(condition, trials, known)}")
        value = text.strip() if path == "arm" else parse_scalar(text)
        if value not in have:
            values = ", ".join(dict.fromkeys(shown(each) for each in have))
            hint = did_you_mean(text.strip(), values.split(", "))
            raise StudyError(f"--only {condition!r}: no trial has it.{hint} Values: {values}")
        wanted.setdefault(path, []).append(value)
    chosen = [
        trial
        for trial in trials
        if all(
            any(value in values for value in _values(trial, path, tuned))
            for path, values in wanted.items()
        )
    ]
    if not chosen:
        raise StudyError(f"--only {' '.join(conditions)}: no trial matches all of these")
    return chosen


def _values(trial: Trial, path: str, tuned: bool) -> list[object]:
    """What `trial` has at `path`: nothing, one value, or the two names of an arm being tuned."""
    if path == "arm":
        return [trial.arm, tuning.arm_of(trial)] if tuned else [trial.arm]
    if path == "seed":
        return [trial.seed]
    value: object = trial.config
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            return []
        value = value[key]
    return [value]


def _paths(trial: Trial) -> list[str]:
    sections = ((k, v) for k, v in trial.config.items() if isinstance(v, dict))
    return [f"{section}.{key}" for section, options in sections for key in options]


def plan_table(trials: Sequence[Trial], runs_dir: Path, slots: int) -> RenderableType:
    """Arms × seeds with the state of each trial, the counts, and how long the rest will take."""
    results = [runs.result_of(trial, runs_dir) for trial in trials]
    states = {
        (trial.arm, trial.seed): result.status if result else runs.state_of(trial, runs_dir)
        for trial, result in zip(trials, results, strict=True)
    }
    seeds = list(dict.fromkeys(trial.seed for trial in trials))
    table = Table(title=f"{trials[0].study} ({trials[0].profile})", title_justify="left")
    table.add_column("arm")
    for seed in seeds:
        table.add_column(f"seed {seed}")
    for arm in dict.fromkeys(trial.arm for trial in trials):
        cells = []
        for seed in seeds:
            state = states.get((arm, seed))
            cells.append(Text(state or "-", style=STYLES.get(state or "", "dim")))
        table.add_row(Text(arm), *cells)
    counts = {state: list(states.values()).count(state) for state in STYLES}
    known = list(zip(trials, results, strict=True))
    summary = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    return Group(table, Text(f"{len(trials)} trials: {summary}"), Text(estimate(known, slots)))


def estimate(known: Sequence[tuple[Trial, Result | None]], slots: int) -> str:
    """How long what is left will take, from the median time of finished trials, arm by arm."""
    seconds: dict[str, list[float]] = {}
    left: list[Trial] = []
    for trial, result in known:
        if result is None:
            left.append(trial)
        elif result.status == "done":
            seconds.setdefault(trial.arm, []).append(result.seconds)
    if not left:
        return "nothing left to run"
    every = [each for times in seconds.values() for each in times]
    if not every:
        return "no finished trial yet: no estimate"
    total = sum(statistics.median(seconds.get(trial.arm, every)) for trial in left) / slots
    return f"about {duration(total)} left on {slots} slot{'s' if slots > 1 else ''}"


def duration(seconds: float) -> str:
    """`seconds` as a person says it: 48 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
