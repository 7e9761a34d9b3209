"""Batches: every row once an epoch, like lengths together, an order that only the seed decides."""

from pathlib import Path

import pytest
import torch

from studies import backbones
from studies.engine.trials.seeds import derive
from studies.engine.trials.training.batches import LengthGrouped, few_lengths, train_loader
from studies.tasks import Row
from studies.tasks.encoding import Pad, encode, eval_batches, padded

LENGTHS = [3 + (7 * i) % 40 for i in range(203)]


def test_every_row_comes_once_an_epoch() -> None:
    sampler = LengthGrouped(LENGTHS, 16, seed=0)
    epochs = [list(sampler), list(sampler)]
    for batches in epochs:
        assert sorted(index for batch in batches for index in batch) == list(range(203))
        assert len(batches) == len(sampler) == 13
    assert epochs[0] != epochs[1]


def test_the_order_depends_on_the_seed_alone() -> None:
    def order(seed: int) -> list[list[int]]:
        torch.manual_seed(torch.seed())  # the global generator must not matter
        return list(LengthGrouped(LENGTHS, 16, seed))

    assert order(1) == order(1) != order(2)


def test_batches_hold_rows_of_like_length() -> None:
    def padded(batches: list[list[int]]) -> int:
        return sum(len(batch) * max(LENGTHS[i] for i in batch) for batch in batches)

    plain = [list(range(203))[i : i + 16] for i in range(0, 203, 16)]
    assert padded(list(LengthGrouped(LENGTHS, 16, seed=0))) < 0.8 * padded(plain)


def test_rows_are_cut_padded_and_labelled(tiny_bert: Path) -> None:
    _, tokenizer = backbones.load(str(tiny_bert), backbones.Head("text_classes", ("bad", "good")))
    rows = [Row("the film was fine and warm", "good"), Row("bleak", "bad")]
    data = encode(rows, ("bad", "good"), tokenizer, max_length=5)
    assert data.lengths == [5, 3]
    batch = next(iter(train_loader(data, Pad(tokenizer), 2, seed=0)))
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 5)
    by_label = dict(zip(batch["labels"].tolist(), batch["attention_mask"].sum(1), strict=True))
    assert by_label == {1: 5, 0: 3}
    sizes = [len(part["labels"]) for part in eval_batches(data, Pad(tokenizer), 1)]
    assert sizes == [1, 1]


def test_pairs_are_given_to_the_tokenizer_as_pairs(tiny_bert: Path) -> None:
    _, tokenizer = backbones.load(str(tiny_bert), backbones.Head("text_classes", ("bad", "good")))
    data = encode([Row("fine", "good", "warm")], ("bad", "good"), tokenizer, max_length=8)
    assert data.lengths == [5]  # [CLS] fine [SEP] warm [SEP]


@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_derived_seeds_differ_by_purpose(seed: int) -> None:
    found = {derive(seed, purpose) for purpose in ("init", "order", "dropout")}
    assert len(found) == 3 and all(0 <= value < 2**31 for value in found)


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_are_padded_as_their_tokenizer_pads_them(side: str, tiny_bert: Path) -> None:
    _, tokenizer = backbones.load(str(tiny_bert), backbones.Head("text_classes", ("bad", "good")))
    tokenizer.padding_side, tokenizer._pad_token_type_id = side, 3
    fields = ("input_ids", "attention_mask", "token_type_ids", "special_tokens_mask")
    given = [{name: [1] * count for name in fields} for count in (8, 3, 5)]
    examples = [{**row, "labels": label} for label, row in enumerate(given)]
    for lengths, length in (((), 8), ((4, 8, 12), 8), ((4, 11, 12), 11)):
        wanted = tokenizer.pad(given, padding="max_length", max_length=length, return_tensors="pt")
        found = Pad(tokenizer)(examples, lengths)
        assert found.pop("labels").tolist() == [0, 1, 2]
        assert found.keys() == wanted.keys()
        for name, tensor in found.items():
            assert torch.equal(tensor, wanted[name]) and tensor.dtype == wanted[name].dtype, name


def test_lengths_are_few_and_hold_every_row() -> None:
    lengths = few_lengths(LENGTHS)
    assert lengths == (16, 24, 32, 40, 42)
    assert few_lengths([7]) == (7,) and few_lengths([1] * 50) == (1,)
    assert few_lengths([3, 5]) == (5,) and few_lengths([9, 20]) == (16, 20)
    batches = [LENGTHS[i : i + 16] for i in range(0, 203, 16)]
    for batch in batches:
        [row] = {padded([[1] * n for n in batch], 0, lengths).shape[1]}
        assert row >= max(batch) and row in lengths
