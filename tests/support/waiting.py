"""Waiting for what may take a moment."""

from __future__ import annotations

import time
from collections.abc import Callable

# The kernel keeps names and attributes for a second.
CACHE_SECONDS = 3


def eventually(holds: Callable[[], bool], seconds: float = CACHE_SECONDS) -> bool:
    """Whether it holds, now or within that time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
