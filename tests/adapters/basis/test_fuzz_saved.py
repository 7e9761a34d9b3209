"""A saved adapter that was cut short or edited is refused when it is loaded, and says why."""

import copy
import json
import random
import shutil
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from adapters import BasisConfig

REFUSALS = (ValueError, RuntimeError, SafetensorError)
"""What a caller expects to catch; a TypeError or KeyError would come from the depths."""
fuzz = settings(deadline=None, suppress_health_check=list(HealthCheck))


class Net(nn.Module):
    """Two linear layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x):
        return self.second(self.first(x).relu())


def base():
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a whole adapter."""
    folder = tmp_path_factory.mktemp("saved")
    config = BasisConfig(
        r=2, num_basis=5, target_modules=["first", "second"], init_weights=False, input_scale="rms"
    )
    get_peft_model(base(), config).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "adapter")


def load(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what PEFT only warns of must not pass
        # nothing left out, and every tensor has its place: the adapter is whole
        warnings.filterwarnings("ignore", "You have passed exclude_modules")
        return PeftModel.from_pretrained(base(), str(folder))


def rewrite(folder, change):
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


def test_a_whole_adapter_is_loaded(folder):
    x = torch.randn(3, 6)
    assert torch.isfinite(load(folder)(x)).all()


FACTOR = "base_model.model.first.basis_A"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(FACTOR), "lacks base_model.model.first.basis_A"),
        (lambda t: t.update({FACTOR: t[FACTOR][:1].clone()}), r"size mismatch for .*basis_A"),
        (lambda t: t.update({FACTOR: t[FACTOR].int()}), "must hold floating-point numbers, got"),
        (lambda t: t[FACTOR].view(-1)[3:4].fill_(torch.nan), "holds NaN or infinity"),
        (lambda t: t[FACTOR].view(-1)[3:4].fill_(-torch.inf), "holds NaN or infinity"),
        (lambda t: t.update({FACTOR.replace("first", "third"): t[FACTOR].clone()}), "has no place"),
        (lambda t: t.update({FACTOR.replace("first", "third"): t.pop(FACTOR)}), "lacks"),
        (lambda t: [t.pop(name) for name in list(t)[1:]], "and .* more of this model"),
    ],
)
def test_tensors_that_are_not_the_adapters_are_refused(folder, change, message):
    rewrite(folder, change)
    pattern = message.replace("has no place", "for which this model has no place")
    with pytest.raises(REFUSALS, match=pattern):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "at most 5; it was saved by a newer basis-zoo"),
        ({"num_bases": 5}, "unknown setting 'num_bases'. Did you mean 'num_basis'"),
        ({"r": 3}, "size mismatch"),
        ({"num_basis": 6}, "size mismatch"),
        ({"basis": "sink"}, "unknown basis family 'sink'"),
        ({"alpha": "16"}, "`alpha` must be float, got '16'"),
        ({"alpha": float("inf")}, "`alpha` must be float, got inf"),
        ({"rank_pattern": []}, "`rank_pattern` must be"),
        ({"target_modules": ["first"]}, "has no place"),
        ({"input_scale": "none"}, "has no place"),
    ],
)
def test_settings_that_are_not_the_adapters_are_refused(folder, change, message):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(REFUSALS, match=message):
        load(folder)


@pytest.mark.parametrize("name", ["alpha", "start", "num_basis", "sharing"])
def test_a_setting_that_is_missing_is_not_replaced_by_its_default(folder, name):
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text())
    del config[name]
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"the saved configuration lacks {name}"):
        load(folder)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@settings(fuzz, max_examples=80)
@given(data=st.data())
def test_a_mutated_configuration_is_taken_or_refused_by_name(saved, tmp_path_factory, data):
    folder = shutil.copytree(saved, tmp_path_factory.mktemp("mutated") / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    own = sorted(set(BasisConfig.__annotations__) & set(config))
    config[data.draw(st.sampled_from(own))] = data.draw(VALUES)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    try:
        model = load(folder)
    except REFUSALS as error:
        assert str(error).strip()
    except UserWarning as warning:  # the user's own code may raise warnings too
        pytest.fail(f"only warned: {warning}")
    else:
        assert torch.isfinite(model(torch.ones(1, 6))).all()
    shutil.rmtree(folder)


@settings(fuzz, max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_file_is_refused_or_gives_the_shape_it_should(saved, tmp_path_factory, seed):
    folder = shutil.copytree(saved, tmp_path_factory.mktemp("damaged") / "adapter")
    draw = random.Random(seed)
    file = folder / draw.choice(("adapter_model.safetensors", "adapter_config.json"))
    content = bytearray(file.read_bytes())
    if draw.random() < 0.5:
        del content[draw.randrange(len(content)) :]
    else:
        content[draw.randrange(len(content))] = draw.randrange(256)
    file.write_bytes(content)
    before = copy.deepcopy(base().state_dict())
    try:
        model = load(folder)
    except (*REFUSALS, KeyError) as error:  # KeyError: PEFT on a method that it does not know
        assert str(error).strip()
    except Warning:
        pass
    else:
        assert model(torch.ones(1, 6)).shape == (1, 4)
        for name, weight in model.get_base_model().state_dict().items():
            if "base_layer" in name:
                torch.testing.assert_close(weight, before[name.replace("base_layer.", "")])
    shutil.rmtree(folder)


def test_a_pickle_is_not_run(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("run").touch, ())

    (folder / "adapter_model.safetensors").unlink()
    torch.save({"a": Bomb()}, folder / "adapter_model.bin")
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        load(folder)
    assert not (tmp_path / "run").exists()
