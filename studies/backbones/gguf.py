"""GGUF weights, dequantised into float16 safetensors with their tokenizer."""

import copy
from collections.abc import Sequence
from pathlib import Path


def convert_gguf(sources: Sequence[Path], folder: Path) -> None:
    """Read the one .gguf file that `sources` hold, alone or cut into parts, and fill `folder`.

    A model read from GGUF refuses to be saved, so its tensors go into a fresh one of the same
    configuration. Rounding the dequantised values to float16 moves SmolLM2's logits by up to 0.03.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    source, name = _whole(sources, folder)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    plain.tie_weights()
    for part in folder.glob("*.gguf"):  # put together by `_whole`
        part.unlink()
    plain.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _whole(sources: Sequence[Path], folder: Path) -> tuple[Path, str]:
    """Folder and name of the whole file; parts are joined in the order of `sources`."""
    files = [file for source in sources for file in sorted(source.iterdir())]
    if len(files) == 1:
        return files[0].parent, files[0].name
    whole = folder / "whole.gguf"
    with whole.open("wb") as out:
        for file in files:
            out.write(file.read_bytes())
    return folder, whole.name
