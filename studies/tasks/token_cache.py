"""Texts to tokens, once for each text set and tokenizer: every trial of a study wants the same.

`<cache>/tokens/<key>.tokens` holds a line with the sha256 of what follows, an npz file of the
tokens as flat arrays with offsets. The key is a hash of the tokenizer's own definition, the options
and the texts; small sets are quicker made than read.
"""

import hashlib
import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from studies.archives import cache_folder
from studies.archives.files import say_damaged
from studies.files import replacing

Fields = dict[str, list[list[int]]]
"""input_ids and the like, one list for each text."""

MIN_TEXTS = 4096
"""Smaller sets are not kept: tokenising them takes well under a second."""


def tokenise(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    **options: Any,
) -> Fields:
    """What `tokenizer(texts, pairs, **options)` gives, from the cache where it was made before.

    Only what fast tokenizers give is kept: they can be told apart by their definition. `options`
    are such as `truncation` and `max_length`; not `return_tensors`.
    """
    given = [list(texts)] if pairs is None else [list(texts), list(pairs)]
    if not texts:
        return {"input_ids": []}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or len(texts) < MIN_TEXTS:
        return dict(tokenizer(*given, **options))
    backend.no_truncation()  # what an earlier call left is no part of the definition
    backend.no_padding()
    digest = hashlib.sha256(backend.to_str().encode())
    digest.update(json.dumps([given, options], sort_keys=True).encode())
    path = cache_folder() / "tokens" / f"{digest.hexdigest()[:32]}.tokens"
    fields = _read(path)
    if fields is None:
        fields = {key: list(value) for key, value in tokenizer(*given, **options).items()}
        _write(path, fields)
    return fields


def _write(path: Path, fields: Fields) -> None:
    ids = fields["input_ids"]
    arrays: dict[str, Any] = {"offsets": np.cumsum([0, *map(len, ids)])}
    for key, rows in fields.items():
        arrays[f"field_{key}"] = np.fromiter((t for row in rows for t in row), dtype=np.int32)
    body = io.BytesIO()
    np.savez(body, **arrays)
    with replacing(path) as scratch, scratch.open("wb") as file:
        file.write(f"{hashlib.sha256(body.getbuffer()).hexdigest()}\n".encode())
        file.write(body.getbuffer())


def _read(path: Path) -> Fields | None:
    """The fields, or None where the file is absent or damaged."""
    try:
        written, _, body = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    if written != hashlib.sha256(body).hexdigest().encode():
        say_damaged(path, "its texts are tokenised again")
        return None
    stream = io.BytesIO(body)
    with np.load(stream, allow_pickle=False) as file:
        offsets = file["offsets"].tolist()
        flat = {key.removeprefix("field_"): file[key] for key in file.files if key != "offsets"}
    spans = list(itertools.pairwise(offsets))
    return {key: [part[a:b].tolist() for a, b in spans] for key, part in flat.items()}
