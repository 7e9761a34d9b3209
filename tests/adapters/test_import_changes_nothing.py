"""A process of its own: importing the package changes nothing, and nothing is cached yet."""

import subprocess
import sys

import pytest

CODE = """
import logging, warnings
import torch, transformers, peft, accelerate, datasets
from torch.optim import optimizer
def state():
    hooks = (optimizer._global_optimizer_pre_hooks, optimizer._global_optimizer_post_hooks)
    return (
        [dict(h) for h in hooks], torch.get_default_dtype(), torch.get_num_threads(),
        torch.is_grad_enabled(), list(warnings.filters), list(logging.getLogger().handlers),
    )
before = state()
import adapters
assert state() == before
for options in (
    {"init_weights": False},
    {"init_weights": False, "basis": "hat"},
    {"init_weights": False, "interval": (-0.02, 0.02), "bandwidth": 300.0},
    {"method": "nola"},
    {"method": "randlora_paper"},
):
    model = torch.nn.Sequential(torch.nn.Linear(8, 8))
    model = adapters.attach(model, {"method": "basis", "target_modules": ["0"], **options})
    x = torch.ones(2, 8)
    with torch.inference_mode():
        model(x)
    model(x).sum().backward()
from adapters.basis.fitting.tensor_versions import optimizer_steps
optimizer_steps()
p = torch.nn.Parameter(torch.ones(1))
p.grad = torch.ones(1)
torch.optim.SGD([p], lr=0.1).step()
assert optimizer_steps() == 1
"""


@pytest.mark.slow
def test_importing_changes_nothing_and_a_process_may_begin_in_inference_mode():
    """As a sanity check of the validation does; nothing that is cached then is in the way."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
