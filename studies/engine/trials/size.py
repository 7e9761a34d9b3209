"""How much a trial's trained adapter needs on the disk, before anything is trained."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

from studies import backbones, tasks
from studies.backbones import Head
from studies.engine.records import Trial
from studies.engine.trials import keeping
from studies.engine.trials.attaching import attached


def expected_bytes(trial: Trial) -> int | None:
    """About what `trial` keeps, found without weights or rows; None where the backbone's
    configuration is not on this machine."""
    config = trial.config
    adapter = config.get("match", config["adapter"])  # which the size is chosen to come near
    sections = (config["backbone"], config["task"], adapter)
    return _expected(*(json.dumps(section, sort_keys=True) for section in sections))


@lru_cache(maxsize=256)
def _expected(backbone: str, task: str, adapter: str) -> int | None:
    kind = tasks.HEADS[tasks.check(json.loads(task)).kind]
    # a head's share is small, and its rows are not read
    head = Head(kind, ("one", "other") if kind.endswith("classes") else ())
    try:
        model = _skeleton(json.loads(backbone), head)
        if model is None:
            return None
        tensors = keeping.tensors(attached(model, json.loads(adapter)))
    except Exception:  # what cannot be built is said by its trial
        return None
    return sum(tensor.nbytes for tensor in tensors.values())


def _skeleton(spec: dict[str, Any], head: Head) -> Any:
    """The backbone with `head` on the meta device; None where its configuration is not on this
    machine, and for CLIP, whose head is made of embeddings."""
    checked = backbones.check(spec)
    if checked.kind == "hub":
        from huggingface_hub import try_to_load_from_cache

        file = try_to_load_from_cache(checked.name, "config.json")
        config = AutoConfig.from_pretrained(file) if isinstance(file, str) else None
    elif checked.kind == "packaged":
        config = AutoConfig.for_model(**backbones.get_backbone(checked.name).config)
    else:
        config = AutoConfig.from_pretrained(Path(checked.name).expanduser())
    if config is None or config.model_type == "clip":
        return None
    kinds: dict[str, Any] = {
        "language_model": AutoModelForCausalLM,
        "image_classes": AutoModelForImageClassification,
    }
    with torch.device("meta"):
        return kinds.get(head.kind, AutoModelForSequenceClassification).from_config(config)
