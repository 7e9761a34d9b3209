"""What a trial ran on: enough to say why two results differ."""

import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from studies.engine.trials.devices import SLOTS_VARIABLE
from studies.engine.trials.ranks import ranks


def set_threads(count: int) -> None:
    """Compute with `count` threads on a CPU, whatever shares it: bits depend on their number.

    Beside a GPU they prepare batches, and their number is the share of the cores.
    """
    if not torch.cuda.is_available():
        torch.set_num_threads(count)


def environment() -> dict[str, Any]:
    """Versions, device, driver, git commit and host."""
    record: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **_versions(),
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "trials_at_once": int(os.environ.get(SLOTS_VARIABLE, "1")),
        "host": platform.node(),
    }
    if (count := ranks().count) > 1:
        record["processes"] = count
    if torch.cuda.is_available():
        query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        driver = _output(*query).partition("\n")[0] or None
        record |= {"cuda": torch.version.cuda, "driver": driver}
    return record | _git()


def code_versions() -> dict[str, Any]:
    """Versions of the packages and the commit: what decides how a training goes on."""
    return {"python": platform.python_version(), **_versions(), "commit": _git().get("commit")}


def device_name() -> str:
    """The GPU, or the CPU's instruction set."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})"


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """The same bits each time on one device: deterministic kernels, no TF32; restored afterwards.

    cuBLAS reads `CUBLAS_WORKSPACE_CONFIG` when it starts: `deterministic_variables` must be in the
    environment of the process. An operation without a deterministic kernel warns in the log.
    """
    if not wanted:
        yield
        return
    kernels, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        (kernels.deterministic, kernels.benchmark, kernels.allow_tf32, matmul.allow_tf32),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    kernels.deterministic, kernels.benchmark = True, False
    kernels.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        kernels.deterministic, kernels.benchmark, kernels.allow_tf32, matmul.allow_tf32 = before[2]


def _versions() -> dict[str, str]:
    versions = {name: version(name) for name in ("torch", "transformers", "peft", "accelerate")}
    with suppress(PackageNotFoundError):  # the fused kernels' compiler; a CPU does without
        versions["triton"] = version("triton")
    return versions


def _git() -> dict[str, Any]:
    """Commit of the checkout this package runs from; nothing where it is an installed copy."""
    root = Path(__file__).resolve().parents[3]
    git = ("git", "-C", str(root))
    top, _, commit = _output(*git, "rev-parse", "--show-toplevel", "HEAD").strip().partition("\n")
    if not top or Path(top).resolve() != root:
        return {}
    changes = _output(*git, "status", "--porcelain", "-uno")
    return {"commit": commit, "uncommitted_changes": bool(changes.strip())}


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def reset_peak_memory() -> bool:
    """Let `peak_memory_bytes` speak of what comes now; whether the system allows that.

    Else it speaks of the process's whole life.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # no Linux, or a container that forbids it
        return False
    return True


def peak_memory_bytes() -> int:
    """Peak device memory on a GPU, peak resident memory of this process on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        if match:
            return int(match[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
