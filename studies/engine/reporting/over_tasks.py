r"""Several tasks as one: the mean over them of each arm and seed, and a test whose units they are.

$y_{as} = \frac 1T \sum_t y_{ats}$ is what an arm $a$ has at seed $s$, where all $T$ tasks have
ended there. Arms are compared on it seed by seed, as on one task.
"""

import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from studies.engine.definition.sections import gap_name, train_name
from studies.engine.definition.study import Study
from studies.engine.records import Failure, Result, Trial
from studies.engine.reporting.arm_facts import mean_cost

Pair = tuple[Trial, Result]


def means(study: Study, pairs: Sequence[Pair]) -> list[Pair]:
    """For each arm and seed one pair that stands for those of all tasks.

    Its metrics are the means of those that all tasks have, with that of the objective called as
    `Study.objective_of` calls it, and its cost is the mean cost. Where a task has not ended, or has
    no value of what is compared, it is failed.
    """
    groups: dict[tuple[str, int], dict[str, Pair]] = {}
    for trial, result in pairs:
        groups.setdefault((trial.arm, trial.seed), {})[trial.task] = trial, result
    apart = {path for own in groups.values() for path in _apart(own)}
    return [(_named_arm(own, apart), _mean(study, own)) for own in groups.values()]


def ended_on_all(
    study: Study, pairs: Sequence[Pair], results: Mapping[str, Mapping[int, Result]]
) -> dict[str, dict[int, Result]]:
    """Those of `results`, by arm and seed, of which every task is among `pairs`."""
    count = Counter((trial.arm, trial.seed) for trial, _ in pairs)
    return {
        arm: {seed: r for seed, r in own.items() if count[arm, seed] == len(study.tasks)}
        for arm, own in results.items()
    }


def _apart(pairs: Mapping[str, Pair]) -> set[str]:
    """What an arm has set and has not alike on all tasks: multiples of what each has chosen."""
    own = [trial.swept for trial, _ in pairs.values()]
    return {path for one in own for path in one if any(o.get(path) != one[path] for o in own)}


def _named_arm(pairs: Mapping[str, Pair], apart: Collection[str]) -> Trial:
    """The trial that stands for those of all tasks, without settings that have no one value."""
    trial = next(iter(pairs.values()))[0]
    swept = {path: value for path, value in trial.swept.items() if path not in apart}
    return trial.model_copy(update={"task": "", "swept": swept})


def _mean(study: Study, pairs: Mapping[str, Pair]) -> Result:
    """What the trials in `pairs`, one a task, found on average."""
    first = next(iter(pairs.values()))[1]
    done = {task: result for task, (_, result) in pairs.items() if result.status == "done"}
    if lacking := [task.name for task in study.tasks if task.name not in done]:
        failure = Failure(kind="exception", message=f"not done on {', '.join(lacking)}")
        return Result(key=first.key, status="failed", failure=failure)
    named = [_under_shared_names(study, task.name, done[task.name].metrics) for task in study.tasks]
    shared = [name for name in named[0] if all(name in each for each in named)]
    chosen = first.chosen if all(r.chosen == first.chosen for r in done.values()) else {}
    return Result(
        key=first.key,
        status="done",
        metrics={name: statistics.fmean(each[name] for each in named) for name in shared},
        cost=mean_cost([result.cost for result in done.values()]),
        chosen=chosen,
    )


def _under_shared_names(study: Study, task: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """`metrics`, with those of the task's own objective under the name that it has over all."""
    own, whole, renamed = study.objective_of(task), study.objective_of(), dict(metrics)
    for key in ("metric", "select_on"):
        mine, shared = getattr(own, key), getattr(whole, key)
        if mine != shared and mine and shared:  # also of after/affine/test/accuracy and the like
            ends = {name: value for name, value in metrics.items() if name.endswith(mine)}
            renamed |= {f"{name.removesuffix(mine)}{shared}": v for name, v in ends.items()}
    mine, shared = (each.metric.partition("/")[2] for each in (own, whole))
    for name in (train_name, gap_name):
        if name(mine) in metrics:
            renamed[name(shared)] = metrics[name(mine)]
    return renamed
