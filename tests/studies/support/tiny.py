"""A random BERT and a task that it can learn in seconds, for tests and benchmarks."""

import csv
import random
from pathlib import Path

import torch

GOOD = ("bright", "fine", "lovely", "warm")
BAD = ("awful", "bleak", "dull", "sour")
PLAIN = ("a", "film", "it", "of", "plot", "scene", "song", "the", "this", "was", "with", "and")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def bert(folder: Path, **sizes: int) -> Path:
    """A random BERT and a word tokenizer, written to `folder`.

    2 layers, 2 heads, width 32 and 64, 64 positions; `sizes` are options of `BertConfig` instead.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

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
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
    }
    config = BertConfig(vocab_size=len(words), **{**small, **sizes})
    BertModel(config).save_pretrained(folder)
    return folder


def table(folder: Path) -> Path:
    """400 different sentences in columns `text` and `label`; one word of each decides its label."""
    draw, rows = random.Random(0), {}
    while len(rows) < 400:
        label = draw.choice(("bad", "good"))
        words = draw.choices(PLAIN, k=draw.randint(3, 9))
        words.insert(draw.randrange(len(words)), draw.choice(GOOD if label == "good" else BAD))
        rows[" ".join(words)] = label
    path = folder / "sentences.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows(rows.items())
    return path
