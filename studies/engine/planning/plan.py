"""Arms × tasks × seeds as `Trial`s, for the seeds of a study and for the stage that tunes."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from studies.engine.definition.plugins import load_plugins, used_by
from studies.engine.definition.points import Point, apply, expand
from studies.engine.definition.study import Study
from studies.engine.errors import StudyError
from studies.engine.planning.tuning import Candidate, Choice, Tuning
from studies.engine.records import Trial

Make = Callable[..., Trial]
"""From a seed and a point, and further fields of the trial, to the trial."""


def plan(study: Study, choices: Sequence[Choice] = ()) -> list[Trial]:
    """The trials of the study's seeds, one seed after the other: arms can be compared early.

    `choices` are what a stage before the seeds chose for arms.
    """
    points, make = prepared(study)
    chosen = {choice.cell: choice.settings for choice in choices}
    points = [apply(point, chosen.get(point.cell, {})) for point in points]
    return _with_seeds(study, study.seeds, points, make)


def _with_seeds(
    study: Study, seeds: Sequence[int], points: Sequence[Point], make: Make
) -> list[Trial]:
    """The trials of `seeds`, one seed after the other."""
    if study.after is not None:
        after = {"after": study.after.settings()}
        points = [replace(point, config=point.config | after) for point in points]
    return [make(seed, point, keep=study.keep) for seed in seeds for point in points]


def plan_tuning(study: Study) -> list[Trial]:
    """The trials of the stage that chooses settings; none where the study tunes nothing.

    After those of the listed values come those that an arm may ask for by `tune.extend`, then those
    of `tune.race`.
    """
    points, make = prepared(study)
    if study.tune is None:
        return []
    listed, beyond = study.tune.listed, study.tune.further
    first, race = study.tune.seeds, study.tune.race_seeds
    return [
        make(seed, apply(point, settings), stage="tune", candidate=settings)
        for seeds, batch in ((first, listed), (first, beyond), (race, [*listed, *beyond]))
        for seed, settings, point in itertools.product(seeds, batch, points)
    ]


def plan_candidates(study: Study, stage: Sequence[Trial]) -> Tuning:
    """What each arm whose tuning trials are all in `stage` may run once they have ended.

    On several tasks every arm chooses on each. Where seeds are added until the claims are decided,
    it is the first of them.
    """
    points, make = prepared(study)
    assert study.tune is not None, "asked only of a study that tunes"
    beyond, first, race = study.tune.further, len(study.tune.seeds), study.tune.race_seeds
    tried = [*study.tune.listed, *beyond]
    scores: dict[tuple[tuple[str, str], str], list[str]] = {}
    for trial in stage:
        scores.setdefault((trial.cell, repr(trial.candidate)), []).append(trial.key)

    def candidate(point: Point, settings: dict[str, Any]) -> Candidate:
        return Candidate(
            scored_by=tuple(scores.get((point.cell, repr(settings)), ())),
            trials=tuple(_with_seeds(study, study.first_seeds, [apply(point, settings)], make)),
            settings=settings,
            beyond=settings in beyond,
        )

    tunes = [[candidate(point, settings) for settings in (*tried, {})] for point in points]
    arms = [arm for arm in tunes if all(len(c.scored_by) == first + len(race) for c in arm[:-1])]
    cells = {arm[0].cell for arm in arms}
    chosen_on = {task: study.objective_of(task).select_on for _, task in cells}
    select_on = study.objective_of().select_on
    assert select_on is not None, "refused when the study was read"
    return Tuning(
        select_on=select_on,
        select_on_of={task: each for task, each in chosen_on.items() if task and each is not None},
        direction=study.objective.direction,
        statistic=study.tune.statistic,
        arms=tuple(map(tuple, arms)),
        first=first,
        may_follow=tuple(
            t for t in stage if t.cell in cells and (t.candidate in beyond or t.seed in race)
        ),
    )


def prepared(study: Study) -> tuple[list[Point], Make]:
    """The arms of `study`, which was found right when it was read, and what makes a trial of a seed
    and an arm; that raises `StudyError` where files are no data set."""
    loaded = load_plugins(study.plugin_files)

    def make(seed: int, point: Point, /, **about: Any) -> Trial:
        used = used_by(point.config, loaded)
        chooses = point.config["train"]["keep"] == "best"
        chooses |= "steps_to" in point.config.get("after", {})
        select_on = study.objective_of(point.task).select_on
        try:
            contents = study.contents.of(point.config)
        except ValueError as error:  # files of which no data set can be made
            raise StudyError(f"{study.place('task')}: {error}") from error
        return Trial(
            study=study.name,
            profile=study.profile,
            arm=point.arm,
            seed=seed,
            task=point.task,
            swept=point.swept,
            config=point.config | ({"select_on": select_on} if chooses else {}),
            plugins=tuple(str(plugin.file) for plugin in used),
            plugin_hashes=tuple(plugin.sha256 for plugin in used),
            contents=contents,
            **about,
        )

    return expand(study)[0], make
