"""One training step of real model shapes with random weights: the basis adapter against PEFT LoRA.

Run on a machine with a GPU: `python bench/training_step.py --out DIR`. Prints the median step and
the peak memory of each method and the ratios to LoRA measured in the same run; writes JSON.
"""

import argparse
import gc
import json
import statistics
import time
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config

import adapters

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SHAPES: dict[str, tuple[PretrainedConfig, tuple[int, int]]] = {
    "Qwen2-0.5B": (
        Qwen2Config(
            vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
            num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True,
        ),
        (16, 512),
    ),
    "Llama-3-8B": (
        LlamaConfig(
            vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
            num_attention_heads=32, num_key_value_heads=8,
        ),
        (4, 512),
    ),
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora"},
    "sinc, G = 50": {"method": "basis", "num_basis": 50},
    "sinc, G = 512": {"method": "basis", "num_basis": 512},
    "hat, G = 50": {"method": "basis", "basis": "hat", "num_basis": 50},
}


def build(config: PretrainedConfig) -> nn.Module:
    """The model in bfloat16 on the GPU, frozen, with random weights."""
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    torch.set_default_dtype(torch.float32)
    model.config.use_cache = False
    return model.requires_grad_(False)


def measure(model: nn.Module, batch: tuple[int, int], steps: int = 8) -> tuple[float, float]:
    """Median seconds of a step and peak GiB; the loss is on the hidden states, the same for all."""
    ids = torch.randint(0, model.config.vocab_size, batch, device="cuda")
    root = model.base_model.model
    optimizer = torch.optim.AdamW(adapters.parameter_groups(model, 1e-4), fused=True)
    batches = list(getattr(root, "_basis_batches", {}).values())

    def step() -> None:
        for phis in batches:  # the body is called, not the root whose hook does this
            phis.begin_pass(True)
        root.model(ids).last_hidden_state.float().pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(4):
        step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(steps):
        torch.cuda.synchronize()
        began = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times), torch.cuda.max_memory_allocated() / 2**30


def main() -> None:
    """Measure every shape with every method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--shape", choices=SHAPES, action="append")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for shape in given.shape or SHAPES:
        config, batch = SHAPES[shape]
        first: tuple[float, float] | None = None
        for name, options in METHODS.items():
            adapter = {**options, "r": 16, "alpha": 16, "target_modules": PROJECTIONS}
            model = adapters.attach(build(config), adapter).cuda().train()
            seconds, memory = measure(model, batch)
            first = first or (seconds, memory)
            rows.append({"shape": shape, "method": name, "step_ms": 1e3 * seconds,
                         "peak_gib": memory, "step_ratio": seconds / first[0],
                         "memory_ratio": memory / first[1]})  # fmt: skip
            print(f"{shape} {name}: {1e3 * seconds:.1f} ms ({seconds / first[0]:.2f}), "
                  f"{memory:.2f} GiB ({memory / first[1]:.2f})", flush=True)  # fmt: skip
            del model
            gc.collect()
            torch.cuda.empty_cache()
    versions = {m.__name__: m.__version__ for m in (torch, transformers, peft)}
    told = {"gpu": torch.cuda.get_device_name(), "versions": versions, "rows": rows}
    (given.out / "training_step.json").write_text(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
