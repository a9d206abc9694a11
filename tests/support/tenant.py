"""Doing things as an unprivileged user."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_UNEXPECTED = 255


@dataclass(frozen=True)
class Tenant:
    """A user by number; none needs to exist in the user database."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def attempt(self, directory: Path, action: Callable[[], object]) -> int:
        """Runs `action` as this user in a child whose working directory is `directory`, entered
        before the privileges go, so that what is above it needs no permissions. Returns 0, or the
        errno of the OSError that it ended with."""
        child = os.fork()
        if child == 0:
            os._exit(self._act(directory, action))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert 0 <= status < _UNEXPECTED, f"the child ended with {status}"
        return status

    def _act(self, directory: Path, action: Callable[[], object]) -> int:
        try:
            os.chdir(directory)
            os.setgroups(self.groups)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
            action()
        except OSError as error:
            return error.errno or _UNEXPECTED
        except BaseException:
            traceback.print_exc()
            return _UNEXPECTED
        return 0


def names(codes: Iterable[int]) -> list[str]:
    """Errnos as words, to be read where an assertion fails."""
    return [errno.errorcode.get(code, str(code)) if code else "0" for code in codes]
