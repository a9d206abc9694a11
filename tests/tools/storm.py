#!/usr/bin/python3
"""Asks for all that can be asked of a flash but its bytes, until its stdin ends: storm.py FILE

Prints how many times it went round, then a line for each answer that was wrong."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Callable

ATTRIBUTE = "user.storm"


def kept(path: str, number: int) -> str:
    """What is wrong with the attributes that were just set, or ""."""
    told = os.stat(path)
    found = (stat.S_IMODE(told.st_mode), told.st_mtime_ns, os.getxattr(path, ATTRIBUTE))
    expected = (0o600 | number % 64, number * 1000, str(number).encode())
    return "" if found == expected else f"{found} instead of {expected}"


def go_round(path: str, number: int) -> list[str]:
    steps: list[tuple[str, Callable[[], object]]] = [
        ("chmod", lambda: os.chmod(path, 0o600 | number % 64)),
        ("chown", lambda: os.chown(path, number % 7, number % 5)),
        ("setxattr", lambda: os.setxattr(path, ATTRIBUTE, str(number).encode(), os.XATTR_CREATE)),
        ("listxattr", lambda: os.listxattr(path)),
        ("open", lambda: os.close(os.open(path, os.O_RDWR))),
        ("utime", lambda: os.utime(path, ns=(number, number * 1000))),
        ("readdir", lambda: os.listdir(os.path.dirname(path))),
        ("statfs", lambda: os.statvfs(path)),
        ("getattr", lambda: kept(path, number)),
        ("removexattr", lambda: os.removexattr(path, ATTRIBUTE)),
        ("truncate", lambda: os.truncate(path, 0)),
    ]
    wrong = []
    for name, step in steps:
        try:
            answer = step()
        except OSError as error:
            answer = str(error)
        if isinstance(answer, str) and answer:
            wrong.append(f"{name}: {answer}")
    return wrong


def main() -> None:
    number, wrong = 0, []
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        wrong += go_round(sys.argv[1], number)
    print(number, *wrong, sep="\n")


if __name__ == "__main__":
    main()
