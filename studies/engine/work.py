"""Work off plans on a machine that has little more than torch, transformers and peft.

    python run_study.py STUDY.yaml --export-plan plan.json       # where the study lives
    python -m studies.engine.work plan.json --runs DIR --slots 8  # on the GPU machine
    python run_study.py STUDY.yaml --import DIR                   # where the study lives

Needs no Optuna, MLflow, rich, matplotlib, scipy or datasets. Results lie in DIR as they would in
`--runs`; the same command again runs what is left.
"""

import argparse
import bisect
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from studies.engine import runs, slots
from studies.engine.dispatching import packing
from studies.engine.dispatching.child import GRACE_SECONDS
from studies.engine.dispatching.loop import MIN_FREE_BYTES, stop_signals
from studies.engine.dispatching.pool import Task, Worker
from studies.engine.errors import StudyError
from studies.engine.planning import tuning
from studies.engine.planning.plan_file import Candidate, Plan, read_plan
from studies.engine.records import Result, Trial

DONE, INCOMPLETE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes, as those of run_study.py."""
POLL_SECONDS = 0.02


def main(arguments: Sequence[str] | None = None) -> int:
    """Work off the plans that the command line names; the exit code."""
    given = _parser().parse_args(arguments)
    try:
        plans = [read_plan(path) for path in dict.fromkeys(given.plans)]
        refusal = f"{given.runs} is in use: another `work` is under way; wait, or use --runs DIR"
        with runs.locked(given.runs / ".work.lock", refusal), stop_signals() as signals:
            work = Work(plans, given.runs, given.retry_failed, signals)
            work.fetch()
            work.run(work.slots(given.slots), given.minutes)
    except StudyError as error:
        _say(str(error))
        return BAD_INPUT
    _say(work.table())
    if signals:
        _say("Stopped. Finished trials are kept: run the same command again to continue")
        return INTERRUPTED
    return INCOMPLETE if work.unfinished else DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m studies.engine.work",
        description="Run the trials of exported plans; the same command again runs what is left.",
    )
    parser.add_argument("plans", type=Path, nargs="+", help="files of `--export-plan`")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--slots",
        type=slots.count_given,
        help="trials at once: a number, or auto to measure how many fit into memory; default: one "
        "a GPU, without a GPU one a core",
    )
    parser.add_argument(
        "--minutes", type=float, help="start nothing that would probably end later than this"
    )
    parser.add_argument("--retry-failed", action="store_true", help="run failed trials again")
    return parser


class Work:
    """Plans being worked off in one folder."""

    def __init__(
        self, plans: Sequence[Plan], runs_dir: Path, retry_failed: bool, signals: list[int]
    ) -> None:
        self._plans, self._runs_dir, self._signals = plans, runs_dir, signals
        self._names = [(plan.study, plan.profile) for plan in plans]
        self._retry_failed = retry_failed
        self._began = time.monotonic()
        self._seconds: dict[tuple[str, str, str], float] = {}
        """Longest trial so far of each study, profile and arm."""
        self._results: dict[tuple[str, str, str], Result | None] = {}
        """By study, profile and key."""
        self._todo: list[Task] = []
        self._tried: set[tuple[str, str, str]] = set()
        """Tuning trials of the arms that have chosen."""
        self._ran = 0
        self._trials = [list(plan.trials) for plan in plans]
        self._tuned = [list(plan.tuning.arms) if plan.tuning else [] for plan in plans]
        """By plan: the arms that have yet to choose."""
        for plan in plans:
            for trial in plan.trials:
                self._add(plan, trial)
        self._choose()

    @property
    def unfinished(self) -> int:
        """Trials that are not done, those of arms that have yet to choose among them.

        That a tuning trial failed is forgotten once its arm has chosen without it.
        """
        known = sum(
            r is None or (r.status == "failed" and identity not in self._tried)
            for identity, r in self._results.items()
        )
        return known + self._to_come

    @property
    def _to_come(self) -> int:
        """Trials of the arms that have yet to choose."""
        return sum(map(_trials_to_come, self._tuned))

    def fetch(self) -> None:
        """Fetch models and data once, before several workers want them.

        Raises:
            StudyError: something cannot be had, or a plug-in is not on this machine.
        """
        for task in self._todo:
            for file in task.trial.plugins:
                if not Path(file).is_file():
                    raise StudyError(f"plug-in {file} is not on this machine: put it there")
        if self._todo:
            from studies.archives import ArchiveError
            from studies.engine.trials.fetching import fetch_for

            try:
                fetch_for([task.trial for task in self._todo])
            except ArchiveError as error:
                raise StudyError(str(error)) from error

    def slots(self, asked: int | None) -> int:
        """How many trials to run at once; 0 asks to measure that, None for the default."""
        if asked == 0 and self._todo:
            trials = [task.trial for task in self._todo]
            return packing.measured_slots(trials, self._runs_dir, _say)
        return asked or slots.default_slots()

    def run(self, slot_count: int, minutes: float | None) -> None:
        """Run what is left, `slot_count` trials at a time; however it ends, no worker is left."""
        queue = self._todo
        slot_count = min(slot_count, len(queue) + self._to_come)
        then = f", then {self._to_come} of tuned arms" if self._to_come else ""
        _say(f"{len(self._results)} trials, {len(queue)} to run{then}, {slot_count} at once")
        self._began = time.monotonic()
        deadline = None if minutes is None else self._began + minutes * 60
        workers = [
            Worker(slot, slots.environment(slot, slot_count), self._runs_dir / f"worker-{slot}.log")
            for slot in range(slot_count)
        ]
        try:
            while not self._signals:
                for worker in workers:
                    task = worker.task
                    result = worker.poll()
                    if task is not None and result is not None:
                        self._take(task, result)
                    if worker.task is None and (next_task := self._next(queue, deadline)):
                        worker.give(next_task)
                if not any(worker.task for worker in workers):
                    break
                time.sleep(POLL_SECONDS)
        finally:
            _end(workers)
        if queue and not self._signals:
            full = not self._has_space()
            why = f"less than {MIN_FREE_BYTES // 2**20} MiB are free" if full else "time is used up"
            _say(f"{len(queue)} trials were not started: {why}")

    def table(self) -> str:
        """Done and failed trials of each study, and each failure."""
        lines = ["", f"{'study':<40} {'done':>6} {'failed':>6} {'left':>6}"]
        for plan, trials, tuned in zip(self._plans, self._trials, self._tuned, strict=True):
            found = [self._results[plan.study, plan.profile, t.key] for t in trials]
            done = sum(r is not None and r.status == "done" for r in found)
            failed = sum(r is not None and r.status == "failed" for r in found)
            left = len(found) - done - failed + _trials_to_come(tuned)
            name = f"{plan.study} ({plan.profile})"
            lines.append(f"{name:<40} {done:>6} {failed:>6} {left:>6}")
        for plan, trials in zip(self._plans, self._trials, strict=True):
            for trial in trials:
                result = self._results[plan.study, plan.profile, trial.key]
                if result is not None and result.failure is not None:
                    failure = f"{result.failure.kind}: {result.failure.message}"
                    lines.append(f"failed: {plan.study} {trial.arm} seed {trial.seed}: {failure}")
        hours = (time.monotonic() - self._began) / 3600
        lines.append(f"{self._ran} trials in {hours * 60:.1f} min, {self._ran / hours:.0f} an hour")
        return "\n".join(lines)

    def _add(self, plan: Plan, trial: Trial) -> None:
        result = runs.result_of(trial, self._runs_dir)
        if result is not None and result.status == "failed" and self._retry_failed:
            result = None
        identity = (plan.study, plan.profile, trial.key)
        if identity in self._results:
            return
        self._results[identity] = result
        if result is not None:
            self._remember(trial, result)
        else:
            run_dir = runs.trial_dir(trial, self._runs_dir)
            task = Task(trial, run_dir, plan.metric, plan.per_trial_minutes * 60)
            # seeds of a tuned arm before the plans that were named later
            bisect.insort(self._todo, task, key=lambda other: self._place(other.trial))

    def _choose(self) -> None:
        """Add the seeds of every arm whose tuning trials have all ended."""
        for plan, trials, tuned in zip(self._plans, self._trials, self._tuned, strict=True):
            assert plan.tuning is not None or not tuned
            for arm in list(tuned):
                results = {
                    key: self._results.get((plan.study, plan.profile, key))
                    for candidate in arm
                    for key in candidate.scored_by
                }
                if None in results.values():
                    continue
                best, score = _best(plan, arm, results)
                tuned.remove(arm)
                self._tried |= {(plan.study, plan.profile, key) for key in results}
                trials += best.trials
                for trial in best.trials:
                    self._add(plan, trial)
                values = ", ".join(f"{path} {value}" for path, value in best.settings.items())
                told = "no value gave a result: the study's own"
                if score is not None:
                    told = f"{values} chosen ({plan.tuning.select_on} {score:.4f})"
                _say(f"{plan.study} {best.trials[0].arm}: {told}")

    def _has_space(self) -> bool:
        return shutil.disk_usage(self._runs_dir).free >= MIN_FREE_BYTES

    def _place(self, trial: Trial) -> int:
        """Where the trial's plan was named."""
        return self._names.index((trial.study, trial.profile))

    def _next(self, queue: list[Task], deadline: float | None) -> Task | None:
        """The next task that will probably end in time; None where there is none."""
        if not self._has_space():
            return None
        # of an arm that never ran nothing better is known than what took longest
        longest = max(self._seconds.values(), default=0.0)
        for i, task in enumerate(queue):
            expected = self._seconds.get(_arm(task.trial), longest)
            if deadline is None or time.monotonic() + expected < deadline:
                return queue.pop(i)
        return None

    def _remember(self, trial: Trial, result: Result) -> None:
        """How long the trial's arm may take."""
        arm = _arm(trial)
        self._seconds[arm] = max(self._seconds.get(arm, 0.0), result.seconds)

    def _take(self, task: Task, result: Result) -> None:
        """Record an ended trial and say so."""
        trial = task.trial
        self._ran += 1
        self._results[trial.study, trial.profile, trial.key] = result
        self._remember(trial, result)
        left = len(self._todo) + self._to_come
        if result.failure is not None:
            found = f"{result.failure.kind}: {result.failure.message}"
        else:
            metric, stage = task.metric, self._plans[self._place(trial)].tuning
            if stage is not None and tuning.arm_of(trial) != trial.arm:
                metric = stage.select_on  # what tuning looks at, never the test set
            found = f"{metric} {result.metrics.get(metric, math.nan):.4f}"
        ended = sum(r is not None for r in self._results.values())
        every = len(self._results) + self._to_come
        rest = left * (time.monotonic() - self._began) / self._ran / 60
        _say(
            f"[{ended}/{every}] {result.status:<6} {trial.study} {trial.arm} "
            f"seed {trial.seed}  {found}  {result.seconds:.0f} s  (about {rest:.0f} min left)"
        )
        self._choose()


def _best(
    plan: Plan, arm: Sequence[Candidate], results: Mapping[str, Result | None]
) -> tuple[Candidate, float | None]:
    """What validation chooses, with its mean; the last resort where no values have a score."""
    assert plan.tuning is not None
    metric = plan.tuning.select_on
    *tried, own = arm
    scores = [
        tuning.mean([runs.value_of(results[key], metric) for key in candidate.scored_by])
        for candidate in tried
    ]
    best = tuning.best_of(scores, plan.tuning.direction)
    return (own, None) if best is None else (tried[best], scores[best])


def _arm(trial: Trial) -> tuple[str, str, str]:
    """Study, profile and arm, which is the same while it is tuned and afterwards."""
    return trial.study, trial.profile, tuning.arm_of(trial)


def _trials_to_come(tuned: Sequence[Sequence[Candidate]]) -> int:
    """How many trials arms will run once they have chosen."""
    return sum(len(candidates[-1].trials) for candidates in tuned)


def _end(workers: Sequence[Worker]) -> None:
    """Let workers save the trials in hand, and end all; those that take too long are killed."""
    busy = [worker for worker in workers if worker.task]
    for worker in busy:
        worker.terminate()
    asked = time.monotonic()
    while any(w.lives for w in busy) and time.monotonic() - asked < GRACE_SECONDS:
        time.sleep(POLL_SECONDS)
    for worker in workers:
        worker.close()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
