"""Pretrained models that studies adapt, by name.

A name is one of `list_backbones()` (weights that come out of a package archive), a Hugging Face hub
id such as `Qwen/Qwen2-0.5B`, a local folder, or one of `list_matrix_backbones()`: one
linear layer without pretrained weights, for tasks that are a matrix.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.backbones.conversion import MissingPackage
from studies.backbones.fit import check_fit, check_length
from studies.backbones.gemma3 import GEMMA3
from studies.backbones.head import Head, HeadKind
from studies.backbones.minilm import MINILM
from studies.backbones.registry import (
    Backbone,
    BackboneSpec,
    check,
    config_file,
    content,
    fetch,
    get_backbone,
    identity,
    list_backbones,
    list_matrix_backbones,
    register_backbone,
)
from studies.backbones.smollm2 import SMOLLM2
from studies.backbones.vit_s import VIT_S

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from studies.backbones.loading import Processor

register_backbone(GEMMA3)
register_backbone(MINILM)
register_backbone(SMOLLM2)
register_backbone(VIT_S)


def load(spec: str | Mapping[str, Any], head: Head) -> "tuple[nn.Module, Processor]":
    """The model with `head`, and its tokenizer or processor.

    See `studies.backbones.loading.load_model`; transformers is imported only here, so that
    planning a study stays quick.
    """
    from studies.backbones.loading import load_model

    return load_model(spec, head)


def skeleton(file: Path, head: HeadKind) -> "PreTrainedModel | None":
    """The model with this config.json and a `head`, no weights; None for a CLIP classifier."""
    from studies.backbones.loading import skeleton

    return skeleton(file, head)


__all__ = [
    "Backbone",
    "BackboneSpec",
    "Head",
    "MissingPackage",
    "check",
    "check_fit",
    "check_length",
    "config_file",
    "content",
    "fetch",
    "get_backbone",
    "identity",
    "list_backbones",
    "list_matrix_backbones",
    "load",
    "register_backbone",
    "skeleton",
]
