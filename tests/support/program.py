"""Running the program under test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

RUN_SECONDS = 120

Fwfs = Callable[..., "subprocess.CompletedProcess[str]"]


def run_program(program: Path, *arguments: str | os.PathLike[str], check: bool = True,
                input: str | None = None,
                env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs it to its end; `env` adds to the environment. With `check`, it must exit with 0."""
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, input=input, capture_output=True, text=True, check=False,
                          timeout=RUN_SECONDS, env={**os.environ, **(env or {})})
    if check:
        assert done.returncode == 0, f"{command}: exit code {done.returncode}: {done.stderr}"
    return done
