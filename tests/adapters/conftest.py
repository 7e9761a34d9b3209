"""Tiny random transformers of many families, and a few training steps for them."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torch._dynamo.utils import counters

TEXT = {"vocab_size": 67, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
MLP = {"intermediate_size": 48}
GROUPED = {**TEXT, **MLP, "num_key_value_heads": 2, "pad_token_id": 0}
BERT = {**TEXT, **MLP, "max_position_embeddings": 40, "num_labels": 3}
VISION = {k: v for k, v in {**TEXT, **MLP}.items() if k != "vocab_size"} | {"image_size": 16}
EXPERTS = {"num_experts_per_tok": 2}


def _clip() -> nn.Module:
    text = {**TEXT, **MLP, "max_position_embeddings": 40, "eos_token_id": 2, "projection_dim": 16}
    vision = {**VISION, "patch_size": 8, "projection_dim": 16}
    config = hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    return hf.CLIPModel(config)


def _t5() -> nn.Module:
    shape = {"vocab_size": 67, "d_model": 32, "d_kv": 8, "d_ff": 48}
    config = hf.T5Config(**shape, num_layers=2, num_heads=4, decoder_start_token_id=0)
    return hf.T5ForConditionalGeneration(config)


def _deberta() -> nn.Module:
    config = hf.DebertaV2Config(
        **BERT, relative_attention=True, pos_att_type=["c2p", "p2c"], type_vocab_size=0
    )
    return hf.DebertaV2ForSequenceClassification(config)


def _gpt2() -> nn.Module:
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40}
    return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=67, **shape))


def _mixtral() -> nn.Module:
    return hf.MixtralForCausalLM(hf.MixtralConfig(**GROUPED, **EXPERTS, num_local_experts=3))


def _qwen2_moe() -> nn.Module:
    experts = {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 24, **EXPERTS}
    return hf.Qwen2MoeForCausalLM(hf.Qwen2MoeConfig(**GROUPED, **experts, num_experts=3))


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**GROUPED)),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**GROUPED)),
    "gemma": lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**GROUPED, head_dim=8)),
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**TEXT, **MLP)),
    "gpt2": _gpt2,
    "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(**BERT)),
    "roberta": lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**BERT)),
    "deberta": _deberta,
    "t5": _t5,
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**VISION, patch_size=8, num_labels=3)),
    "dinov2": lambda: hf.Dinov2ForImageClassification(
        hf.Dinov2Config(**VISION, patch_size=8, mlp_ratio=2, num_labels=3)
    ),
    "clip": _clip,
    "mixtral": _mixtral,
    "qwen2_moe": _qwen2_moe,
}


class Family(NamedTuple):
    """How to make one tiny model and what to feed it."""

    name: str
    dtype: torch.dtype = torch.float32

    def model(self, seed: int = 0) -> nn.Module:
        """The same weights for the same seed, in evaluation mode."""
        torch.manual_seed(seed)
        model = FAMILIES[self.name]()
        return model.to(self.dtype).eval()

    def batch(
        self, rows: int = 4, length: int = 8, device: torch.device | str = "cpu"
    ) -> dict[str, Tensor]:
        """Inputs with labels, always the same."""
        g = torch.Generator().manual_seed(1)
        ids = torch.randint(3, 67, (rows, length), generator=g).to(device)
        pixels = torch.randn(rows, 3, 16, 16, generator=g).to(device, self.dtype)
        classes = torch.arange(rows, device=device) % 3
        if self.name in ("vit", "dinov2"):
            return {"pixel_values": pixels, "labels": classes}
        if self.name == "clip":
            return {"input_ids": ids, "pixel_values": pixels, "return_loss": True}
        if self.name in ("bert", "roberta", "deberta"):
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": classes}
        return {"input_ids": ids, "labels": ids}

    @torch.no_grad()
    def output(self, model: nn.Module) -> Tensor:
        """The model's answer in evaluation mode."""
        out = model.eval()(**self.batch(device=next(model.parameters()).device))
        return out.logits_per_image if self.name == "clip" else out.logits


def train(model: nn.Module, batch: dict[str, Any], steps: int = 3, rate: float = 1e-2) -> list:
    """A few steps of AdamW on one batch; the losses."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate)
    losses = []
    model.train()
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


@pytest.fixture
def family() -> type[Family]:
    """The class `Family`."""
    return Family


@pytest.fixture
def few_steps() -> Callable[..., list]:
    """The function `train`."""
    return train


@pytest.fixture(params=list(FAMILIES))
def every_family(request: pytest.FixtureRequest) -> Family:
    """One family after the other."""
    return Family(request.param)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Nothing is compiled yet, and its counters are at zero."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
