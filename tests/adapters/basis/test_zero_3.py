"""DeepSpeed's ZeRO-3: the numbers of a layer are here while the layer runs, and no longer."""

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import nn

from adapters import BasisConfig

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(3))


class Gathering:
    """What ZeRO-3 promises, in one process: a module's parameters are here while it runs."""

    def __init__(self, model: nn.Module) -> None:
        self.whole = {parameter: parameter.data for parameter in model.parameters()}
        self.external: dict[nn.Module, dict[nn.Parameter, None]] = {}
        self.users = Counter(dict.fromkeys(self.whole, 1))
        for number, parameter in enumerate(self.whole):
            parameter.ds_id = number  # type: ignore[attr-defined]
        for module in model.modules():
            module.register_forward_pre_hook(lambda m, _: self.gather(self.of(m)))
            module.register_forward_hook(lambda m, *_: self.release(self.of(m)))
        self.release(self.whole)

    def of(self, module: nn.Module) -> list[nn.Parameter]:
        return [*module.parameters(recurse=False), *self.external.get(module, ())]

    def register(self, module: nn.Module, parameter: nn.Parameter) -> None:
        self.external.setdefault(module, {})[parameter] = None

    def gather(self, parameters: Any) -> None:
        for parameter in parameters:
            self.users[parameter] += 1
            parameter.data = self.whole[parameter]

    def release(self, parameters: Any) -> None:
        for parameter in parameters:
            self.users[parameter] -= 1
            if not self.users[parameter]:
                parameter.data = parameter.data.new_empty(0)


def make(**options: Any) -> Any:
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    config = BasisConfig(r=2, num_basis=6, target_modules=["0", "2"], init_weights=False, **options)
    return get_peft_model(base, config)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a model, and what holds its numbers."""

    def make_held(**options: Any) -> tuple[Any, Gathering]:
        model = make(**options)
        gathering = Gathering(model)
        for name in ("deepspeed", "deepspeed.runtime", "deepspeed.runtime.zero"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        zero = sys.modules["deepspeed.runtime.zero"]
        monkeypatch.setattr(zero, "register_external_parameter", gathering.register, raising=False)
        return model, gathering

    return make_held


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sharing": "all", "input_scale": "learned"},
        {"input_scale": "rms"},
        {"form": "hadamard"},
    ],
    ids=str,
)
def test_numbers_that_come_and_go_train_as_those_that_stay(held: Any, options: dict) -> None:
    plain = make(**options)
    model, gathering = held(**options)
    for _ in range(2):
        want, got = plain(X), model(X)
        torch.testing.assert_close(got, want)
        gathering.gather(gathering.whole)
        want.square().sum().backward()
        got.square().sum().backward()
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            for each in (plain, model):
                for parameter in each.parameters():
                    if parameter.requires_grad:
                        parameter.add_(0.1)
        gathering.release(gathering.whole)


def test_numbers_that_are_not_gathered_are_refused(held: Any, monkeypatch: Any) -> None:
    model, _ = held()
    announced = "adapters.basis.fitting.batch.announce_to_zero_3"
    monkeypatch.setattr(announced, lambda *_: None)
    with pytest.raises(RuntimeError, match=r"deepspeed\.zero\.GatheredParameters"):
        model(X)


def test_merging_is_refused_with_the_remedy(held: Any) -> None:
    model, gathering = held()
    gathering.gather(gathering.whole)
    with pytest.raises(ValueError, match="ZeRO-3 holds: save the adapter"):
        model.merge_adapter()


def test_reading_and_saving_ask_for_the_numbers(held: Any, tmp_path: Path) -> None:
    model, gathering = held()
    model(X)
    layer = model.get_base_model()[0]
    for ask in (lambda: layer.get_delta_weight("default"), lambda: model.save_pretrained(tmp_path)):
        with pytest.raises(RuntimeError, match=r"deepspeed\.zero\.GatheredParameters"):
            ask()
    gathering.gather(gathering.whole)
    assert layer.get_delta_weight("default").shape == (8, 8)
    model.save_pretrained(tmp_path)
    plain = make()
    plain.load_adapter(tmp_path, "saved")
    plain.set_adapter("saved")
    torch.testing.assert_close(plain(X), make()(X))


def test_nothing_is_announced_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # so that its import fails
    assert make()(X).shape == X.shape


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs DeepSpeed")
def test_two_processes_of_deepspeed_train_what_one_trains(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path]),
        "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "MASTER_ADDR": "localhost",
    }  # fmt: skip
    script = Path(__file__).with_name("zero_3_cases.py")
    subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(tmp_path)],
        env=environment, cwd=root, check=True, timeout=300,
    )  # fmt: skip
    for rank in (0, 1):
        for case, found in json.loads((tmp_path / f"{rank}.json").read_text()).items():
            assert isinstance(found, float), (case, found)
            assert found < 1e-2, case
