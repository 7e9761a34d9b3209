"""Log-likelihoods: equal to one request at a time, whatever the batch, and to lm-eval's."""

from pathlib import Path
from typing import Any

import pytest
import torch

from studies import backbones
from studies.tasks.encoding import Pad
from studies.tasks.kinds.multiple_choice import chosen_by_sum, chosen_normalised
from studies.tasks.kinds.scoring import log_likelihoods
from studies.tasks.kinds.tokens import (
    IGNORED,
    Tokens,
    encode_pairs,
    lessons,
    masked_next_token_loss,
    next_token_loss,
    places_of_labels,
)
from studies.tasks.rows import Item

PAIRS = [
    ("The cat sat on", " the mat"),
    ("The cat sat on", " a chair by the window"),
    ("The cat sat on", " it"),
    ("Question: why?\nAnswer:", " because"),
    ("Question: why?\nAnswer:", " no"),
    ("a lone context with nothing shared", " end"),
    ("x", " y"),
    ("", "no context at all"),
    ("trailing space ", "word"),
]


@pytest.fixture(scope="module")
def loaded(tiny_llama: Path) -> tuple[Any, Any]:
    model, tokenizer = backbones.load(str(tiny_llama), backbones.Head("language_model"))
    return model.eval(), tokenizer


def one_by_one(model: Any, requests: list[Tokens]) -> list[float]:
    found = []
    for context, continuation in requests:
        logs = model(torch.tensor([context + continuation])).logits[0].log_softmax(-1)
        places = range(len(context) - 1, len(context) + len(continuation) - 1)
        found.append(sum(logs[p, t].item() for p, t in zip(places, continuation, strict=True)))
    return found


def score(loaded: tuple[Any, Any], requests: list[Tokens], **changes: Any) -> list[float]:
    model, tokenizer = loaded
    options = {"batch_size": 3, "max_length": 512, "pad_token": tokenizer.pad_token_id} | changes
    return log_likelihoods(model, requests, device=torch.device("cpu"), **options)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
@torch.inference_mode()
def test_scores_do_not_depend_on_the_batch(loaded: tuple[Any, Any], batch_size: int) -> None:
    requests = encode_pairs(PAIRS, loaded[1])
    got = score(loaded, requests, batch_size=batch_size)
    assert got == pytest.approx(one_by_one(loaded[0], requests), abs=2e-4)


@torch.inference_mode()
def test_a_long_context_loses_its_beginning(loaded: tuple[Any, Any]) -> None:
    requests = encode_pairs([("b" * 100, " one"), ("b" * 100, " others")], loaded[1])
    got = score(loaded, requests, max_length=20)
    cut = [Tokens(c[len(c) + len(t) - 21 :], t) for c, t in requests]
    assert all(len(c) + len(t) == 21 for c, t in cut)  # the last token is predicted, not read
    assert got == pytest.approx(one_by_one(loaded[0], cut), abs=2e-4)


def test_nothing_to_score_is_refused(loaded: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match="a continuation has 0 tokens"):
        score(loaded, [Tokens([5], [])])
    with pytest.raises(ValueError, match="at most `max_length` 3"):
        score(loaded, [Tokens([5], [6, 7, 8, 9])], max_length=3)


def test_scores_equal_those_of_lm_eval(loaded: tuple[Any, Any]) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is a test-only dependency and not installed")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = loaded
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2, device="cpu")
    instances = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=place)
        for place, pair in enumerate(PAIRS)
    ]
    want = [value for value, _ in theirs.loglikelihood(instances, disable_tqdm=True)]
    with torch.inference_mode():
        got = score(loaded, encode_pairs(PAIRS, tokenizer))
    assert got == pytest.approx(want, abs=1e-4)


def test_the_rules_differ_where_lengths_do() -> None:
    item = Item.of("q", ["ab", "a long answer of more characters"], gold=1)
    sums = [[-3.0, -5.0]]
    assert chosen_by_sum(sums) == [0]
    assert chosen_normalised(sums, [item]) == [1]


@pytest.mark.parametrize("train_on_inputs", [False, True])
def test_lessons_are_trained_on_answers_or_on_all(
    loaded: tuple[Any, Any], train_on_inputs: bool
) -> None:
    _, tokenizer = loaded
    options = {"max_length": 64, "train_on_inputs": train_on_inputs, "end": True}
    (example,) = lessons([("ask:", " yes")], tokenizer, **options).examples
    assert tokenizer.decode(example["input_ids"]) == "ask: yes<end>"
    kept = [t for t in example["labels"] if t != IGNORED]
    assert tokenizer.decode(kept) == ("sk: yes<end>" if train_on_inputs else " yes<end>")


@pytest.mark.parametrize("train_on_inputs", [False, True])
def test_the_loss_reads_the_logits_of_the_last_places_only(
    loaded: tuple[Any, Any], train_on_inputs: bool
) -> None:
    model, tokenizer = loaded
    options = {"max_length": 64, "train_on_inputs": train_on_inputs, "end": True}
    pairs = [("a long context:", " yes"), ("the longest context:", " n")]
    batch = Pad(tokenizer, "right")(lessons(pairs, tokenizer, **options).examples)
    labels = batch.pop("labels")
    places = places_of_labels(labels)
    first = min(row.ne(IGNORED).nonzero()[0].item() for row in labels)
    assert places == labels.shape[1] - first + 1
    few = model(**batch, logits_to_keep=places)
    assert few.logits.shape[1] == places
    torch.testing.assert_close(
        next_token_loss(few, labels, 1), next_token_loss(model(**batch), labels, 1)
    )
    assert places_of_labels(torch.full((2, 5), IGNORED)) == 1
    for count in (1, 7):  # also with more places than are read
        for outputs in (few, model(**batch)):
            torch.testing.assert_close(
                masked_next_token_loss(outputs, labels, count), next_token_loss(few, labels, count)
            )


def test_a_long_prompt_is_cut_and_its_answer_kept(loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    options = {"max_length": 8, "train_on_inputs": False, "end": False}
    (example,) = lessons([("0123456789", " yes")], tokenizer, **options).examples
    assert tokenizer.decode(example["input_ids"]) == "6789 yes"


def test_the_loss_is_that_of_the_model_and_ignores_padding(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    options = {"max_length": 64, "train_on_inputs": False, "end": True}
    data = lessons([("ask:", " yes"), ("a much longer one:", " n")], tokenizer, **options)
    batch = Pad(tokenizer, "right")(data.examples)
    output = model(**batch)
    count = int((batch["labels"] != IGNORED).sum())
    loss = next_token_loss(output, batch["labels"], count)
    torch.testing.assert_close(loss, output.loss)
    halves = [Pad(tokenizer, "right")([example]) for example in data.examples]
    parts = [next_token_loss(model(**half), half["labels"], count) for half in halves]
    torch.testing.assert_close(sum(parts), loss, rtol=1e-4, atol=1e-5)
