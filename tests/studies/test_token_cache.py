"""Tokens out of the cache are the tokenizer's own, for every tokenizer, option and text."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from studies.tasks import token_cache
from studies.tasks.token_cache import tokenise

TEXTS = ["a warm film", "", "it was dull and bleak with the scene", "the song"]
PAIRS = ["the plot", "of it", "", "a a a a a a a"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BASIS_ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(token_cache, "MIN_TEXTS", 1)
    return tmp_path


@pytest.fixture(params=["tiny_bert", "tiny_llama"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return AutoTokenizer.from_pretrained(request.getfixturevalue(request.param))


def files(cache: Path) -> list[Path]:
    return sorted((cache / "tokens").glob("*"))


@pytest.mark.parametrize("pairs", [None, PAIRS])
@pytest.mark.parametrize("options", [{}, {"truncation": True, "max_length": 5}])
def test_made_and_read_tokens_are_the_tokenizers(
    tokenizer: Any, cache: Path, pairs: list[str] | None, options: dict[str, Any]
) -> None:
    want = dict(tokenizer(*[TEXTS, *([] if pairs is None else [pairs])], **options))
    for _ in range(2):
        assert tokenise(tokenizer, TEXTS, pairs, **options) == want
    assert len(files(cache)) == 1


def test_another_option_text_or_tokenizer_is_another_entry(tokenizer: Any, cache: Path) -> None:
    tokenise(tokenizer, TEXTS)
    tokenise(tokenizer, TEXTS, truncation=True, max_length=4)
    tokenise(tokenizer, TEXTS)  # what the call before left in the tokenizer does not count
    tokenise(tokenizer, TEXTS[1:])
    tokenizer.add_tokens(["film"])
    assert tokenise(tokenizer, TEXTS) == dict(tokenizer(TEXTS))
    assert len(files(cache)) == 4


def test_a_changed_byte_never_passes(
    tokenizer: Any, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    want = tokenise(tokenizer, TEXTS)
    (file,) = files(cache)
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        assert tokenise(tokenizer, TEXTS) == want
        assert file.read_bytes() == whole
        assert capsys.readouterr().err == f"{file} is damaged; its texts are tokenised again\n"


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no zip", None])
def test_a_damaged_entry_is_made_anew(tokenizer: Any, cache: Path, damage: bytes | None) -> None:
    want = tokenise(tokenizer, TEXTS)
    (file,) = files(cache)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert tokenise(tokenizer, TEXTS) == want
    assert files(cache) == [file] and file.read_bytes() == whole


def test_small_sets_and_no_texts_leave_nothing(
    tokenizer: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "MIN_TEXTS", 5)
    assert tokenise(tokenizer, TEXTS) == dict(tokenizer(TEXTS))
    assert tokenise(tokenizer, []) == {"input_ids": []}
    assert not files(cache)
