"""The command line: study file in, table and links out, exit code back."""

import argparse
import functools
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from studies.engine.command.exits import BAD_INPUT, DONE, INCOMPLETE, INTERRUPTED, STOPPED
from studies.engine.definition.shipped import find_study, list_profiles, shipped_studies
from studies.engine.errors import StudyError
from studies.engine.program import program
from studies.engine.running.events import Interrupted, Stopped
from studies.engine.running.slots import count_given
from studies.output import console, lenient_output

if TYPE_CHECKING:
    from rich.console import Console

    from studies.engine.command.notices import Say
    from studies.engine.command.session import Session
    from studies.engine.definition.study import Study
    from studies.engine.records import Trial
    from studies.engine.running.protocols import Runner


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a study and return the exit code."""
    lenient_output()
    given = _parser().parse_args(arguments)
    out, say = consoles()
    try:
        if given.study != "list":
            return _run(given, out, say)
        for name, question in shipped_studies().items():
            out.print(f"{name:<22} {question}", markup=False, highlight=False, soft_wrap=True)
        return DONE
    except StudyError as error:
        say(str(error), "red")
        return BAD_INPUT
    except Stopped as stopped:
        say(str(stopped), "red")
        return INCOMPLETE
    except (Interrupted, KeyboardInterrupt):
        say(STOPPED, "yellow")
        return INTERRUPTED
    except OSError as error:  # a full disk, a folder that cannot be written
        what = error.filename or given.runs
        say(f"{what}: {error.strerror or error}. Finished trials are kept", "red")
        return INCOMPLETE


def consoles() -> "tuple[Console, Say]":
    """Where results and progress go, and what takes messages."""
    out, err = console(), console(stderr=True)

    def say(message: str, style: str) -> None:
        err.print(message, style=style, markup=False, highlight=False, soft_wrap=True)

    return out, say


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program(),
        description="Run an ablation study: every arm with every seed, each exactly once. The "
        "same command again continues where it stopped.",
    )
    add = parser.add_argument
    add("study", help="study file, e.g. studies/grid_size.yaml, the name of a shipped study, e.g. "
        "grid_size, or `list` for their names")  # fmt: skip
    add("--profile", default="embedded",
        help=f"default: embedded; there are {', '.join(list_profiles())}")  # fmt: skip
    add("--set", action="append", default=[], metavar="KEY=VALUE",
        help="a setting of the whole study, e.g. adapter.start=paper; arms that set it themselves "
        "keep their own; repeatable")  # fmt: skip
    add("--runs", type=Path, default=Path("runs"), help="default: ./runs")
    add("--only", action="append", default=[], metavar="SETTING=VALUE",
        help="only these trials, e.g. adapter.num_basis=8 or arm=lora; repeatable")  # fmt: skip
    add("--plugin", action="append", default=[], type=Path, metavar="FILE",
        help="Python file that registers families, forms, methods, tasks or other parts, beside "
        "those that the study names; repeatable")  # fmt: skip
    add("--retry-failed", action="store_true", help="run failed trials again")
    add("--slots", type=count_given, metavar="N",
        help="trials at once: a number, or auto to measure how many fit into memory; default: one "
        "a GPU, without a GPU one a core. With --ray: trials at once on each GPU")  # fmt: skip
    add("--ray", nargs="?", const="auto", metavar="ADDRESS",
        help="run on a Ray cluster; ADDRESS is HOST:PORT of its head, or local for one that is "
        "started here; default: the one that this machine is part of")  # fmt: skip
    modes = parser.add_mutually_exclusive_group()
    add = modes.add_argument
    add("--plan", action="store_true", help="show what would run; start nothing")
    add("--power", nargs="?", const=True, type=_spread, metavar="SPREAD",
        help="show which differences numbers of seeds would find; train nothing. SPREAD is the "
        "standard deviation of paired differences over seeds, in the metric's unit, or a folder of "
        "runs of the same study to take it from; default: of the results in --runs")  # fmt: skip
    add("--report", action="store_true", help="write report and MLflow page; train nothing")
    add("--export-plan", type=Path, metavar="FILE",
        help="write what would run to FILE, for `python -m studies.engine.work`; start "
        "nothing")  # fmt: skip
    add("--import", dest="bring", type=Path, metavar="SOURCE",
        help="take the results that SOURCE holds, a folder of `studies.engine.work` or a "
        "trials.tar.xz of results/, then report; train nothing")  # fmt: skip
    return parser


def _spread(text: str) -> float | Path:
    """What `--power` says: a number above 0, or a folder that is there.

    Raises `argparse.ArgumentTypeError` for anything else.
    """
    try:
        number = float(text)
    except ValueError:
        if text and Path(text).is_dir():
            return Path(text)
        raise argparse.ArgumentTypeError(
            f"expected a number above 0 or a folder of runs, got {text!r}; the study stands before "
            "--power"
        ) from None
    if not (number > 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"expected a finite number above 0, got {text}")
    return number


def _run(given: argparse.Namespace, out: "Console", say: "Say") -> int:
    # what `--help` and `list` do without
    from studies.engine.command.importing import opened
    from studies.engine.definition import answers, overrides
    from studies.engine.definition.schema import load_study

    with answers.cache():
        study = load_study(find_study(given.study), given.profile, given.plugin, given.set)
    from studies.engine.command.session import Options, Session

    options = Options(
        runs_dir=given.power if isinstance(given.power, Path) else given.runs,
        only=tuple(given.only),
        retry_failed=given.retry_failed,
        fetch=given.ray in (None, "local"),
    )
    session = Session(study, options, out, say)
    for line in overrides.notices(study, "--set"):
        say(line, "yellow")
    if given.plan:
        return session.plan(lambda trials: _slots(given.slots, study, len(trials)))
    if given.power:
        return session.power(given.power if isinstance(given.power, float) else None)
    if given.report:
        return session.report()
    if given.export_plan:
        return session.export(given.export_plan)
    if given.bring:
        with opened(given.bring) as folder:
            return session.bring_in(folder)
    if given.ray is None:
        return session.run(functools.partial(local_runner, given.slots, given.runs, study, say))
    return _run_on_ray(given, study, session, say)


def _run_on_ray(given: argparse.Namespace, study: "Study", session: "Session", say: "Say") -> int:
    if given.slots == 0:
        raise StudyError("--slots auto measures this machine: with --ray, give a number")
    from studies.engine.running.cluster import ray_runner

    with ray_runner.connected(given.ray) as cluster:
        none = "no node of the Ray cluster has more than {} GPUs"
        _refuse_too_many(study, cluster.most_gpus, none)
        make = functools.partial(
            ray_runner.RayRunner,
            cluster,
            gpus_per_trial=study.budget.gpus_per_trial,
            slots_per_gpu=given.slots or 1,
            say=lambda text: say(text, "yellow"),
        )
        return session.run(lambda trials, left: make(left))


def _refuse_too_many(study: "Study", most: int, what: str) -> None:
    """Raise `StudyError` where a trial needs more GPUs than the `most` that there are."""
    needed = study.budget.gpus_per_trial
    if 0 < most < needed:
        place = study.place("budget", "gpus_per_trial")
        raise StudyError(f"{place}: budget.gpus_per_trial: {what.format(most)}, got {needed}")


def _slots(given: int | None, study: "Study", left: int) -> int:
    """How many trials to run at once, where `left` are to be run."""
    from studies.engine.running import slots

    return max(1, min(given or slots.default_slots(study.budget.gpus_per_trial), left))


def local_runner(
    slots: int | None,
    runs_dir: Path,
    study: "Study",
    say: "Say",
    trials: "Sequence[Trial]",
    left: int,
) -> "Runner":
    """What runs `left` of `trials` on this machine; of `slots` 0 is auto, and None the default."""
    from studies.engine.planning import runs
    from studies.engine.running import packing
    from studies.engine.running.local import LocalRunner
    from studies.engine.trials import devices

    folder, needed = runs.study_dir(study, runs_dir), study.budget.gpus_per_trial
    _refuse_too_many(study, devices.gpus(), "this machine has {} GPUs")
    count = _slots(slots, study, left)
    if slots == 0 and needed == 1 and trials:
        count = min(left, packing.measured_slots(trials, folder, lambda text: say(text, "dim")))
    return LocalRunner(count, folder / "workers", needed)


if __name__ == "__main__":
    sys.exit(main())
