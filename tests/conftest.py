"""A tiny random BERT with a tokenizer, and a task in a CSV file that it can learn in seconds."""

import csv
import os
import random
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# the same examples in every run; another draw: --hypothesis-profile=default
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

torch.set_num_threads(1)  # test files run in parallel, one process a core
os.environ.setdefault("OMP_NUM_THREADS", "1")

if not torch.cuda.is_available():  # before anything imports triton: kernels run in its interpreter
    os.environ.setdefault("TRITON_INTERPRET", "1")

GOOD = ("bright", "fine", "lovely", "warm")
BAD = ("awful", "bleak", "dull", "sour")
PLAIN = ("a", "film", "it", "of", "plot", "scene", "song", "the", "this", "was", "with", "and")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random BERT of 2 layers, width 32, and a word tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-bert")
    words = {word: index for index, word in enumerate((*SPECIAL, *GOOD, *BAD, *PLAIN))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", words["[SEP]"]), ("[CLS]", words["[CLS]"])
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 different sentences in columns `text` and `label`; one word of each decides its label."""
    draw, rows = random.Random(0), {}
    while len(rows) < 400:
        label = draw.choice(("bad", "good"))
        words = draw.choices(PLAIN, k=draw.randint(3, 9))
        words.insert(draw.randrange(len(words)), draw.choice(GOOD if label == "good" else BAD))
        rows[" ".join(words)] = label
    path = tmp_path_factory.mktemp("tiny-task") / "sentences.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows(rows.items())
    return path


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of 2 layers, width 32, and a tokenizer with a token a byte."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-llama")
    letters = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words = {word: index for index, word in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", bos_token="<end>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
