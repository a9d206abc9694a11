"""Guests that move from one QEMU to another while they run."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from efi_shell import EfiShell, ShellError

MIGRATION_SECONDS = 30
POLL_SECONDS = 0.02


class Migrant(EfiShell):
    """A guest whose monitor is asked; with `incoming`, a socket, one that waits to be moved here."""

    def __init__(self, arguments: Sequence[str], incoming: Path | None = None) -> None:
        waits = ["-incoming", f"unix:{incoming}"] if incoming else []
        super().__init__([*arguments, *waits])
        self._said = b""
        self._line()  # the greeting
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: object) -> Any:
        """What QEMU answers to a command of QMP."""
        request = {"execute": command, "arguments": arguments}
        self._monitor.sendall(json.dumps(request).encode())
        while True:
            answer = self._line()
            if "error" in answer:
                raise ShellError(self._explain(f"{command}: {answer['error']}"))
            if "return" in answer:
                return answer["return"]

    def _line(self) -> dict[str, Any]:
        while b"\n" not in self._said:
            part = self._monitor.recv(1 << 16)
            if not part:
                raise ShellError(self._explain("QEMU ended"))
            self._said += part
        line, _, self._said = self._said.partition(b"\n")
        return json.loads(line)

    def move_to(self, other: Migrant, socket: Path) -> None:
        """Returns when the guest runs there, and this QEMU has ended."""
        self.ask("migrate", uri=f"unix:{socket}")
        self._wait_for("query-migrate", "completed")
        other._wait_for("query-status", "running")
        self.quit()

    def _wait_for(self, query: str, wanted: str) -> None:
        deadline = time.monotonic() + MIGRATION_SECONDS
        while (told := self.ask(query))["status"] != wanted:
            if told["status"] in ("failed", "cancelled") or time.monotonic() > deadline:
                raise ShellError(self._explain(f"{query}: {told}"))
            time.sleep(POLL_SECONDS)
