"""Rows to examples, tokenised once, and examples to batches, padded to the longest of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from studies.tasks.rows import Row
from studies.tasks.token_cache import tokenise

Example = dict[str, Any]
MOST_WORKERS = 8
"""More processes than this wait for each other."""


class Examples(Protocol):
    """Training examples with the length that decides which are batched together."""

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each example; all equal where nothing is padded."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


@dataclass(frozen=True)
class Encoded(Dataset[Example]):
    """Tokenised rows with their class indices."""

    examples: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(example["input_ids"]) for example in self.examples]


def encode(
    rows: Sequence[Row],
    labels: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> Encoded:
    """Tokenise `rows`, cut to `max_length` tokens; `labels` gives the class indices."""
    index = {label: place for place, label in enumerate(labels)}
    texts, pairs = [row.text for row in rows], None
    if rows and rows[0].pair is not None:
        pairs = [row.pair for row in rows]
    tokens = tokenise(tokenizer, texts, pairs, truncation=True, max_length=max_length)
    return Encoded(
        tuple(
            {**{key: tokens[key][i] for key in tokens}, "labels": index[row.label]}
            for i, row in enumerate(rows)
        )
    )


@dataclass(frozen=True)
class Pad:
    """Collates rows: every field is padded to the longest row on the tokenizer's side."""

    tokenizer: PreTrainedTokenizerBase

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """(batch, longest) for every field, (batch,) for the labels."""
        rest = [{k: v for k, v in example.items() if k != "labels"} for example in examples]
        batch = dict(self.tokenizer.pad(rest, return_tensors="pt"))
        batch["labels"] = torch.tensor([example["labels"] for example in examples])
        return batch


def eval_batches(data: Encoded, pad: Pad, batch_size: int) -> Iterator[dict[str, Tensor]]:
    """Batches for evaluation, shortest rows first; the metrics do not depend on the order."""
    order = sorted(range(len(data)), key=data.lengths.__getitem__)
    for start in range(0, len(order), batch_size):
        yield pad([data[index] for index in order[start : start + batch_size]])


def spare_workers() -> int:
    """Processes that may make batches while a GPU trains: none on a CPU, whose cores do train."""
    return min(MOST_WORKERS, torch.get_num_threads()) if torch.cuda.is_available() else 0
