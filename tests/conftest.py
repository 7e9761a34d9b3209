"""A tiny random BERT with a tokenizer, and a task in a CSV file that it can learn in seconds."""

import gc
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import settings

from basis_zoo import registry
from studies.engine.trials.devices import cores
from studies.memory import free_memory

# the same examples in every run; another draw: --hypothesis-profile=default
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# new examples, and more of them, as a nightly run should draw: --hypothesis-profile=nightly
settings.register_profile("nightly", max_examples=500, print_blob=True)

ON_REQUEST = ("network", "ray", "thorough")
"""Markers of tests that run only where `-m` names them."""

CACHE = "BASIS_ZOO_CACHE"
THIS_MACHINES = os.environ.get(CACHE)
"""The cache that tests of the network fetch into; None where it is the platform's."""

torch.set_num_threads(1)  # test files run in parallel, one process a core
os.environ.setdefault("OMP_NUM_THREADS", "1")

if not torch.cuda.is_available():  # before anything imports triton: kernels run in its interpreter
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores, as tests of processes wait for them; each takes 2 GiB."""
    return max(1, min(cores() + 1, free_memory() >> 31))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what nobody asked for; in `addopts` it would be lost with the first `-m`.

    What takes long is begun first.
    """
    unasked = [name for name in ON_REQUEST if name not in config.option.markexpr]
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        (left_out if any(map(item.get_closest_marker, unasked)) else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    # files that take long come first: begun last, one of them would leave the other cores idle
    long = {item.path for item in kept if item.get_closest_marker("slow")}
    items[:] = sorted(kept, key=lambda item: item.path not in long)


def pytest_collection_finish() -> None:
    """What is imported by now stays: collecting garbage looks through it no more."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Libraries complain of what is left at the end."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Path]]:
    """Names of folders, one for the cache of each test; fixtures of many tests share the first."""
    above = tmp_path_factory.mktemp("caches")
    folders = (above / str(number) for number in itertools.count())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE, str(next(folders)))
        yield folders


@pytest.fixture(autouse=True)
def own_registrations() -> Iterator[None]:
    """What a test registers is gone after it, as in a new process."""
    before = registry.foreign()
    yield
    for kind, name in registry.foreign() - before:
        for each in registry._ALL:
            if each._kind == kind:
                each._members.pop(name, None)


@pytest.fixture(autouse=True)
def own_cache(
    request: pytest.FixtureRequest, caches: Iterator[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was fetched or answered before, and nothing that a test fetches is there after it.

    Tests of the network share the cache of this machine, which saves its downloads.
    """
    if request.node.get_closest_marker("network") is None:
        monkeypatch.setenv(CACHE, str(next(caches)))
    elif THIS_MACHINES is None:
        monkeypatch.delenv(CACHE)
    else:
        monkeypatch.setenv(CACHE, THIS_MACHINES)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random BERT of 2 layers, width 32, and a word tokenizer."""
    return tiny.bert(tmp_path_factory.mktemp("tiny-bert"))


@pytest.fixture(scope="session")
def tiny_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 different sentences in columns `text` and `label`; one word of each decides its label."""
    return tiny.table(tmp_path_factory.mktemp("tiny-task"))


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
