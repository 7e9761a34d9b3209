"""Work off plans on a machine that has little more than torch, transformers and peft.

    python run_study.py STUDY.yaml --export-plan plan.json        # where the study lives
    python -m studies.engine.work plan.json --runs DIR --slots 8  # on the GPU machine
    python run_study.py STUDY.yaml --import DIR                   # where the study lives

Needs no Optuna, MLflow, rich, matplotlib, scipy or datasets. Results lie in DIR as they would in
`--runs`; the same command again runs what is left.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from studies.engine.command.exits import BAD_INPUT, DONE, INCOMPLETE, INTERRUPTED, STOPPED
from studies.engine.command.plan_queue import PlanQueue
from studies.engine.errors import StudyError
from studies.engine.planning import runs
from studies.engine.planning.plan_file import read_plan
from studies.engine.running import packing, slots
from studies.engine.running.durations import Durations
from studies.engine.running.events import Interrupted, Stopped
from studies.engine.running.local import LocalRunner
from studies.engine.running.loop import Loop, stop_signals
from studies.engine.trials import devices
from studies.output import lenient_output


def main(arguments: Sequence[str] | None = None) -> int:
    """Work off the plans that the command line names; the exit code."""
    lenient_output()
    given = _parser().parse_args(arguments)
    try:
        plans = [read_plan(path) for path in dict.fromkeys(given.plans)]
        refusal = f"{given.runs} is in use: another `work` is under way; wait, or use --runs DIR"
        with runs.locked(given.runs / ".work.lock", refusal):
            durations = Durations(given.minutes)
            queue = PlanQueue(plans, given.runs, given.retry_failed, durations, _say)
            queue.fetch()
            code = _work(queue, given, durations)
    except StudyError as error:
        _say(str(error))
        return BAD_INPUT
    except KeyboardInterrupt:  # before anything was started
        _say(STOPPED)
        return INTERRUPTED
    except OSError as error:  # a full disk, a folder that cannot be written
        _say(f"{error.filename or given.runs}: {error.strerror or error}. Finished trials are kept")
        return INCOMPLETE
    _say(queue.table())
    return code or (INCOMPLETE if queue.unfinished else DONE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m studies.engine.work",
        description="Run the trials of exported plans; the same command again runs what is left.",
    )
    add = parser.add_argument
    add("plans", type=Path, nargs="+", help="files of `--export-plan`")
    add("--runs", type=Path, required=True, help="folder for the results")
    add("--slots", type=slots.count_given,
        help="trials at once: a number, or auto to measure how many fit into memory; default: one "
        "a GPU, without a GPU one a core")  # fmt: skip
    add("--minutes", type=float, help="start nothing that would probably end later than this")
    add("--retry-failed", action="store_true", help="run failed trials again")
    return parser


def _work(queue: PlanQueue, given: argparse.Namespace, durations: Durations) -> int:
    """Run what is left; 0, or the exit code where it ended early."""
    count, gpus = given.slots, queue.gpus_per_trial
    if 0 < devices.gpus() < gpus:
        raise StudyError(
            f"a plan's budget.gpus_per_trial is {gpus}, this machine has {devices.gpus()} GPUs"
        )
    if count == 0 and len(queue) and gpus == 1:
        count = packing.measured_slots(queue.trials, given.runs, _say)
    count = min(count or slots.default_slots(gpus), len(queue) + queue.to_come)
    queue.begin(count)
    if not len(queue):
        return DONE
    with stop_signals() as signals:
        runner = LocalRunner(count, given.runs / "workers", gpus)
        loop = Loop(queue, runner, given.runs, signals=signals, on_event=queue.show,
                    durations=durations)  # fmt: skip
        try:
            loop.work()
        except Stopped as stopped:
            _say(str(stopped))
            return INCOMPLETE
        except Interrupted:
            _say(STOPPED)
            return INTERRUPTED
    return DONE


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
