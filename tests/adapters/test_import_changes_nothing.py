"""Importing the package changes nothing of the process."""

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
from adapters.basis.fitting.tensor_versions import optimizer_steps
optimizer_steps()
p = torch.nn.Parameter(torch.ones(1))
p.grad = torch.ones(1)
torch.optim.SGD([p], lr=0.1).step()
assert optimizer_steps() == 1
"""


@pytest.mark.slow
def test_importing_changes_nothing_of_the_process():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
