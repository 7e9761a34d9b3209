"""What a training step of a trial costs, captured in CUDA graphs and not.

    python -m bench.trial_step [--steps 200] [--rows 32] [--out FILE]

A random BERT of MiniLM's size (6 layers, width 384) on made-up rows of 7 to 48 tokens; LoRA and the
basis adapter on query and value. Each trial runs in this process after a short one like it, so
imports and compiled kernels are there. Prints a table and, with --out, writes it as JSON:
milliseconds of a step (the median of blocks), of the whole training by step, processor time of the
host by step, peak memory, and what the trials noted.
"""

import argparse
import csv
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/studies/support"))  # the random model is that of the tests

import tiny  # noqa: E402
import torch  # noqa: E402

from bench.adapter.record import place  # noqa: E402
from studies.engine.records import Trial  # noqa: E402
from studies.engine.trials.trial import run_trial  # noqa: E402

MINILM = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora"},
    "basis": {"method": "basis", "basis": "sinc", "num_basis": 50, "start": "anchored"},
}


def main() -> None:
    """Measure every adapter both ways."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rows", type=int, default=32, help="of a batch")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    records = []
    print(f"{'adapter':<8}{'capture':<9}{'step ms':>9}{'all ms':>9}{'host ms':>9}{'MiB':>7}  notes")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny.bert(folder / "bert", **MINILM)
        rows(folder / "rows.csv")
        for adapter, options in ADAPTERS.items():
            for capture in ("off", "auto"):
                for steps in (30, args.steps):
                    trial = make_trial(folder, options, capture, steps, args.rows, args.dtype)
                    row = measured(trial, folder / f"{adapter}-{capture}-{steps}", steps)
                records.append({"adapter": adapter, "capture": capture, **row})
                print(
                    f"{adapter:<8}{capture:<9}{row['step_ms']:>9.2f}{row['all_ms']:>9.2f}"
                    f"{row['host_ms']:>9.2f}{row['peak_mib']:>7.0f}  {'; '.join(row['notes'])}"
                )
    if args.out is not None:
        device = place("cuda" if torch.cuda.is_available() else "cpu")
        record = {"place": device, "options": {**vars(args), "out": None}, "rows": records}
        args.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def rows(path: Path) -> None:
    """4,000 rows of 5 to 46 words; more good words than bad ones make a row good."""
    draw = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for _ in range(4000):
            words = draw.choices((*tiny.GOOD, *tiny.BAD, *tiny.PLAIN), k=draw.randint(5, 46))
            good = sum((w in tiny.GOOD) - (w in tiny.BAD) for w in words) > 0
            writer.writerow((" ".join(words), "good" if good else "bad"))


def make_trial(
    folder: Path, adapter: dict[str, Any], capture: str, steps: int, rows: int, dtype: str
) -> Trial:
    """A trial of `steps` steps."""
    config = {
        "backbone": {"name": str(folder / "bert"), "dtype": dtype},
        "task": {
            "name": str(folder / "rows.csv"),
            "max_length": 64,
            "train_rows": 2000,
            "valid_rows": 100,
            "test_rows": 100,
        },
        "adapter": {**adapter, "r": 8, "target_modules": ["query", "value"]},
        "train": {
            "batch_size": rows,
            "epochs": 1000,
            "max_steps": steps,
            "learning_rate": 1e-3,
            "capture": capture,
        },
        "split_seed": 0,
    }
    return Trial(study="bench", profile="p", arm="a", seed=0, config=config)


def measured(trial: Trial, run_dir: Path, steps: int) -> dict[str, Any]:
    """What `trial` cost."""
    result = run_trial(trial, run_dir)
    assert result.cost is not None, result.failure
    cost = result.cost
    return {
        "step_ms": round(1e3 * cost.step_seconds, 3),
        "all_ms": round(1e3 * cost.train_seconds / steps, 3),
        "host_ms": round(1e3 * (cost.processor_seconds or 0.0) / steps, 3),
        "peak_mib": round(cost.peak_memory_bytes / 2**20, 1),
        "notes": list(result.notes),
        "loss": result.metrics["train/loss"],
    }


if __name__ == "__main__":
    main()
