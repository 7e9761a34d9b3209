"""The fused kernels as a GPU gets them: they compile, and fit into registers and shared memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed: pip install triton")
SCRIPT = Path(__file__).with_name("compile_kernels.py")
ROOT = Path(__file__).resolve().parents[3]
SHARED = 99 * 1024
"""Of a program, in bytes: what capability 8.6 and 8.9 give; 8.0 and 9.0 give more."""
SPILLED = 800
"""Bytes a thread; kernels whose tiles did not fit had up to twenty thousand."""
CASES = [
    (1023, 770, 7, "bfloat16", "hat", 0.5),
    (4096, 4096, 16, "bfloat16", "sinc", 0.05),
    (1024, 1024, 256, "bfloat16", "sinc", 0.05),
    (14336, 4096, 16, "bfloat16", "sinc", 0.05),
    (14336, 4096, 16, "float32", "sinc", 0.05),
    (4096, 4096, 32, "bfloat16", "sinc", 0.05),
    (896, 128, 16, "float32", "sinc", 3.0),
    (4864, 896, 32, "float16", "hat", 3.0),
    (4096, 1024, 64, "bfloat16", "sinc", 0.05),
    (1024, 1024, 128, "bfloat16", "hat", 0.5),
]
QUICK = 2
"""The first cases: a table, what is met most. The next has the most registers and takes longest."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "cases"),
    [
        (90, CASES[:QUICK]),
        pytest.param(90, CASES[QUICK:], marks=pytest.mark.thorough),
        # 256 spills 7 KB
        pytest.param(80, [c for c in CASES if c[2] < 256], marks=pytest.mark.thorough),
    ],
)
def test_kernels_compile_and_fit(capability: int, cases: list[tuple]) -> None:
    # the script uses `bench`, which is not installed
    environment = os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPT), str(capability), json.dumps(cases)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    casts = ["_cast_kernel"] if capability >= 89 else []
    for case, kernels in zip(cases, json.loads(done.stdout), strict=True):
        names = {name for name, _, _ in kernels}
        assert names == {"_merge_kernel", "_gradient_kernel", "_finish_kernel", *casts}
        for name, spilled, shared in kernels:
            assert shared <= SHARED, (case, name, shared)
            assert spilled <= SPILLED, (case, name, spilled)
