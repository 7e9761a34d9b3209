"""One training step with all linear layers adapted, for many families of transformers."""

from typing import Any

import pytest
import torch
import transformers as hf
from peft import get_peft_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adapters import BasisConfig, BasisLayer

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**SIZE, "vocab_size": 67, "pad_token_id": 0}
WIDE = {**TEXT, "intermediate_size": 48}
GROUPED = {**WIDE, "num_key_value_heads": 2}
IMAGE = {**SIZE, "intermediate_size": 48, "image_size": 16, "patch_size": 8, "num_labels": 3}
SWIN = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2]}
SEQ2SEQ = {
    **{"vocab_size": 67, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2},
    **{"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48},
    **{"decoder_ffn_dim": 48, "pad_token_id": 0, "decoder_start_token_id": 2, "eos_token_id": 2},
}
T5 = {"vocab_size": 67, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
GPT2 = {"vocab_size": 67, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40}
GPTJ = {**GPT2, "rotary_dim": 4}
OPT = {"ffn_dim": 48, "max_position_embeddings": 40, "word_embed_proj_dim": 32}
DISTIL = {"vocab_size": 67, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
RELATIVE = {**WIDE, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
PIXELS = torch.linspace(-1, 1, 1536).reshape(2, 3, 16, 16)
EXPERTS = {"num_experts_per_tok": 2}

CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", GROUPED),
    "mistral": ("Mistral", GROUPED),
    "qwen2": ("Qwen2", GROUPED),
    "qwen3": ("Qwen3", {**GROUPED, "head_dim": 8}),
    "gemma": ("Gemma", {**GROUPED, "head_dim": 8}),
    "gemma2": ("Gemma2", {**GROUPED, "head_dim": 8}),
    "phi": ("Phi", GROUPED),
    "phi3": ("Phi3", GROUPED),
    "olmo": ("Olmo", GROUPED),
    "granite": ("Granite", GROUPED),
    "stablelm": ("StableLm", GROUPED),
    "falcon": ("Falcon", {**TEXT, "new_decoder_architecture": False}),
    "gpt_neox": ("GPTNeoX", WIDE),
    "gpt2": ("GPT2LMHead", GPT2),
    "gptj": ("GPTJ", GPTJ),
    "bloom": ("Bloom", {"vocab_size": 67, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "opt": (
        "OPT",
        {**TEXT, **OPT},
    ),
    "mamba": ("Mamba", {**TEXT, "state_size": 4}),
    "mixtral": ("Mixtral", {**GROUPED, **EXPERTS, "num_local_experts": 3}),
}
CLASSIFY: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", WIDE),
    "roberta": ("Roberta", {**WIDE, "max_position_embeddings": 40}),
    "distilbert": (
        "DistilBert",
        {"vocab_size": 67, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    ),
    "albert": ("Albert", {**WIDE, "embedding_size": 16}),
    "electra": ("Electra", {**WIDE, "embedding_size": 16}),
    "mpnet": ("MPNet", WIDE),
    "deberta": ("Deberta", RELATIVE),
    "deberta_v2": (
        "DebertaV2",
        {**WIDE, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    ),
}
IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", IMAGE),
    "dinov2": ("Dinov2", {**IMAGE, "mlp_ratio": 2}),
    "beit": ("Beit", {**IMAGE, "use_relative_position_bias": True}),
    "swin": ("Swin", {**SWIN, "window_size": 4, "num_labels": 3}),
    "swinv2": ("Swinv2", {**SWIN, "window_size": 4, "num_labels": 3}),
}
GENERATE: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5", {**T5, "decoder_start_token_id": 0}),
    "bart": ("Bart", SEQ2SEQ),
    "pegasus": ("Pegasus", SEQ2SEQ),
}
HEADS = {
    "ForCausalLM": CAUSAL,
    "ForSequenceClassification": CLASSIFY,
    "ForImageClassification": IMAGES,
    "ForConditionalGeneration": GENERATE,
}
ALL = [(head, name) for head, families in HEADS.items() for name in families]


def made(head: str, name: str) -> nn.Module:
    stem, shape = HEADS[head][name]
    config = getattr(hf, f"{stem.removesuffix('LMHead')}Config")(**shape)
    kind = f"{stem}Model" if stem.endswith("LMHead") else f"{stem}{head}"
    torch.manual_seed(0)
    return getattr(hf, kind)(config)


def batch(head: str) -> dict[str, Tensor]:
    ids = torch.arange(16).reshape(2, 8) % 60 + 3
    if head == "ForImageClassification":
        return {
            "pixel_values": torch.linspace(-1, 1, 1536).reshape(2, 3, 16, 16),
            "labels": ids[:, 0] % 3,
        }
    if head == "ForSequenceClassification":
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}
    return {"input_ids": ids, "labels": ids}


@pytest.mark.parametrize(("head", "name"), ALL, ids=[name for _, name in ALL])
def test_a_training_step_of_all_linear_layers(head, name):
    model = made(head, name)
    linear = [m for m in model.modules() if isinstance(m, nn.Linear | Conv1D)]
    adapted = get_peft_model(
        model, BasisConfig(r=2, num_basis=6, target_modules="all-linear", init_weights=False)
    )
    layers = [m for m in adapted.modules() if isinstance(m, BasisLayer)]
    assert len(layers) >= len(linear) - 3 > 0, "all but the heads"
    trained = [(n, p) for n, p in adapted.named_parameters() if p.requires_grad]
    optimizer = torch.optim.SGD([p for _, p in trained], lr=1e-3)
    loss = adapted.train()(**batch(head)).loss
    loss.backward()
    assert loss.isfinite()
    assert not (missing := [n for n, p in trained if p.grad is None]), missing
    optimizer.step()
    assert adapted(**batch(head)).loss.isfinite()
