"""The memory of this machine, as far as this process may use it."""

from pathlib import Path

import psutil


def free_memory() -> int:
    """Bytes of memory that can be had without swapping, within the limit of a container."""
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return free
    cache = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return free if limit == "max" else min(free, int(limit) - used + cache)
