"""Text that a language model writes after prompts, in batches."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from studies.tasks.encoding import padded, real_tokens


def generate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    batch_size: int,
    max_length: int,
    max_new_tokens: int,
    device: torch.device,
    beams: int = 1,
    temperature: float = 0.0,
) -> list[str]:
    """One continuation a prompt, without the prompt and without special tokens.

    Prompts are padded on the left with an attention mask, so that the batch size does not change
    the answers; `temperature` 0 takes the most likely token. A prompt that leaves no room in
    `max_length` loses its beginning.
    """
    write: Any = model.generate
    encoded = tokenizer(list(prompts), return_attention_mask=False)["input_ids"]
    room = max(1, max_length - max_new_tokens)
    order = sorted(range(len(prompts)), key=lambda place: -len(encoded[place]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        rows = [encoded[place][-room:] for place in places]
        ids = padded(rows, tokenizer.pad_token_id, side="left").to(device)
        written = write(
            input_ids=ids,
            attention_mask=real_tokens(rows, side="left").to(device),
            max_new_tokens=max_new_tokens,
            num_beams=beams,
            pad_token_id=tokenizer.pad_token_id,
            do_sample=temperature > 0,
            temperature=temperature if temperature > 0 else None,
            top_p=None,
            top_k=None,
        )
        texts = tokenizer.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True)
        for place, text in zip(places, texts, strict=True):
            answers[place] = text.strip()
    return answers
