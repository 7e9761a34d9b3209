"""Build a model and its tokenizer. Safetensors only, and no code from a checkpoint is ever run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.image_processing_utils import BaseImageProcessor

from studies.backbones.conversion import require
from studies.backbones.fit import refuse_misfit, refuse_other_kind
from studies.backbones.head import Head, HeadKind
from studies.backbones.matrix_model import MatrixModel, MatrixShape
from studies.backbones.registry import MATRICES, BackboneSpec, check, get_backbone

Processor = PreTrainedTokenizerBase | BaseImageProcessor | None
_MODELS: Mapping[HeadKind, Any] = {
    "text_classes": AutoModelForSequenceClassification,
    "text_score": AutoModelForSequenceClassification,
    "language_model": AutoModelForCausalLM,
    "image_classes": AutoModelForImageClassification,
}


def load_model(spec: str | Mapping[str, Any], head: Head) -> tuple[nn.Module, Processor]:
    """The backbone with `head`, and the tokenizer or image processor that belongs to it, if any.

    A new head's start is drawn from torch's global generator: seed it first.

    Raises:
        ValueError: as `studies.backbones.check`, or `head` does not fit the backbone.
        studies.archives.ArchiveError: a packaged backbone cannot be had.
        ImportError: an optional package (gguf, onnx, bitsandbytes) is needed and missing.
        OSError: a hub id or folder has no usable files (no safetensors, no network, no such id).
    """
    checked = check(spec)
    if head.kind == "matrix" or checked.kind == "matrix":
        refuse_other_kind(checked, head.kind)
        assert head.shape is not None
        matrix = MatrixModel(MatrixShape(*head.shape, MATRICES[checked.name][1]))
        return matrix.to(getattr(torch, checked.dtype)), None
    source = str(Path(checked.name).expanduser()) if checked.kind == "folder" else checked.name
    if checked.kind == "packaged":
        source = str(get_backbone(checked.name).folder())
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    refuse_misfit(checked.name, head.kind, config)
    images = head.kind == "image_classes"
    takes = AutoImageProcessor if images else AutoTokenizer
    processor = takes.from_pretrained(source, trust_remote_code=False)
    if images and config.model_type == "clip":
        from studies.backbones.clip import load_clip_classifier

        return load_clip_classifier(source, head, _options(checked)), processor
    kind = _MODELS[head.kind]
    model = kind.from_pretrained(source, **_options(checked), **_classes(head))
    if not images:
        if processor.pad_token_id is None:  # decoders such as GPT-2 pad with their end token
            processor.pad_token = processor.eos_token
        model.config.pad_token_id = processor.pad_token_id
    return model, processor


def skeleton(file: Path, head: HeadKind) -> PreTrainedModel | None:
    """The model whose config.json `file` is, with a head of that kind, on torch's meta device.

    None for a CLIP classifier, whose head is made of the text encoder's weights.
    """
    config = AutoConfig.from_pretrained(file, trust_remote_code=False)
    if head == "image_classes" and config.model_type == "clip":
        return None
    with torch.device("meta"):
        model: PreTrainedModel = _MODELS[head].from_config(config, trust_remote_code=False)
    return model


def _classes(head: Head) -> dict[str, Any]:
    """Arguments for a model with an untrained head; a language model comes with its own."""
    if head.kind == "language_model":
        return {}
    if head.kind == "text_score":
        return {"num_labels": 1, "problem_type": "regression"}
    return {
        "num_labels": len(head.labels),
        "id2label": dict(enumerate(head.labels)),
        "label2id": {label: index for index, label in enumerate(head.labels)},
    }


def _options(checked: BackboneSpec) -> dict[str, Any]:
    """Arguments of `from_pretrained` that every kind of model shares."""
    dtype = getattr(torch, checked.dtype)
    options: dict[str, Any] = {
        "dtype": dtype,
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    if checked.attention:
        options["attn_implementation"] = checked.attention
    if checked.quantization == "4bit":
        require(("bitsandbytes",), "backbone: `quantization: 4bit`", "quantized")
        if not torch.cuda.is_available():
            raise ValueError(
                "backbone: `quantization: 4bit` needs a GPU, and torch sees none; remove the key"
            )
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return options
