"""What a trial has trained, on disk: `keep: adapter`.

    adapter/
        adapter_config.json, adapter_model.safetensors, README.md   as PEFT writes them
        trained.safetensors    instead of these, for a method without a PEFT adapter: all trained
                               parameters and the model's buffers, by their names
        trained.json           the trial, and what else the model is made of

The folder gets its name when all of it is on the disk, and before result.json is written.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import set_seed

from studies import backbones
from studies.backbones import Head
from studies.engine.definition.plugins import load_plugins
from studies.engine.errors import StudyError
from studies.engine.records import ABOUT, ADAPTER, Record, Trial, write_record
from studies.engine.trials import seeds
from studies.engine.trials.attaching import attached
from studies.files import replacing_folder

WEIGHTS, PLAIN = "adapter_model.safetensors", "trained.safetensors"
"""With PEFT's adapter, and without."""

RESIZED = False
"""Whether embeddings may have been: else whole ones are the backbone's, and not looked for."""


class Trained(Record):
    """What a model is made of, beside its trained tensors."""

    trial: Trial
    adapter: dict[str, Any]
    """Of the configuration, with the size that `match` chose."""
    head: dict[str, Any]
    """The task's, see `studies.backbones.Head`."""
    backbone: dict[str, Any]
    """Name and hashes, see `studies.backbones.identity`."""


def save(model: nn.Module, about: Trained, run_dir: Path) -> None:
    """Write what `model` has learned to `run_dir`/adapter.

    Raises:
        OSError, safetensors.SafetensorError: it cannot be written, e.g. for want of space.
    """
    target = run_dir / ADAPTER
    shutil.rmtree(target, ignore_errors=True)  # of an earlier attempt
    with replacing_folder(target) as scratch:
        if isinstance(model, PeftModel):
            model.save_pretrained(str(scratch), save_embedding_layers=RESIZED)
        else:
            save_file({n: t.contiguous() for n, t in tensors(model).items()}, scratch / PLAIN)
        write_record(scratch / ABOUT, about)


def load(folder: Path, plugins: Sequence[str | Path] = ()) -> tuple[nn.Module, Any]:
    """The trained model in `folder`, on the CPU and ready to be evaluated, and its tokenizer or
    image processor.

    Args:
        folder: The folder of a trial that kept its adapter, or a copy of its `adapter`.
        plugins: The trial's plug-ins, where they are not where they were.

    Raises:
        StudyError: it holds no trained adapter, or a plug-in or the backbone is another one now.
    """
    folder = folder / ADAPTER if (folder / ADAPTER).is_dir() else folder
    about = _read(folder)
    load_plugins(plugins or about.trial.plugins, about.trial.plugin_hashes)
    spec = about.trial.config["backbone"]
    if (now := backbones.identity(spec)["sha256"]) != about.backbone["sha256"]:
        files = {*(now or {}), *(about.backbone["sha256"] or {})}
        other = sorted(n for n in files if (now or {}).get(n) != about.backbone["sha256"].get(n))
        raise StudyError(
            f"{folder}: its adapter was trained on another {spec['name']}: {', '.join(other[:3])} "
            "changed since; put the files back"
        )
    set_seed(seeds.derive(about.trial.seed, "init"))  # of what a method draws and does not save
    model, processor = backbones.load(spec, Head(**about.head))
    adapted = attached(model, about.adapter)
    _fill(adapted, folder)
    return adapted.eval(), processor


def _read(folder: Path) -> Trained:
    try:
        return Trained.model_validate_json((folder / ABOUT).read_bytes())
    except FileNotFoundError:
        raise StudyError(
            f"{folder}: no trained adapter: expected the folder of a trial of a study with "
            f"`keep: adapter`, or a copy of its `{ADAPTER}`, with a file {ABOUT}"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise StudyError(
            f"{folder / ABOUT}: {where}: {first['msg']}: it is damaged, or of another version; "
            "load it with the version that wrote it"
        ) from None


@torch.no_grad()
def _fill(model: Any, folder: Path) -> None:
    """Put what was saved in `folder` into `model`."""
    plain = not isinstance(model, PeftModel)
    saved = load_file(folder / (PLAIN if plain else WEIGHTS))
    if plain:
        here = tensors(model)
        odd = [n for n in {*here, *saved} if n not in here or n not in saved]
        for name in () if odd else here:
            here[name].copy_(saved[name])
    else:
        config = model.peft_config["default"]
        then = type(config).from_pretrained(str(folder))
        if hasattr(then, "rank_pattern"):  # AdaLoRA's ranks are what training left of them
            config.rank_pattern = then.rank_pattern
        loaded: Any = set_peft_model_state_dict(model, saved)
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        odd = [*loaded.unexpected_keys, *trained.intersection(loaded.missing_keys)]
    if odd:
        raise StudyError(
            f"{folder}: what it holds is not what this model trains ({', '.join(sorted(odd)[:3])}):"
            " it is damaged, or of another version of this package or of PEFT"
        )


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """What `save` keeps of `model`, by name: PEFT's adapter, or trained parameters and buffers."""
    if isinstance(model, PeftModel):
        state: dict[str, Tensor] = get_peft_model_state_dict(model, save_embedding_layers=RESIZED)
        return state
    parameters = dict(model.named_parameters(remove_duplicate=False))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    buffers = {name: t for name, t in model.state_dict().items() if name not in parameters}
    return {**buffers, **trained}
