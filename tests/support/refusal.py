"""What an action is refused with."""

from __future__ import annotations

import errno
from collections.abc import Callable


def refusal(action: Callable[[], object]) -> str:
    """The name of the errno that it fails with, or "nothing"."""
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "nothing"
