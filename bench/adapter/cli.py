"""Arguments in, exit code out.

python -m bench.adapter [--device cuda] [--only merge --only qwen] [--quick] [--out DIR]
python -m bench.adapter tune --out DIR
python -m bench.adapter report DIR/bench.json ... --into docs/performance.md
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from basis_zoo.registry import did_you_mean
from bench.adapter.checks import check
from bench.adapter.float8 import float8
from bench.adapter.floors import floors
from bench.adapter.forms import forms
from bench.adapter.kernels import gradients, merges, tables
from bench.adapter.launches import launches
from bench.adapter.layer import layer
from bench.adapter.naive import naive
from bench.adapter.record import Run, place
from bench.adapter.report import write
from bench.adapter.steps import BENCHES as STEPS
from bench.adapter.steps import PAIRS, methods, minilm
from bench.adapter.tune import tune

Bench = Callable[[Run, str, bool], None]

BENCHES: dict[str, tuple[Bench, tuple[str, ...]]] = {
    "floors": (floors, ("cuda", "cpu")),
    "launches": (launches, ("cuda", "cpu")),
    "merge": (merges, ("cuda",)),
    "table": (tables, ("cuda",)),
    "gradient": (gradients, ("cuda",)),
    "float8": (float8, ("cuda",)),
    "layer": (layer, ("cuda",)),
    **{name: (bench, ("cuda",)) for name, bench in STEPS.items()},
    "methods": (methods, ("cuda",)),
    "forms": (forms, ("cuda",)),
    "naive": (naive, ("cuda", "cpu")),
    "minilm": (minilm, ("cpu",)),
}
"""What measures, and the devices on which its goals are set."""


def main(arguments: list[str] | None = None) -> int:
    """Run, tune or report; 1 where a correctness check fails."""
    args = _parse(arguments)
    if args.command == "report":
        write(args.files, args.into)
        return 0
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu" and args.threads:
        torch.set_num_threads(args.threads)
    run, began = Run(place(device)), time.monotonic()
    print(run.place, flush=True)
    if not check(device, run.checks, quick=args.quick):
        print("wrong against float64: nothing is timed", flush=True)
        return 1
    print(f"right against float64 ({time.monotonic() - began:.0f} s)", flush=True)
    if args.command == "tune":
        for rows in tune(args.quick):
            _save(args.out, "tiles.json", {**run.place, "rows": rows})
        return 0
    for name in args.only or [n for n, (_, devices) in BENCHES.items() if device in devices]:
        print(f"{name} ({time.monotonic() - began:.0f} s)", flush=True)
        if name in STEPS and args.way:
            STEPS[name](run, device, args.quick, args.way)
        else:
            BENCHES[name][0](run, device, args.quick)
        _save(args.out, "bench.json", {**run.as_json(), "quick": args.quick})
    return 0


def _save(folder: Path | None, name: str, record: dict[str, Any]) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.adapter",
        description="What the adapter costs, against its goals. Nothing is timed where a result "
        "is wrong against float64.",
    )
    commands = ("run", "tune", "report")
    parser.add_argument("command", nargs="?", choices=commands, default="run")
    parser.add_argument("files", nargs="*", type=Path, help="what `report` reads")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="cuda where there is one")
    parser.add_argument("--only", action="append", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument(
        "--way", action="append", choices=list(PAIRS), help="how whole models are run; repeatable"
    )
    parser.add_argument("--quick", action="store_true", help="fewer shapes and repetitions")
    parser.add_argument("--threads", type=int, help="of a CPU run; torch's choice by default")
    parser.add_argument("--out", type=Path, help="a folder for bench.json or tiles.json")
    parser.add_argument("--into", type=Path, help="the document whose tables `report` replaces")
    args = parser.parse_args(arguments)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if args.command != "report" and device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a GPU that torch sees: take --device cpu")
    if args.command == "tune" and device == "cpu":
        parser.error("`tune` is for the kernels of a GPU; this machine has none that torch sees")
    if (args.command == "report") != bool(args.files):
        parser.error("`report` needs JSON files of runs, and nothing else takes any")
    for name in args.only or []:
        if name not in BENCHES:
            hint = did_you_mean(name, BENCHES)
            parser.error(f"unknown benchmark {name!r}.{hint} Known: {', '.join(BENCHES)}")
        if device not in BENCHES[name][1]:
            parser.error(f"{name!r} is measured on {' and '.join(BENCHES[name][1])} only")
    return args
