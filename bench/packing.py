"""What packing trials on one machine gives: trials an hour at 1, 2, 4, 8 slots.

    python run_study.py studies/grid_size.yaml --profile smollm2 --export-plan plan.json
    python -m bench.packing plan.json [--slots 1 2 4 8] [--rounds 2] [--steps 100]

Each number of slots gets `rounds` trials a slot, from the head of the plan and cut to `steps`
steps, in fresh folders by `studies.engine.work`: starting the processes is counted, as it is in a
study; one trial runs before. Prints a table and writes packing.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench.adapter.record import place
from studies.engine.planning.plan_file import Plan, read_plan
from studies.engine.records import read_result, write_record
from studies.engine.trials import devices

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measure each number of slots in turn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("plan", type=Path, help="file of `--export-plan`")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=2, help="trials a slot")
    parser.add_argument("--steps", type=int, help="train.max_steps of each trial")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results")
    args = parser.parse_args()
    plan = shortened(read_plan(args.plan), args.steps)
    if (most := args.rounds * max(args.slots)) > len(plan.trials):
        parser.error(f"{args.plan} has {len(plan.trials)} trials, {most} are needed")
    rows: list[dict[str, float]] = []
    measure(plan.model_copy(update={"trials": plan.trials[:1]}), 1)  # files and kernels are cached
    print(f"{'slots':>5} {'trials':>6} {'seconds':>8} {'an hour':>8} {'ratio':>6}")
    for count in args.slots:
        head = plan.model_copy(update={"trials": plan.trials[: args.rounds * count]})
        seconds = measure(head, count)
        rate = 3600 * len(head.trials) / seconds
        ratio = rate / rows[0]["trials_an_hour"] if rows else 1.0
        rows.append(
            {
                "slots": count,
                "trials": len(head.trials),
                "seconds": round(seconds, 1),
                "trials_an_hour": round(rate, 1),
                "ratio": round(ratio, 2),
            }
        )
        print(f"{count:>5} {len(head.trials):>6} {seconds:>8.1f} {rate:>8.0f} {ratio:>6.2f}")
    record = {
        "study": f"{plan.study} ({plan.profile})",
        "steps": args.steps,
        "cores": devices.cores(),
        "place": place("cuda" if torch.cuda.is_available() else "cpu"),
        "rows": rows,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "packing.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(path)


def shortened(plan: Plan, steps: int | None) -> Plan:
    """`plan` with `steps` optimizer steps a trial; as it is with None."""
    if steps is None:
        return plan
    trials = []
    for trial in plan.trials:
        train: dict[str, Any] = {**trial.config["train"], "max_steps": steps, "eval_every": None}
        trials.append(trial.model_copy(update={"config": trial.config | {"train": train}}))
    return plan.model_copy(update={"trials": tuple(trials)})


def measure(plan: Plan, count: int) -> float:
    """Seconds in which `count` slots work off `plan`; all of its trials must end well."""
    with tempfile.TemporaryDirectory() as folder:
        path, runs = Path(folder) / "plan.json", Path(folder) / "runs"
        write_record(path, plan)
        command = [sys.executable, "-m", "studies.engine.work", str(path)]
        command += ["--runs", str(runs), "--slots", str(count)]
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        results = [read_result(file.parent) for file in runs.rglob("result.json")]
    finished = sum(result is not None and result.status == "done" for result in results)
    assert finished == len(plan.trials), f"{finished} of {len(plan.trials)} trials ended well"
    return seconds


if __name__ == "__main__":
    main()
