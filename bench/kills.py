"""Does a study that is killed again and again end with the numbers of one that was left alone?

    python -m bench.kills local [--minutes 10] [--seed 0]     # kills the driver and its workers
    python -m bench.kills ray [--minutes 10] [--seed 0]       # and nodes of a cluster of two

12 trials of seconds (a tiny BERT, 3 learning rates, 4 seeds) run undisturbed on this machine once.
Then they run from the start, again and again until the minutes are over, while one process after
the other is killed (kill -9); the same command goes on each time. Prints what was killed and
whether every metric is the undisturbed one, bit for bit, and each trial completed once. Writes its
part of bench/results/kills.json.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import psutil

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "bench" / "results" / "kills.json"
sys.path[:0] = [str(ROOT), str(ROOT / "tests/studies/support")]  # the fakes are those of the tests

import fake_ray  # noqa: E402
import tiny  # noqa: E402
from fake_trials import make_study  # noqa: E402
from python_path import environment  # noqa: E402

from studies.engine.command import dispatch  # noqa: E402
from studies.engine.planning import runs  # noqa: E402
from studies.engine.records import Trial  # noqa: E402
from studies.engine.running.events import Stopped  # noqa: E402
from studies.engine.running.local import LocalRunner  # noqa: E402
from studies.engine.running.protocols import Runner  # noqa: E402

SLOTS = 2
MODULES = {"studies.engine.trials.worker", "studies.engine.trials.template"}
"""What workers run: by themselves, or forked."""
BUSY_SECONDS = 8.0
"""At most so long a driver is left alone once a trial of it trains."""


def main() -> None:
    """Disturb studies, compare, write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runner", choices=["local", "ray", "drive"])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="of `drive`, which is for this program alone")
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--address")
    args = parser.parse_args()
    if args.runner == "drive":
        sys.exit(drive(args.folder, args.runs, args.address))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny.bert(folder / "bert")
        tiny.table(folder)
        numbers = measure(args.runner, folder, args.minutes * 60, random.Random(args.seed))
    print(json.dumps(numbers, indent=2))
    record = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    OUT.write_text(json.dumps(record | {args.runner: numbers}, indent=2) + "\n", encoding="utf-8")


def trials(folder: Path) -> list[Trial]:
    """The 12 points; they save about every second."""
    about = {"study": "fake", "profile": "embedded", "arm": "a"}
    config = {
        "backbone": {"name": str(folder / "bert")},
        "task": {"name": str(folder / "sentences.csv"), "train_rows": 240, "valid_rows": 60,
                 "test_rows": 90},
        "adapter": {"method": "lora", "r": 4, "alpha": 8, "target_modules": ["query", "value"]},
        "split_seed": 0,
    }  # fmt: skip
    train = {"epochs": 5, "batch_size": 16, "warmup_ratio": 0.1, "checkpoint_minutes": 0.02}
    return [
        Trial(**about, seed=seed, config=config | {"train": train | {"learning_rate": rate}})
        for rate in (0.005, 0.01, 0.02)
        for seed in range(4)
    ]


def drive(folder: Path, runs_dir: Path, address: str | None) -> int:
    """Run what has no result, failed trials too; 0 once all is done."""
    study, points = make_study(), trials(folder)
    with contextlib.ExitStack() as stack:
        if address is None:

            def make_runner(slots: int) -> Runner:
                return LocalRunner(SLOTS, runs_dir / "workers")
        else:
            from studies.engine.running.cluster import ray_runner

            cluster = stack.enter_context(ray_runner.connected(address))

            def make_runner(slots: int) -> Runner:
                return ray_runner.RayRunner(cluster, slots)

        try:
            dispatch.run(study, points, runs_dir, make_runner, retry_failed=True)
        except Stopped:  # the first three were killed alike
            return 1
    return int(any(value is None for value in metrics(folder, runs_dir).values()))


def metrics(folder: Path, runs_dir: Path) -> dict[str, dict[str, float] | None]:
    """By key; None where a trial is not done."""
    results = {trial.key: runs.result_of(trial, runs_dir) for trial in trials(folder)}
    return {
        key: None if result is None or result.status != "done" else result.metrics
        for key, result in results.items()
    }


def measure(runner: str, folder: Path, seconds: float, draw: random.Random) -> dict[str, object]:
    """One study undisturbed, then one after the other disturbed."""
    begin(folder, folder / "calm", None).wait()
    calm = metrics(folder, folder / "calm")
    assert None not in calm.values(), "the undisturbed study is not complete"
    kills: collections.Counter[str] = collections.Counter()
    studies_done = equal = once = resumed = 0
    end = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        cluster = None
        if runner == "ray":
            cluster = stack.enter_context(contextlib.closing(fake_ray.FakeCluster(2)))
        while time.monotonic() < end:
            runs_dir = folder / f"disturbed-{studies_done}"
            disturb(folder, runs_dir, cluster, draw, kills, lambda: time.monotonic() < end)
            numbers = metrics(folder, runs_dir)
            studies_done += 1
            equal += sum(numbers[key] == calm[key] for key in calm)
            once += sum(count == 1 for count in completions(runs_dir).values())
            logs = runs_dir.glob("fake/embedded/trials/*/log.txt")
            resumed += sum("goes on after" in log.read_text(errors="replace") for log in logs)
            print(f"{studies_done} studies, kills {dict(kills)}, {equal} equal", flush=True)
    return {
        "studies": studies_done,
        "trials": 12 * studies_done,
        "kills": dict(kills),
        "trials with the undisturbed metrics, bit for bit": equal,
        "trials completed once": once,
        "trials that went on from a checkpoint at last": resumed,
    }


def completions(runs_dir: Path) -> collections.Counter[str]:
    """How often Optuna has each point as complete."""
    rows = optuna.load_study(
        study_name="fake/embedded", storage=f"sqlite:///{runs_dir / 'optuna.db'}"
    ).trials
    return collections.Counter(
        row.user_attrs["point"] for row in rows if row.state.name == "COMPLETE"
    )


def begin(folder: Path, runs_dir: Path, address: str | None) -> subprocess.Popen[bytes]:
    """The driver, in a process of its own."""
    command = [sys.executable, __file__, "drive", "--folder", str(folder), "--runs", str(runs_dir)]
    return subprocess.Popen(
        [*command, *(["--address", address] if address else [])],
        env=environment(OMP_NUM_THREADS="1"),
    )


def disturb(
    folder: Path,
    runs_dir: Path,
    cluster: fake_ray.FakeCluster | None,
    draw: random.Random,
    kills: collections.Counter[str],
    more: Callable[[], bool],
) -> None:
    """Run a study to its end under kills; without any once there is no `more` time."""
    while True:
        driver = begin(folder, runs_dir, cluster.address if cluster else None)
        while driver.poll() is None:
            while driver.poll() is None and not (trains(runs_dir) and workers(driver, cluster)):
                time.sleep(0.05)
            calm_until = time.monotonic() + draw.uniform(0, BUSY_SECONDS)
            while driver.poll() is None and time.monotonic() < calm_until:
                time.sleep(0.02)
            running = workers(driver, cluster)
            if driver.poll() is not None or not running or not more():
                continue
            victim = draw.choice(["driver", "worker", *(["node"] if cluster else [])])
            kills[victim] += 1
            if victim == "driver":
                driver.kill()
                driver.wait()
            elif victim == "worker":
                with contextlib.suppress(psutil.NoSuchProcess):
                    draw.choice(running).kill()
            elif cluster is not None:
                cluster.do("kill")
                cluster.do("add")
        if driver.returncode == 0:
            return


def trains(runs_dir: Path) -> bool:
    """Whether a trial is past its imports: what is killed before would never end."""
    metrics = runs_dir.glob("fake/embedded/trials/*/metrics.jsonl")
    return any(not file.with_name("result.json").exists() for file in metrics)


def workers(
    driver: subprocess.Popen[bytes], cluster: fake_ray.FakeCluster | None
) -> list[psutil.Process]:
    """Processes that train for `driver`, and what forks them; or those of the cluster's actors."""
    if cluster is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            below = psutil.Process(driver.pid).children(recursive=True)
            return [process for process in below if MODULES & set(process.cmdline())]
        return []
    processes = []
    for process in psutil.process_iter(["cmdline", "ppid"]):
        if MODULES & set(process.info["cmdline"] or ()):
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(process.info["ppid"]) == cluster.session:
                    processes.append(process)
    return processes


if __name__ == "__main__":
    main()
