"""Shared numbers in files: each once, and files of old versions, which have every copy."""

import json

import pytest
import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, inject_adapter_in_model
from peft import set_peft_model_state_dict as load_state
from safetensors.torch import load_file, save_file

from adapters import BasisConfig, BasisLinear
from adapters.basis.sharing import COARSE_SCOPES, LEVELS, Borrower

pytestmark = pytest.mark.slow

FILE = "adapter_model.safetensors"
OPTIONS = {
    **{"r": 2, "num_basis": 5, "target_modules": "all", "grid": "learned"},
    **{"input_scale": "learned", "linear": True, "init_weights": False},
}


def attach(family, **options):
    torch.manual_seed(5)
    model = get_peft_model(family.model(), BasisConfig(**OPTIONS, **options)).eval()
    with torch.no_grad():  # away from where a fresh adapter starts
        for p in (p for n, p in model.named_parameters() if "basis_phi" in n or "scale" in n):
            p.add_(0.1 * torch.randn_like(p))
    return model


def layers(model):
    return [m for m in model.modules() if isinstance(m, BasisLinear)]


def updates(model):
    with torch.no_grad():
        return [layer.update("default") for layer in layers(model)]


def with_copies(model, folder):
    """The folder as versions wrote it that saved every module's copy."""
    model.save_pretrained(folder)
    state = load_file(folder / FILE)
    for name, module in model.named_modules():
        if isinstance(module, Borrower):
            for number, lender in module.lenders.items():
                path = f"{name.removesuffix('.default')}.{number}"
                state[path] = getattr(lender, number).detach().clone()
    save_file(state, folder / FILE, metadata={"format": "pt"})
    return state


@pytest.mark.parametrize("scope", COARSE_SCOPES)
@pytest.mark.parametrize("level", LEVELS)
def test_every_number_is_saved_once(family, tmp_path, level, scope):
    bert = family("bert")
    model = attach(bert, sharing=level, sharing_scope=scope)
    state = get_peft_model_state_dict(model)
    save_file(state, tmp_path / "state.safetensors")  # refuses tensors that share memory
    trained = {id(p): p for n, p in model.named_parameters() if "basis_" in n}
    assert len(state) == len(trained) == sum("basis_" in n for n, _ in model.named_parameters())
    assert sum(t.numel() for t in state.values()) == sum(p.numel() for p in trained.values())
    again = attach(bert, sharing=level, sharing_scope=scope)
    assert not load_state(again, load_file(tmp_path / "state.safetensors")).unexpected_keys
    assert torch.equal(bert.output(again), bert.output(model))


@pytest.mark.parametrize("level", ["bandwidth", "all"])
def test_files_with_every_copy_load(family, tmp_path, level):
    bert = family("bert")
    model = attach(bert, sharing=level)
    saved = with_copies(model, tmp_path)
    assert len(saved) > len(get_peft_model_state_dict(model))
    want = bert.output(model)
    for lean in (False, True):
        again = PeftModel.from_pretrained(bert.model(), tmp_path, low_cpu_mem_usage=lean)
        assert torch.equal(bert.output(again), want)
    bare = inject_adapter_in_model(model.peft_config["default"], bert.model())
    load_state(bare, saved)
    assert torch.equal(bert.output(bare), want)


def test_copies_that_differ_are_refused(family, tmp_path):
    bert = family("bert")
    attach(bert, sharing="none").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"sharing": "all"}))
    with pytest.raises(ValueError, match=r"differ from .*it was saved with less `sharing`"):
        PeftModel.from_pretrained(bert.model(), tmp_path)


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("level", ["none", "bandwidth", "all"])
def test_transformers_own_loading_misses_nothing(family, tmp_path, level, copies):
    """At once, not only after the first forward pass."""
    bert = family("bert")
    model = attach(bert, sharing=level)
    with_copies(model, tmp_path) if copies else model.save_pretrained(tmp_path)
    native = bert.model()
    assert not native.load_adapter(str(tmp_path)).missing_keys
    for got, want in zip(updates(native), updates(model), strict=True):
        assert torch.equal(got, want)
    assert torch.equal(bert.output(native), bert.output(model))


def test_a_borrowed_number_is_the_lender_s(family):
    model = attach(family("bert"), sharing="all")
    first, second, *_ = (layer.basis_phi["default"] for layer in layers(model))
    assert second.amplitude is first.amplitude
    assert set(dict(second.named_parameters("phi"))) == {
        f"phi.{name}" for name in ("amplitude", "raw_bandwidth", "raw_grid", "line")
    }
    first.amplitude = torch.nn.Parameter(torch.ones(5))
    assert second.amplitude is first.amplitude
    with pytest.raises(AttributeError, match="no attribute 'amplitudes'"):
        _ = second.amplitudes
