"""How the engine behaves when studies are large or bad: times that do not depend on training.

    python -m bench.engine yaml [N]      # N bad study files (10,000): how long each takes to refuse
    python -m bench.engine trials [N]    # N trials (1,000) that do nothing: the loop, plan, report
    python -m bench.engine study         # grid_size (embedded): processor time beyond training

Each prints a table and writes its part of bench/results/engine.json.
"""

import argparse
import collections
import contextlib
import functools
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "bench" / "results" / "engine.json"
PLACE = re.compile(r"[^:]+:\d+: .+")
sys.path.insert(0, str(ROOT / "tests/studies/support"))  # the fakes are those of the tests


def main() -> None:
    """Run one benchmark and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=list(BENCHES))
    parser.add_argument("count", type=int, nargs="?")
    parser.add_argument("--slots", type=int, default=2, help="trials at once")
    parser.add_argument("--keep", type=Path, help="leave runs and MLflow's database in this folder")
    args = parser.parse_args()
    numbers = BENCHES[args.what](args)
    for name, value in numbers.items():
        if isinstance(value, dict):
            print(f"{name:<44} {'  '.join(f'{k} {v}' for k, v in value.items())}")
        else:
            print(f"{name:<44} {value}")
    OUT.parent.mkdir(exist_ok=True)
    record = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    record[args.what] = {"machine": machine(), **numbers}
    OUT.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


BENCHES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "yaml": lambda args: yaml(args.count or 10_000),
    "trials": lambda args: trials(args.count or 1_000, args.slots, args.keep),
    "study": lambda args: study_beyond_training(args.slots),
}


def machine() -> dict[str, Any]:
    """What the times depend on."""
    import mlflow
    import optuna
    import pydantic

    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    return {
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "optuna": optuna.__version__,
        "mlflow": mlflow.__version__,
        "pydantic": pydantic.VERSION,
        "commit": commit,
    }


def yaml(count: int) -> dict[str, Any]:
    """Refuse `count` bad study files; milliseconds of processor time by kind of fault."""
    import bad_studies

    from studies.engine.definition.schema import load_study
    from studies.engine.errors import StudyError

    times: dict[str, list[float]] = collections.defaultdict(list)
    wall: list[float] = []
    faults = collections.Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        file = Path(f"{bad_studies.NAME}.yaml")
        file.write_bytes(bad_studies.bad_study(random.Random(0))[1])
        load_study(bad_studies.SHIPPED[0])  # imports torch and peft, once a process
        for seed in range(count):
            kind, content = bad_studies.bad_study(random.Random(seed))
            file.write_bytes(content)
            began, began_wall = time.process_time(), time.perf_counter()
            try:
                load_study(file)
                faults["accepted"] += 1
            except StudyError as error:
                placed = all(PLACE.fullmatch(problem) for problem in error.problems)
                faults["refused with place and reason" if placed else "no place"] += 1
            times[kind].append(1000 * (time.process_time() - began))
            wall.append(1000 * (time.perf_counter() - began_wall))
        os.chdir(ROOT)
    all_times = [each for kind in times.values() for each in kind]
    table = {kind: spread(times[kind]) for kind in sorted(times)}
    return {
        "files": count,
        **faults,
        "ms of processor time": spread(all_times),
        "ms by the clock": spread(wall),
        "share under 50 ms of processor time": round(sum(t < 50 for t in all_times) / count, 5),
        **table,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and largest of `values`."""
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 2),
        "p99": round(ordered[int(0.99 * (len(ordered) - 1))], 2),
        "max": round(ordered[-1], 2),
    }


def trials(count: int, slot_count: int, keep: Path | None = None) -> dict[str, Any]:
    """Run, plan, report and track `count` trials that do nothing; in `keep` if given."""
    import fake_trials as fake
    from rich.console import Console

    from studies.engine.command import dispatch
    from studies.engine.command.plan_table import plan_table
    from studies.engine.planning import runs
    from studies.engine.reporting.report import draft
    from studies.engine.tracking import pages
    from studies.engine.trials import devices

    devices.gpus = lambda: 0
    seeds = 10
    planned_trials = fake.make_trials(*[{}] * (-(-count // seeds)), seeds=tuple(range(seeds)))[
        :count
    ]
    if keep is not None:
        keep.mkdir(parents=True)
    with contextlib.nullcontext(keep) if keep else tempfile.TemporaryDirectory() as folder:
        runs_dir, journal = Path(folder) / "runs", Path(folder) / "journal"
        path = Path(folder) / "fake.yaml"
        path.write_text("name: fake\n", encoding="utf-8")
        study = fake.make_study().model_copy(update={"baseline": "arm0", "path": path})
        run = functools.partial(dispatch.run, study, planned_trials, runs_dir,
                                fake.runners(journal, slot_count))  # fmt: skip
        memory: list[int] = []
        ended = 0

        def on_event(event: Any) -> None:
            nonlocal ended
            ended += event.kind == "done"
            if event.kind == "done" and ended in (max(1, count // 10), count):
                memory.append(psutil.Process().memory_info().rss)

        times = timed(lambda: run(on_event=on_event))
        assert ended == count
        numbers = {
            "trials": count,
            "slots": slot_count,
            "ms a trial and slot, by the clock": round(
                1000 * times["clock"] * slot_count / count, 1
            ),
            "ms of the loop's processor time a trial": round(1000 * times["processor"] / count, 2),
            "MB resident after a tenth and after all": [round(m / 1e6) for m in memory],
            "s to find that all is done": timed(run),
        }
        console = Console(file=open(os.devnull, "w"))
        numbers["s of the plan's table"] = timed(
            lambda: console.print(plan_table(planned_trials, runs_dir, lambda: slot_count))
        )
        numbers["s to read, check and plan as many trials"] = planning(Path(folder), count)
        rows = [
            (trial, result, runs.trial_dir(trial, runs_dir))
            for trial in planned_trials
            if (result := runs.result_of(trial, runs_dir)) is not None
        ]
        study_dir = runs.study_dir(study, runs_dir)
        reports: list[Any] = []
        pairs = [(trial, result) for trial, result, _ in rows]
        numbers["s of the report"] = timed(
            lambda: reports.append(
                draft(study, study_dir / "trials", pairs).write(study_dir / "report")
            )
        )
        for what in ("s to track all in MLflow", "s to track them again"):
            numbers[what] = timed(lambda: pages.track_all(study, rows, reports[0], runs_dir, print))
        numbers["s of the MLflow view's query"] = timed(lambda: view(study, runs_dir))
    return numbers


def study_beyond_training(slot_count: int) -> dict[str, Any]:
    """Processor seconds that a real study takes a trial beyond what its trials say they did.

    The whole command is measured, its start, report and MLflow page included.
    """
    text = (ROOT / "studies" / "grid_size.yaml").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid_size.yaml"
        path.write_text(text, encoding="utf-8")
        command = [sys.executable, str(ROOT / "run_study.py"), str(path), "--slots",
                   str(slot_count), "--runs", f"{folder}/runs"]  # fmt: skip
        began, before = time.perf_counter(), os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        clock, after = time.perf_counter() - began, os.times()
        results = [json.loads(file.read_text()) for file in Path(folder).rglob("result.json")]
    seconds = sum(after[2:4]) - sum(before[2:4])
    inside = sum(result["cost"]["processor_seconds"] for result in results)
    return {
        "trials": len(results),
        "slots": slot_count,
        "s by the clock": round(clock, 1),
        "processor s of the command and its processes": round(seconds, 1),
        "processor s in training, evaluation and after": round(inside, 1),
        "processor s beyond these, a trial": round((seconds - inside) / len(results), 2),
    }


def planning(folder: Path, count: int) -> dict[str, float]:
    """Seconds to read, check and plan a study of `count` trials: arms with 10 seeds each."""
    from studies.engine.definition.schema import load_study
    from studies.engine.planning.plan import plan

    path = folder / "large.yaml"
    arms = -(-count // 10)
    path.write_text(
        "name: large\nquestion: How long does a plan take?\n"
        "adapter: {method: basis, basis: sinc}\nbaseline: num_basis=4\n"
        f"sweep: {{adapter.num_basis: {list(range(4, 4 + arms))}}}\n"
        f"seeds: {list(range(10))}\nobjective: {{metric: test/accuracy}}\n",
        encoding="utf-8",
    )
    load_study(next((ROOT / "studies").glob("*.yaml")))  # imports torch and peft
    return timed(lambda: plan(load_study(path)))


def view(study: Any, runs_dir: Path) -> None:
    """Ask what the study's MLflow page asks when it is opened."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{runs_dir / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(f"{study.name} ({study.profile})")
    assert experiment is not None
    query = "tags.kind = 'arm'"
    hits = client.search_runs([experiment.experiment_id], query, max_results=100)
    assert hits


def timed(call: Callable[[], object]) -> dict[str, float]:
    """Seconds that `call` takes, by the clock and of this process's processor time."""
    began, began_cpu = time.perf_counter(), time.process_time()
    call()
    return {
        "clock": round(time.perf_counter() - began, 2),
        "processor": round(time.process_time() - began_cpu, 2),
    }


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
