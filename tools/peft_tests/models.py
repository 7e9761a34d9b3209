"""Tiny random models under the names that PEFT's tests ask the Hub for, as a cache of the Hub."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

ENDS = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
SMALL = {"vocab_size": 1000, "num_attention_heads": 4, "num_hidden_layers": 2}
LLAMA = {**SMALL, "hidden_size": 16, "intermediate_size": 64, "num_key_value_heads": 2}
MOE = {**LLAMA, "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 4}
MOE |= {"moe_intermediate_size": 32, "intermediate_size_mlp": 32}
BERT = {**SMALL, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 5}
GPT = {**ENDS, "vocab_size": 1000, "n_embd": 32, "n_layer": 5, "n_head": 4, "rotary_dim": 4}
OPT = {**SMALL, "vocab_size": 50265, "num_hidden_layers": 5, "ffn_dim": 4}
T5 = {"vocab_size": 1000, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 5, "num_heads": 4}
SIDES = {"layers": 2, "attention_heads": 4, "ffn_dim": 4}
BART = {f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in SIDES.items()}

MODELS: list[tuple[str, dict[str, Any], str]] = [
    ("OPTForCausalLM", {**OPT, "hidden_size": 16, "word_embed_proj_dim": 16}, "P-OPTForCausalLM"),
    ("OPTForCausalLM", {**OPT, "num_hidden_layers": 12}, "peft-internal-testing/opt-125m"),
    ("GPT2LMHeadModel", GPT, "gpt2 P-GPT2LMHeadModel P-gpt2 H-gpt2"),
    ("GPTJForCausalLM", GPT, "P-GPTJForCausalLM"),
    ("GPTNeoXForCausalLM", BERT, "P-GPTNeoXForCausalLM"),
    ("BloomForCausalLM", {**GPT, "hidden_size": 32}, "P-BloomForCausalLM"),
    ("LlamaForCausalLM", {**LLAMA, "num_key_value_heads": 4},
     "P-LlamaForCausalLM T-LlamaForCausalLM H-LlamaForCausalLM"),
    ("LlamaForSequenceClassification", {**LLAMA, "pad_token_id": 0},
     "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2"),
    ("MistralForCausalLM", LLAMA, "H-MistralForCausalLM"),
    ("Qwen2ForCausalLM", {**LLAMA, "hidden_size": 8}, "peft-internal-testing/tiny-dummy-qwen2"),
    ("Qwen2ForCausalLM", {**LLAMA, "tie_word_embeddings": True}, "Qwen/Qwen2-0.5B"),
    ("Qwen3ForCausalLM", LLAMA, "trl-internal-testing/tiny-Qwen3ForCausalLM"),
    ("Gemma3ForCausalLM", {**LLAMA, "head_dim": 8}, "H-Gemma3ForCausalLM"),
    ("Llama4ForCausalLM", MOE, "trl-internal-testing/tiny-Llama4ForCausalLM"),
    ("GptOssForCausalLM", MOE, "trl-internal-testing/tiny-GptOssForCausalLM"),
    ("Qwen3MoeForCausalLM", MOE, "trl-internal-testing/tiny-Qwen3MoeForCausalLM"),
    ("Qwen3MoeForCausalLM", MOE, "hf-internal-testing/tiny-qwen3-moe"),
    ("MixtralForCausalLM", MOE, "hf-internal-testing/Mixtral-tiny"),
    ("T5ForConditionalGeneration", {**T5, "decoder_start_token_id": 0},
     "google/flan-t5-small P-t5 P-T5ForConditionalGeneration "
     "P-T5ForConditionalGeneration-calibrated"),
    ("BartForConditionalGeneration", {**BART, "vocab_size": 1000, "d_model": 16},
     "P-BartForConditionalGeneration"),
    ("BertModel", BERT, "P-BertModel H-BertModel"),
    ("BertForSequenceClassification", BERT, "bert-base-uncased P-BertForSequenceClassification"),
    ("RobertaModel", {**BERT, **ENDS}, "P-RobertaModel"),
    ("RobertaForSequenceClassification", {**BERT, **ENDS}, "P-RobertaForSequenceClassification"),
    ("DebertaModel", BERT, "P-DebertaModel"),
    ("DebertaV2Model", BERT, "P-DebertaV2Model"),
    ("CLIPTextModel", LLAMA, "peft-internal-testing/tiny-clip-text-2"),
]  # fmt: skip
OWNERS = {"P": "peft", "T": "trl", "H": "hf"}
"""`P-NAME` is short for peft-internal-testing/tiny-random-NAME."""


def make_cache(hub: Path) -> None:
    """Write every model that is missing below `hub`, in the layout of the Hub's cache."""
    words = ["<s>", "<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(96))]
    level = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    plain = Tokenizer(level)
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    special = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), words, strict=False))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, **special)
    for architecture, options, names in MODELS:
        for name in names.split():
            if (owner := OWNERS.get(name[0])) and name[1] == "-":
                name = f"{owner}-internal-testing/tiny-random-{name[2:]}"
            folder = hub / f"models--{name.replace('/', '--')}"
            if (folder / "refs" / "main").exists():
                continue
            torch.manual_seed(0)
            cls = getattr(transformers, architecture)
            cls(cls.config_class(**options)).save_pretrained(folder / "snapshots" / "local")
            tokenizer.save_pretrained(folder / "snapshots" / "local")
            (folder / "refs").mkdir(exist_ok=True)
            (folder / "refs" / "main").write_text("local", encoding="utf-8")
