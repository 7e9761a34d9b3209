"""Waiting for another process or thread; the limit is for a test that would never end."""

import time
from collections.abc import Callable
from typing import Any

LIMIT_SECONDS = 240.0


def wait_until(holds: Callable[[], Any], step: float = 0.02) -> None:
    """Return once `holds()`; fails the test where it does not within `LIMIT_SECONDS`."""
    end = time.monotonic() + LIMIT_SECONDS
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(step)
