"""Accuracy against kept parameters, on a real task: what docs/how_to/export.md shows.

    python docs/kept_parameters.py docs/kept_parameters.png

MiniLM-L6 on movie sentences: LoRA and φ(BA) of rank 8 on the attention's queries and values, three
seeds each, then exported at falling budgets by one global threshold over all layers. Prints the
table of the page. About ten minutes on two cores.
"""

import argparse
import statistics

import torch

import adapters
from adapters.export import CurvePoint, accuracy_curve
from basis_zoo.drawing.layout import finish, panels
from basis_zoo.drawing.styles import arm_styles
from studies import backbones, tasks

TASK = {"name": "movie_sentences", "train_rows": 800, "test_rows": 1000, "max_length": 32}
METHODS = {
    "LoRA": {"method": "lora"},
    "φ(BA), anchored": {"method": "basis", "linear": True},
    "φ(BA), input scale rms 1": {"method": "basis", "linear": True, "input_scale": "rms"},
}
COMMON = {"r": 8, "alpha": 16, "target_modules": ["query", "value"]}
BUDGETS = (1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125)
EPOCHS, BATCH, RATE = 3, 16, 4e-3


def trained_curve(adapter: dict, seed: int) -> tuple[float, list[CurvePoint]]:
    """The test accuracy of one trained adapter, and those of its exports."""
    data = tasks.load(TASK)
    torch.manual_seed(seed)
    model, processor = backbones.load({"name": "minilm"}, tasks.head(TASK, data))
    model = adapters.attach(model, {**COMMON, **adapter})
    prepared = tasks.prepare(TASK, data, processor)
    optimizer = torch.optim.AdamW(adapters.parameter_groups(model, RATE))
    steps = EPOCHS * len(prepared.train) // BATCH
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    order = torch.cat([torch.randperm(len(prepared.train)) for _ in range(EPOCHS)])
    model.train()
    for rows in order.split(BATCH)[:steps]:
        loss = model(**prepared.collate([prepared.train[i] for i in rows.tolist()])).loss
        loss.backward()
        adapters.clip_gradients(model, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()
    return accuracy_curve(
        model, lambda m: prepared.evaluate(m, "test", 100, None)["accuracy"], BUDGETS
    )


def main() -> int:
    """Exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figure")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    figure, (axes,) = panels(1, height=3.6, width=6.4)
    looks = arm_styles(list(METHODS), "LoRA")
    print("| method | trained | " + " | ".join(f"{100 * b:g} %" for b in BUDGETS) + " |")
    print("|---|---|" + "---|" * len(BUDGETS))
    for name, adapter in METHODS.items():
        runs = [trained_curve(adapter, seed) for seed in range(given.seeds)]
        scores = [[run[1][i].score for run in runs] for i in range(len(BUDGETS))]
        cells = [_cell([full for full, _ in runs])] + [_cell(s) for s in scores]
        print(f"| {name} | " + " | ".join(cells) + " |")
        energy = [
            statistics.mean(run[1][i].kept_energy for run in runs) for i in range(len(BUDGETS))
        ]
        print("| kept energy | | " + " | ".join(f"{100 * e:.1f} %" for e in energy) + " |")
        shares = [100 * b for b in BUDGETS]
        means = [statistics.mean(s) for s in scores]
        axes.plot(shares, means, label=name, **looks[name].line(len(shares)))
        whole = statistics.mean(full for full, _ in runs)
        axes.axhline(whole, linestyle=":", color=looks[name].colour)
    axes.set(xlabel="parameters kept, % of those trained", ylabel="test accuracy", xscale="log")
    note = f"Means over {given.seeds} seeds. Dotted: the adapter as trained."
    finish(figure, "Test accuracy against kept parameters", note).savefig(given.figure)
    return 0


def _cell(scores: list[float]) -> str:
    spread = f" ± {statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.3f}{spread}"


if __name__ == "__main__":
    raise SystemExit(main())
