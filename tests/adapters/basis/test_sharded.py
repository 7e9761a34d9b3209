"""DDP, FSDP1 and FSDP2 on two processes train what one process trains."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.adapters.basis.sharded_cases import CASES

TWO_GPUS = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
]


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=TWO_GPUS)])
def told(request, tmp_path_factory) -> list[dict]:
    """What each of the two processes tells of each case."""
    folder, root = tmp_path_factory.mktemp("sharded"), Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("sharded_cases.py"))]
    command += [str(folder), request.param]
    subprocess.run(command, env=environment, cwd=root, check=True, timeout=300)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_what_one_trains(told, case):
    for process in told:
        assert isinstance(process[case], float), process[case]
        assert process[case] < 1e-3
