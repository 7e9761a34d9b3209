"""The command line: study file in, table and links out, exit code back."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from studies.engine.definition.schema import list_profiles, load_study
from studies.engine.errors import StudyError
from studies.engine.events import Interrupted, Stopped
from studies.engine.slots import count_given

if TYPE_CHECKING:
    from studies.engine.definition.study import Study
    from studies.engine.records import Trial
    from studies.engine.searching.search_stage import SearchStage

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
    except Stopped as stopped:
        say(str(stopped))
        return INCOMPLETE
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
        type=count_given,
        metavar="N",
        help="trials at once: a number, or auto to measure how many fit into memory; default: one "
        "a GPU, without a GPU one a core",
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
    parser.add_argument(
        "--slurm",
        type=int,
        metavar="N",
        help="queue N SLURM jobs that work off the study together; needs BASIS_ZOO_STORAGE",
    )
    parser.add_argument(
        "--job",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="for --slurm, a parameter of submitit, e.g. gpus_per_node=4, slurm_partition=gpu, "
        "timeout_min=600; repeatable",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="default: ./runs")
    return parser


def _run(given: argparse.Namespace, out: Console, say: Callable[[str], None]) -> int:
    study = load_study(given.study, given.profile, given.plugin)
    # these need torch, Optuna and MLflow: a file in error is refused without waiting for them
    from studies.engine import runs, slots
    from studies.engine.dispatching import dispatch, packing
    from studies.engine.planning import edited
    from studies.engine.planning.plan import only, plan, plan_candidates, plan_table, plan_tuning
    from studies.engine.planning.tuning import arm_of, choose
    from studies.engine.searching.search_stage import SearchStage
    from studies.engine.session import Session

    starts = not (given.plan or given.report or given.export_plan or given.bring)
    if given.slurm is not None and starts:
        return _queue(given, study.name, out)
    if given.bring and not given.bring.is_dir():
        raise StudyError(f"--import {given.bring}: there is no such folder")
    stage = asked = plan_tuning(study, given.plugin)
    if stage and given.only:  # a seed of the next stage says nothing of this one
        reported = [f"seed={seed}" for seed in study.seeds]
        conditions = [c for c in given.only if c.replace(" ", "") not in reported]
        asked = only(stage, conditions, tuned=True)
    dispatch.pull(study, stage, given.runs)
    every_arm = set(map(arm_of, stage))
    acts = not (given.plan or given.export_plan)
    if given.bring and acts and stage:
        Session(study, stage, asked, given.runs, out, say).bring_in(given.bring, last=False)
    search = None
    if study.search is not None:
        search = SearchStage(study, given.plugin, given.runs)
        code = _search(study, search, given, out, say)
        if code is not None:
            return code
    retry = given.retry_failed and not (given.plan or given.report or given.bring)
    over = acts and not starts  # a report or an import: no trial of the stage will be run
    while True:
        choices = choose(study, stage, given.runs)
        settled = {choice.arm for choice in choices}
        open_arms = [arm for arm in dict.fromkeys(map(arm_of, asked)) if arm not in settled]
        if open_arms and over:
            say(_open_stage(stage, open_arms, given.runs), "yellow")
            return INCOMPLETE
        failed = retry and any(runs.state_of(trial, given.runs) == "failed" for trial in asked)
        tuning = bool(open_arms) or failed
        if tuning:
            trials = chosen = asked
        else:
            trials = plan(study, given.plugin, search.choices if search else choices)
            trials = [t for t in trials if not every_arm or t.arm in settled]
            chosen = only(trials, given.only) if given.only else trials
        dispatch.pull(study, chosen, given.runs)
        slot_count = min(
            given.slots or slots.default_slots(study.budget.gpus_per_trial), len(chosen)
        )
        if not tuning:
            stages = [*stage, *(search.points if search else ()), *trials]
            for line in edited.remarks(study, stages, given.runs, keep=acts):
                say(line, "yellow")
        if given.plan:
            out.print(plan_table(chosen, given.runs, slot_count))
            if tuning:
                arms = len(set(map(arm_of, chosen)))
                out.print(f"then {arms} tuned arms with {len(study.seeds)} seeds each")
            return DONE
        session = Session(study, trials, chosen, given.runs, out, say, choices, stage, search)
        if given.export_plan:
            follow = plan_candidates(study, chosen, given.plugin) if tuning else None
            count = session.export(given.export_plan, given.retry_failed, follow)
            more = f", and then the seeds of {len(follow.arms)} tuned arms" if follow else ""
            out.print(f"{count} trials{more} written to {given.export_plan}", soft_wrap=True)
            return DONE
        try:
            if given.bring:
                session.bring_in(given.bring, last=settled == every_arm)
            elif not given.report:
                alone = study.budget.gpus_per_trial == 1
                if given.slots == 0 and alone and session.unfinished:
                    folder = runs.study_dir(study, given.runs)
                    slot_count = packing.measured_slots(
                        chosen, folder, lambda message: say(message, "dim")
                    )
                session.train(slot_count, given.retry_failed)
        except Stopped as stopped:
            say(str(stopped))
            if not tuning:
                session.deliver()
            return INCOMPLETE
        if not tuning:
            break
        retry, over = False, True
    delivered = session.deliver()
    if session.unfinished:
        waiting = session.waiting
        failed = session.unfinished - waiting
        why = [f"{session.unfinished} of {len(chosen)} trials have no result"]
        if failed:
            again = "once the cause is repaired, --retry-failed runs them again"
            why.append(f"{failed} failed: {again}")
        if waiting:
            runs_them = "the same command without --report or --import runs them"
            why.append(f"{waiting} not run yet: {runs_them}")
        say("; ".join(why))
    return INCOMPLETE if session.unfinished or not delivered else DONE


def _open_stage(stage: "Sequence[Trial]", arms: Sequence[str], runs_dir: Path) -> str:
    """What is missing before the seeds of `arms` can follow."""
    from studies.engine import runs
    from studies.engine.planning.tuning import arm_of

    own = [trial for trial in stage if arm_of(trial) in arms]
    waiting = sum(runs.result_of(trial, runs_dir) is None for trial in own)
    return (
        f"the tuning stage has {waiting} trials without a result ({', '.join(arms)}): run all "
        "trials of these arms first, or name the other arms by --only 'arm=NAME'"
    )


def _queue(given: argparse.Namespace, name: str, out: Console) -> int:
    """Queue jobs that run the study as the command line says, each in its own runs folder."""
    from studies.engine.definition.yaml_source import parse_scalar
    from studies.engine.dispatching import slurm, storage

    if given.slurm < 1:
        raise StudyError(f"--slurm: expected a whole number of at least 1, got {given.slurm}")
    pairs = [setting.partition("=") for setting in given.job]
    if any(not sign for _, sign, _ in pairs):
        raise StudyError(f"--job: expected NAME=VALUE, got {' '.join(given.job)}")
    if (server := storage.configured()) is not None:
        server.check()
    arguments = [str(given.study.resolve()), "--profile", given.profile]
    arguments += [part for each in given.only for part in ("--only", each)]
    arguments += [part for each in given.plugin for part in ("--plugin", str(each.resolve()))]
    arguments += ["--slots", str(given.slots or "auto")] if given.slots is not None else []
    # each would try again what another has just seen fail
    retry = ["--retry-failed"] if given.retry_failed else []
    folder = given.runs / "slurm"
    commands = [
        slurm.command([*arguments, *(retry if i == 0 else [])], folder / str(i))
        for i in range(given.slurm)
    ]
    parameters = {key: parse_scalar(value) for key, _, value in pairs}
    out.print(slurm.submit(commands, folder, name, parameters), soft_wrap=True, highlight=False)
    out.print("--report gathers what they found, at any time", soft_wrap=True)
    return DONE


def _search(
    study: "Study",
    search: "SearchStage",
    given: argparse.Namespace,
    out: Console,
    say: Callable[[str], None],
) -> int | None:
    """Bring the search to its end; the exit code where the seeds cannot follow it now."""
    from studies.engine import slots
    from studies.engine.planning.plan import plan
    from studies.engine.session import Session

    if given.plan:
        out.print(search.summary())
        return None
    failed_again = given.retry_failed and not (given.report or given.bring or given.export_plan)
    if search.complete and not failed_again:
        return None
    if given.bring or given.export_plan:
        raise StudyError(
            "the points of a search are chosen one after the other: run the study here until its "
            "search is complete, then its seeds can be exported"
        )
    trials = plan(study, given.plugin, search.choices)
    session = Session(study, trials, trials, given.runs, out, say, search=search)
    if given.report:
        session.deliver()
        return INCOMPLETE
    try:
        session.find(
            given.slots or slots.default_slots(study.budget.gpus_per_trial), given.retry_failed
        )
    except Stopped as stopped:
        say(str(stopped))
        session.deliver()
        return INCOMPLETE
    if not search.choices:
        say("no point of the search is done: repair the cause and use --retry-failed")
        return INCOMPLETE
    return None
