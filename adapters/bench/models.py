"""Real model shapes with random weights, and a training step of them with a method."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
)

import adapters
from adapters.state import AdapterState

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Shape(NamedTuple):
    """A model, what a batch of it is, and where adapters go."""

    config: PretrainedConfig
    batch: tuple[int, int]
    """Sequences and tokens of each."""
    adapter: dict[str, Any]
    dtype: torch.dtype = torch.bfloat16


SHAPES = {
    "Qwen2-0.5B": Shape(
        Qwen2Config(
            vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
            num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True,
        ),
        (16, 512),
        {"r": 16, "alpha": 16, "target_modules": PROJECTIONS},
    ),
    "Llama-3-8B": Shape(
        LlamaConfig(
            vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
            num_attention_heads=32, num_key_value_heads=8,
        ),
        (4, 512),
        {"r": 16, "alpha": 16, "target_modules": PROJECTIONS},
    ),
    "MiniLM": Shape(
        BertConfig(
            vocab_size=30522, hidden_size=384, intermediate_size=1536, num_hidden_layers=6,
            num_attention_heads=12,
        ),
        (16, 32),
        {"r": 8, "alpha": 16, "target_modules": ["query", "value"]},
        torch.float32,
    ),
    "24 narrow layers": Shape(
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=24,
            num_attention_heads=4, num_key_value_heads=2,
        ),
        (2, 8),
        {"r": 4, "alpha": 4, "target_modules": PROJECTIONS},
        torch.float32,
    ),
}  # fmt: skip


def build(shape: Shape, method: dict[str, Any], device: str) -> nn.Module:
    """The frozen model with the adapter of `method`, in training mode."""
    is_text = isinstance(shape.config, BertConfig)
    maker = AutoModelForSequenceClassification if is_text else AutoModelForCausalLM
    torch.manual_seed(0)
    with torch.device(device), _default_dtype(shape.dtype):
        model = maker.from_config(shape.config, attn_implementation="sdpa")
    model.config.use_cache = False
    model.requires_grad_(False)
    return adapters.attach(model, {**shape.adapter, **method}).to(device).train()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def stepper(model: nn.Module, shape: Shape, device: str) -> Callable[[], None]:
    """A training step; the loss is on the hidden states of the body, the same for all methods."""
    ids = torch.randint(0, shape.config.vocab_size, shape.batch, device=device)
    root = model.get_base_model()
    body = root.base_model
    groups = adapters.parameter_groups(model, 1e-4)
    optimizer = torch.optim.AdamW(groups, fused=True)
    state = AdapterState.of(root)
    batches = list(state.batches.values()) if state else []

    def step() -> None:
        for phis in batches:  # the body is called, not the root, whose hooks do this
            phis.begin_pass(True)
        hidden = body(input_ids=ids).last_hidden_state
        for phis in batches:
            phis.end_pass()
        hidden.float().pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
