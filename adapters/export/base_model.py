"""The base model as a file, with the modules that were trained whole in their places."""

from pathlib import Path

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import Tensor, nn


def save_base(model: nn.Module, folder: str | Path, adapter: str = "default") -> Path:
    """Write the base model with the modules that `adapter` trained whole in their places.

    It is the base for an export that leaves these modules out; every other number is the base
    model's own.

    Args:
        model: A PEFT model around one of transformers.
        folder: It is made where it is missing, and returned.
        adapter: The adapter's name.

    Raises:
        ValueError: Adapters are merged, single tokens were trained, or the base is none of
            transformers.
    """
    get_base_model = getattr(model, "get_base_model", None)
    base = model if get_base_model is None else get_base_model()
    save_pretrained = getattr(base, "save_pretrained", None)
    if save_pretrained is None:
        raise ValueError(
            f"{type(base).__name__} has no save_pretrained: write its weights yourself, with those "
            "of `modules_to_save` in their places"
        )
    folder = Path(folder)
    save_pretrained(folder, state_dict=_base_state(base, adapter))
    return folder


def _base_state(base: nn.Module, adapter: str) -> dict[str, Tensor]:
    """The tensors of `base` under the names that they have without adapters."""
    state = dict(base.state_dict())
    for name, module in list(base.named_modules())[::-1]:  # what is inside comes first
        if isinstance(module, BaseTunerLayer):
            if module.merged:
                raise ValueError("an adapter is merged: call `unmerge_adapter` first")
            prefix = f"{name}.base_layer."
        elif isinstance(module, ModulesToSaveWrapper):
            trained = adapter in module.modules_to_save
            prefix = f"{name}.modules_to_save.{adapter}." if trained else f"{name}.original_module."
        elif isinstance(module, AuxiliaryTrainingWrapper):
            raise ValueError(f"{name!r} has single tokens that are trained: merge instead")
        else:
            continue
        inside = {key: state.pop(key) for key in list(state) if key.startswith(f"{name}.")}
        for key, tensor in inside.items():
            if key.startswith(prefix):
                state[f"{name}.{key.removeprefix(prefix)}"] = tensor
    return state
