"""A process that trains many trials, one after the other: imports are paid for once.

    python -m studies.engine.trials.worker FD   # by `running.worker_process`

Where it can be, it is forked by `template` instead, which has imported everything already.
Reads run folders, each ended by a NUL, from stdin; trains the trial of each; writes its key to the
file descriptor FD once result.json is there, and `retires` where it is unfit for another. What is
printed meanwhile goes to the trial's log.txt. Models are loaded anew for each trial, every seed is
set anew and what may have been left behind in the process is looked for, so a trial's numbers are
those that it has in a process of its own.
"""

import os
import sys
from typing import TextIO

from studies.engine.records import read_trial
from studies.engine.trials.preemption import PREEMPTED, Preempted, Preemption, preemptible
from studies.engine.trials.serving import RETIRES, output_to, run_dirs
from studies.engine.trials.trial import run_trial


def main(answers: int) -> int:
    """Work until stdin ends (0) or SIGTERM comes (75); 1 after a trial that may have left the
    process unfit for another. What it answers goes to the descriptor `answers`."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # a trial runs on one device
    try:
        with (
            os.fdopen(answers, "w", buffering=1) as stream,
            preemptible() as preemption,
        ):
            return _work(stream, preemption)
    except Preempted:
        return PREEMPTED


def _work(answers: TextIO, preemption: Preemption) -> int:
    from studies.engine.trials.environment import set_threads
    from studies.engine.trials.process_state import differences, process_state

    import_what_trials_need()
    for run_dir in run_dirs():
        trial = read_trial(run_dir)
        set_threads(trial.config.get("train", {}).get("threads", 1))
        before = process_state()
        with output_to(run_dir / "log.txt"):
            result = run_trial(trial, run_dir, preemption)
            left = differences(before, process_state())
            if left:
                sys.stderr.write(f"this worker is replaced, the trial changed: {', '.join(left)}\n")
        with preemption.whole():
            # a CUDA error stays, and the frames of a fault hold tensors
            failed = result.failure is not None and result.failure.kind != "not_finite"
            if not _clean_up() or left or failed:
                answers.write(f"{result.key} {RETIRES}\n")
                return 1
            answers.write(f"{result.key}\n")
        preemption.check()
    return 0


def import_what_trials_need() -> None:
    """Import before the first trial what every trial would."""
    from studies.backbones import loading
    from studies.engine.trials import environment, training_run

    del loading, environment, training_run


def _clean_up() -> bool:
    """Give back what the last trial held; whether the next one's peak memory will be its own."""
    from studies.engine.trials.environment import reset_peak_memory
    from studies.engine.trials.training_run import free_memory

    free_memory()
    return reset_peak_memory()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
