"""Log-likelihoods of continuations, several for one context, in batches.

Contexts that several choices share are run through the model once; their keys and values are then
read again for every choice. Batches hold contexts of like length.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from studies.tasks.encoding import padded, real_tokens
from studies.tasks.kinds.tokens import Tokens, arguments_of

MIN_SHARED = 2
"""Choices of one context from which running it once pays."""


class _Question(NamedTuple):
    """One context (without its last token) and what is scored after it."""

    context: list[int]
    choices: list[list[int]]
    """Each with the context's last token in front: it predicts the first scored one."""
    places: list[int]


def log_likelihoods(
    model: nn.Module,
    requests: Sequence[Tokens],
    *,
    batch_size: int,
    max_length: int,
    pad_token: int,
    device: torch.device,
) -> list[float]:
    """Sum of the natural-log probabilities of each request's continuation.

    `batch_size` counts contexts with choices of their own, or rows. A request that is too long
    loses the beginning of its context.

    Raises:
        ValueError: a continuation has no tokens, or more than `max_length`.
    """
    scores = [0.0] * len(requests)
    forward = _Forward(model, device, pad_token)
    shared, alone = list[_Question](), list[_Question]()
    for question in _questions(requests, max_length):
        shares = question.context and len(question.choices) >= MIN_SHARED and forward.caches
        (shared if shares else alone).append(question)
    for batch in _batches(shared, batch_size, lambda q: (len(q.context), len(q.choices))):
        _put(scores, batch, forward.with_shared_context(batch))
    singles = [
        _Question(q.context, [c], [p])
        for q in alone
        for c, p in zip(q.choices, q.places, strict=True)
    ]
    for batch in _batches(singles, batch_size, lambda q: len(q.context) + len(q.choices[0])):
        _put(scores, batch, forward.plainly(batch))
    return scores


def _questions(requests: Sequence[Tokens], max_length: int) -> list[_Question]:
    questions: dict[tuple[int, ...], _Question] = {}
    for place, (context, continuation) in enumerate(requests):
        if not 0 < len(continuation) <= max_length:
            raise ValueError(
                f"a continuation has {len(continuation)} tokens; it needs at least one and at most "
                f"`max_length` {max_length}"
            )
        # the last scored token predicts nothing and is not run
        cut = context[max(0, len(context) + len(continuation) - max_length - 1) :]
        question = questions.setdefault(tuple(cut), _Question(cut[:-1], [], []))
        question.choices.append([cut[-1], *continuation])
        question.places.append(place)
    return list(questions.values())


def _batches(
    questions: list[_Question], size: int, key: Callable[[_Question], int | tuple[int, int]]
) -> Iterator[list[_Question]]:
    """Longest first, so that a batch too large for the memory shows at once."""
    order = sorted(questions, key=key, reverse=True)
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _put(scores: list[float], batch: list[_Question], values: list[float]) -> None:
    for place, value in zip([p for q in batch for p in q.places], values, strict=True):
        scores[place] = value


class _Forward:
    """Runs the model; knows which arguments its forward pass takes."""

    def __init__(self, model: nn.Module, device: torch.device, pad_token: int) -> None:
        self._model, self._device, self._pad = model, device, pad_token
        taken = arguments_of(model)
        self._positions = "position_ids" in taken
        self._keep = "logits_to_keep" in taken
        self.caches = self._positions and "past_key_values" in taken
        """Whether keys and values of a context can be kept."""

    def plainly(self, batch: list[_Question]) -> list[float]:
        """Scores of questions with one choice each."""
        texts = [question.context + question.choices[0][:-1] for question in batch]
        ids, mask = self._tensors(texts, "left")
        longest = max(len(question.choices[0]) - 1 for question in batch)
        logits = self._run(ids, mask, _positions(mask), longest).logits[:, -longest:]
        return _scores(logits, [question.choices[0][1:] for question in batch], "left")

    def with_shared_context(self, batch: list[_Question]) -> list[float]:
        """Scores of questions with several choices: contexts first, then every choice."""
        ids, mask = self._tensors([question.context for question in batch], "left")
        cache = self._run(ids, mask, _positions(mask), 1, DynamicCache()).past_key_values
        counts = torch.tensor([len(q.choices) for q in batch], device=self._device)
        rows = torch.repeat_interleave(torch.arange(len(batch), device=self._device), counts)
        cache.batch_select_indices(rows)
        choices = [choice for question in batch for choice in question.choices]
        right, right_mask = self._tensors([choice[:-1] for choice in choices], "right")
        start = mask.sum(dim=1)[rows, None]
        positions = start + torch.arange(right.shape[1], device=self._device)
        full = torch.cat([mask[rows], right_mask], dim=1)
        logits = self._run(right, full, positions, right.shape[1], cache).logits
        return _scores(logits, [choice[1:] for choice in choices], "right")

    def _run(
        self,
        ids: Tensor,
        mask: Tensor,
        positions: Tensor,
        keep: int,
        cache: DynamicCache | None = None,
    ) -> Any:
        """The model's output, with `logits` and, where there is a cache, `past_key_values`."""
        extra: dict[str, object] = {"past_key_values": cache, "use_cache": cache is not None}
        if self._positions:
            extra["position_ids"] = positions
        if self._keep:
            extra["logits_to_keep"] = keep
        return self._model(input_ids=ids, attention_mask=mask, **extra)

    def _tensors(self, texts: list[list[int]], side: str) -> tuple[Tensor, Tensor]:
        """(texts, length) tokens, padded on that side, and their mask."""
        ids, mask = padded(texts, self._pad, side=side), real_tokens(texts, side=side)
        return ids.to(self._device), mask.to(self._device)


def _positions(mask: Tensor) -> Tensor:
    """Places of real tokens counted from 0, (batch, length); those of padding do not matter."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def _scores(logits: Tensor, targets: list[list[int]], side: str) -> list[float]:
    """Sums over each row's targets, of which the longest has as many as there are logits."""
    index = padded(targets, 0, side=side).to(logits.device)
    real = real_tokens(targets, side=side).to(logits.device)
    # log_softmax of the whole vocabulary in float32 would double the largest tensor there is
    chosen = logits.gather(2, index[..., None])[..., 0].float()
    logs = chosen - torch.logsumexp(logits.float(), dim=-1)
    return (logs * real).sum(dim=1).tolist()
