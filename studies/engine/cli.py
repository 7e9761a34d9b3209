"""The command line: study file in, table and links out, exit code back."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from studies.engine.errors import StudyError
from studies.engine.events import Interrupted, Stopped
from studies.engine.schema import list_profiles, load_study

DONE, INCOMPLETE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: everything done; a trial failed or is missing; something to correct; Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a study and return the exit code."""
    given = _parser().parse_args(arguments)
    out, err = Console(), Console(stderr=True)

    def say(message: str, style: str = "red") -> None:
        err.print(message, style=style, markup=False, highlight=False, soft_wrap=True)

    try:
        return _run(given, out, say)
    except StudyError as error:
        say(str(error))
        return BAD_INPUT
    except (Interrupted, KeyboardInterrupt):
        say("Stopped. Finished trials are kept: run the same command again to continue", "yellow")
        return INTERRUPTED
    except OSError as error:  # a full disk, a folder that cannot be written
        say(f"{error.filename or given.runs}: {error.strerror or error}. Finished trials are kept")
        return INCOMPLETE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_study.py",
        description="Run an ablation study: every arm with every seed, each exactly once. The "
        "same command again continues where it stopped.",
    )
    parser.add_argument("study", type=Path, help="study file, e.g. studies/grid_size.yaml")
    parser.add_argument(
        "--profile", choices=list_profiles(), default="embedded", help="default: embedded"
    )
    parser.add_argument("--plan", action="store_true", help="show what would run; start nothing")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="SETTING=VALUE",
        help="only these trials, e.g. adapter.num_basis=8, arm=lora, seed=0; repeatable",
    )
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="Python file that registers basis families; repeatable",
    )
    parser.add_argument(
        "--slots",
        type=_slots,
        metavar="N",
        help="trials at once, a number or auto (default): one a GPU, without a GPU one a core",
    )
    parser.add_argument(
        "--export-plan",
        type=Path,
        metavar="FILE",
        help="write what would run to FILE, for `python -m studies.engine.work`; start nothing",
    )
    parser.add_argument(
        "--import",
        dest="bring",
        type=Path,
        metavar="DIR",
        help="take the results that `studies.engine.work` left in DIR, then report; train nothing",
    )
    parser.add_argument("--retry-failed", action="store_true", help="run failed trials again")
    parser.add_argument(
        "--report", action="store_true", help="write report and MLflow page; train nothing"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="default: ./runs")
    return parser


def _slots(text: str) -> int | None:
    """None for auto."""
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"expected auto or a whole number of at least 1, got {text!r}"
        )
    return int(text)


def _run(given: argparse.Namespace, out: Console, say: Callable[[str], None]) -> int:
    study = load_study(given.study, given.profile, given.plugin)
    # these need torch, Optuna and MLflow: a file in error is refused without waiting for them
    from studies.engine import edited, slots
    from studies.engine.plan import only, plan, plan_table, plan_tuning
    from studies.engine.session import Session
    from studies.engine.tuning import choose

    if given.bring and not given.bring.is_dir():
        raise StudyError(f"--import {given.bring}: there is no such folder")
    earlier = plan_tuning(study, given.plugin)
    choices = choose(study, earlier, given.runs) if earlier else []
    while True:
        tuning = choices is None
        trials = earlier if tuning else plan(study, given.plugin, choices or ())
        chosen = only(trials, given.only) if given.only else trials
        slot_count = min(given.slots or slots.default_slots(), len(chosen))
        if not tuning:
            training = not (given.plan or given.export_plan)
            for line in edited.remarks(study, [*earlier, *trials], given.runs, keep=training):
                say(line, "yellow")
        if given.plan:
            out.print(plan_table(chosen, given.runs, slot_count))
            return DONE
        session = Session(study, trials, chosen, given.runs, out, say, choices or (), earlier)
        if given.export_plan:
            count = session.export(given.export_plan, given.retry_failed)
            out.print(f"{count} trials written to {given.export_plan}", soft_wrap=True)
            return DONE
        try:
            if given.bring:
                session.bring_in(given.bring, last=not tuning)
            elif not given.report:
                session.train(slot_count, given.retry_failed)
        except Stopped as stopped:
            say(str(stopped))
            if not tuning:
                session.deliver()
            return INCOMPLETE
        if not tuning:
            break
        choices = choose(study, trials, given.runs)
        if choices is None:
            say("the tuning stage has trials without a result: run the rest of it first", "yellow")
            return INCOMPLETE
    delivered = session.deliver()
    if session.unfinished:
        say(
            f"{session.unfinished} of {len(chosen)} trials have no result; once the cause is "
            "repaired, --retry-failed runs them again"
        )
    return INCOMPLETE if session.unfinished or not delivered else DONE
