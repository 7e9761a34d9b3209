"""Real model shapes with random weights, and a training step of them with a method."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
    ViTConfig,
)

import adapters

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_ALL = {"r": 16, "alpha": 16, "target_modules": PROJECTIONS}


class Shape(NamedTuple):
    """A model, what a batch of it is, and where adapters go."""

    config: PretrainedConfig
    batch: tuple[int, int]
    """Sequences and tokens of each; images and their pixels a side."""
    adapter: dict[str, Any]
    dtype: torch.dtype = torch.bfloat16


_LLAMA_8B = LlamaConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=16,
    num_attention_heads=32, num_key_value_heads=8,
)  # fmt: skip
"""Half of its 32 layers, which halves the time of compiling; the head then counts double."""

SHAPES = {
    "Qwen2-0.5B": Shape(
        Qwen2Config(
            vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
            num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True,
        ),
        (16, 512),
        _ALL,
    ),
    "Llama-3.2-1B": Shape(
        LlamaConfig(
            vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
            num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=True,
        ),
        (8, 512),
        _ALL,
    ),
    "half a Llama-3-8B": Shape(_LLAMA_8B, (4, 512), _ALL),
    "half a Llama-3-8B, long": Shape(_LLAMA_8B, (4, 2048), _ALL),
    "MiniLM": Shape(
        BertConfig(
            vocab_size=30522, hidden_size=384, intermediate_size=1536, num_hidden_layers=6,
            num_attention_heads=12,
        ),
        (32, 48),
        {"r": 8, "alpha": 16, "target_modules": ["query", "value"]},
        torch.float32,
    ),
    "ViT-S": Shape(
        ViTConfig(hidden_size=384, intermediate_size=1536, num_hidden_layers=12,
                  num_attention_heads=6),
        (64, 224),
        {"r": 16, "alpha": 16, "target_modules": "all"},
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
SHAPES["MiniLM on a CPU"] = Shape(
    SHAPES["MiniLM"].config,
    (16, 32),
    {"r": 8, "alpha": 16, "target_modules": ["query", "key", "value", "dense"]},
    torch.float32,
)
"""The linear layers of the encoder."""


def build(shape: Shape, method: dict[str, Any], device: str, *, narrow: bool = False) -> nn.Module:
    """The frozen model with the adapter of `method`, in training mode.

    Args:
        narrow: Whether what is trained is kept in the dtype of the model, as PEFT does with
            `autocast_adapter_dtype=False`.
    """
    maker = {
        BertConfig: AutoModelForSequenceClassification,
        ViTConfig: AutoModelForImageClassification,
    }
    torch.manual_seed(0)
    with torch.device(device), _default_dtype(shape.dtype):
        chosen = maker.get(type(shape.config), AutoModelForCausalLM)
        model = chosen.from_config(shape.config, attn_implementation="sdpa")
    model.config.use_cache = False
    model.requires_grad_(False)
    adapted = adapters.attach(model, {**shape.adapter, **method}).to(device).train()
    for parameter in adapted.parameters() if narrow else ():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(shape.dtype)
    return adapted


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def inputs(shape: Shape, device: str) -> dict[str, Tensor]:
    """A batch with labels."""
    rows, size = shape.batch
    if isinstance(shape.config, ViTConfig):
        pixels = torch.randn(rows, 3, size, size, device=device).to(shape.dtype)
        return {
            "pixel_values": pixels,
            "labels": torch.zeros(rows, dtype=torch.long, device=device),
        }
    ids = torch.randint(0, shape.config.vocab_size, shape.batch, device=device)
    is_text = isinstance(shape.config, BertConfig)
    return {"input_ids": ids, "labels": ids[:, 0] % 2 if is_text else ids}


def stepper(
    model: Callable[..., Any],
    parameters: nn.Module,
    shape: Shape,
    device: str,
    *,
    autocast: bool = False,
    capturable: bool = False,
) -> Callable[[], None]:
    """A training step: the whole model with head and loss, backward and optimizer.

    Args:
        model: What is called: `parameters` itself, or what it is compiled to.
        parameters: What is trained.
        autocast: Whether the forward pass runs under autocast to bfloat16.
        capturable: Whether the optimizer's state is such that a CUDA graph can hold its step.
    """
    batch = inputs(shape, device)
    groups = adapters.parameter_groups(parameters, 1e-4)
    optimizer = torch.optim.AdamW(groups, fused=True, capturable=capturable)

    def step() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
