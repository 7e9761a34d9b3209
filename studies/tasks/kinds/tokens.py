"""Prompts and answers as tokens of a language model."""

import inspect
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from studies.tasks.encoding import IGNORED, Encoded, Example, Pad
from studies.tasks.kinds.prepared import Outputs, Prepared
from studies.tasks.token_cache import tokenise


class Tokens(NamedTuple):
    """A context and what follows it."""

    context: list[int]
    continuation: list[int]


def encode_pairs(
    pairs: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerBase
) -> list[Tokens]:
    """Tokens of (context, continuation), each cut out of the tokens of both together.

    Space at a context's end goes to the continuation, as tokenizers split before a space. An empty
    context becomes the token that texts begin with. These are lm-eval's rules.
    """
    moved = [(c.rstrip(), c[len(c.rstrip()) :] + t) for c, t in pairs]
    whole = _encode([c + t for c, t in moved], tokenizer)
    unique = list(dict.fromkeys(c for c, _ in moved))
    contexts = dict(zip(unique, _encode(unique, tokenizer), strict=True))
    encoded = []
    for (context, _), tokens in zip(moved, whole, strict=True):
        head = contexts[context]
        if head:
            encoded.append(Tokens(head, tokens[len(head) :]))
        else:
            encoded.append(Tokens([begin_token(tokenizer)], tokens))
    return encoded


def begin_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that stands for "nothing before"."""
    begin: int | None = tokenizer.bos_token_id
    end: int = tokenizer.eos_token_id
    return end if begin is None else begin


def lesson(tokens: Tokens, *, end: int | None, max_length: int, train_on_inputs: bool) -> Example:
    """A training example: context, continuation and, unless None, the token `end`.

    A text that is too long loses the beginning of its context, never its answer.
    """
    answer = [*tokens.continuation, *([] if end is None else [end])][:max_length]
    context = tokens.context[max(0, len(tokens.context) + len(answer) - max_length) :]
    ids = context + answer
    labels = ids if train_on_inputs else [IGNORED] * len(context) + answer
    labels = [IGNORED, *labels[1:]]  # nothing predicts the first token
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


def lessons(
    pairs: Sequence[tuple[str, str]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    train_on_inputs: bool,
    end: bool,
) -> Encoded:
    """Training examples of (prompt, answer), closed by the tokenizer's end token where asked."""
    token = tokenizer.eos_token_id if end else None
    return Encoded(
        tuple(
            lesson(tokens, end=token, max_length=max_length, train_on_inputs=train_on_inputs)
            for tokens in encode_pairs(pairs, tokenizer)
        )
    )


def arguments_of(model: nn.Module) -> Collection[str]:
    """What the forward pass of a model, adapted or not, can be given."""
    base: Any = getattr(model, "get_base_model", None)
    inner = model if base is None else base()
    return inspect.signature(inner.forward).parameters


def places_of_labels(labels: Tensor) -> int:
    """How many last positions of (batch, length) have the logits that `next_token_loss` reads."""
    columns = (labels != IGNORED).any(dim=0).nonzero()
    return labels.shape[1] - max(0, int(columns[0]) - 1) if len(columns) else 1


def next_token_loss(outputs: Outputs, labels: Tensor, items: Tensor | int) -> Tensor:
    """Cross-entropy in float32 of each label by the logits before it, its sum divided by `items`.

    Logits may be those of the last positions only, see `places_of_labels`. Only positions with a
    label are raised to float32: logits are the largest tensor of a step.
    """
    labels = labels[:, -outputs.logits.shape[1] :]
    wanted = labels[:, 1:] != IGNORED
    logits, targets = outputs.logits[:, :-1][wanted], labels[:, 1:][wanted]
    return functional.cross_entropy(logits.float(), targets, reduction="sum") / items


def masked_next_token_loss(outputs: Outputs, labels: Tensor, items: Tensor | int) -> Tensor:
    """`next_token_loss` by operations whose shapes do not depend on the labels.

    All the logits there are become float32.
    """
    labels = labels[:, -outputs.logits.shape[1] :][:, 1:]
    logits = outputs.logits[:, :-1].float()
    total = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=IGNORED
    )
    return total / items


def _encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    return tokenise(tokenizer, texts, return_attention_mask=False)["input_ids"]


class TrainedOnLessons(Prepared):
    """What kinds share that train a language model on the tokens of an answer, by `lessons`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._pad = Pad(tokenizer, "right")

    def collate(
        self, examples: Sequence[Example], lengths: Sequence[int] = ()
    ) -> dict[str, Tensor]:
        """(batch, length) tokens, mask and labels."""
        return self._pad(examples, lengths)

    loss = staticmethod(next_token_loss)
    fixed_loss = staticmethod(masked_next_token_loss)
