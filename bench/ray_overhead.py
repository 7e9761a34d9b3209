"""What a trial that does nothing costs: on a Ray cluster of this machine, and without Ray.

    python -m bench.ray_overhead [N]     # N trials (300), 2 slots

Prints a table and writes the part `ray` of bench/results/engine.json.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "bench" / "results" / "engine.json"
sys.path[:0] = [str(ROOT), str(ROOT / "tests/studies/support")]  # the fakes are those of the tests

import fake_ray  # noqa: E402
import fake_trials  # noqa: E402

from studies.engine.command import dispatch  # noqa: E402
from studies.engine.running.cluster import ray_runner  # noqa: E402
from studies.engine.running.events import Event  # noqa: E402
from studies.engine.running.protocols import Runner  # noqa: E402
from studies.engine.trials import devices  # noqa: E402

SLOTS = 2


def main() -> None:
    """Measure both runners and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("count", nargs="?", type=int, default=300, help="trials; default: 300")
    count = parser.parse_args().count
    devices.gpus = lambda: 0
    numbers: dict[str, object] = {"trials": count, "slots": SLOTS, "cores": os.cpu_count()}
    numbers["load_before"] = round(os.getloadavg()[0], 1)
    numbers["ray"] = importlib.metadata.version("ray")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        numbers["local"] = measured(count, root / "local", fake_trials.runners(root / "journal", 2))
        argv = fake_ray.command(root)
        began = time.perf_counter()
        with ray_runner.connected("local") as cluster:
            numbers["s to start Ray here and to check its node"] = time.perf_counter() - began
            numbers["on Ray"] = measured(
                count,
                root / "ray",
                lambda slots: ray_runner.RayRunner(cluster, SLOTS, command=lambda processes: argv),
            )
    numbers = json.loads(json.dumps(numbers), parse_float=lambda text: round(float(text), 2))
    print(json.dumps(numbers, indent=2))
    record = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    OUT.write_text(json.dumps(record | {"ray": numbers}, indent=2) + "\n", encoding="utf-8")


def measured(count: int, runs_dir: Path, make_runner: Callable[[int], Runner]) -> dict[str, float]:
    """Times of a study of `count` trials."""
    runs_dir.mkdir()
    started: dict[str, float] = {}
    spans: list[float] = []

    def on_event(event: Event) -> None:
        now = time.perf_counter()
        if event.kind == "started":
            started[event.trial.key] = now
        else:
            spans.append(1000 * (now - started[event.trial.key]))

    seeds = tuple(range(-(-count // 10)))
    trials = fake_trials.make_trials(*[{}] * 10, seeds=seeds)[:count]
    began, busy = time.perf_counter(), time.process_time()
    dispatch.run(fake_trials.make_study(), trials, runs_dir, make_runner, on_event=on_event)
    busy = time.process_time() - busy
    first = min(started.values()) - began
    whole = time.perf_counter() - began - first
    return {
        "s until the first trial starts": first,
        "ms a trial and slot, by the clock": 1000 * whole * SLOTS / count,
        "ms from start to end, median": statistics.median(spans),
        "ms of the driver's processor time a trial": 1000 * busy / count,
    }


if __name__ == "__main__":
    main()
