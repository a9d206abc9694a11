#!/usr/bin/python3
"""Reads what `fwfs guest show --json` prints, of any number of guests, and prints their costs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator


def documents(text: str) -> Iterator[dict]:
    decoder = json.JSONDecoder()
    text = text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:].strip()


def main() -> None:
    print(f"   {'guest':<12}{'a plain copy':>16}{'changed by it':>16}{'kept in the store':>20}")
    for guest in documents(sys.stdin.read()):
        usage = guest["usage"]
        own = guest["vars" if guest["mode"] == "split" else "code"]["size_bytes"]
        figures = (own if guest["mode"] != "stateless" else 0, usage["delta_bytes"],
                   usage["stored_bytes"])
        print(f"   {guest['guest']:<12}{figures[0]:>16,}{figures[1]:>16,}{figures[2]:>20,}")
    print("   (bytes; read-only code is shared by all guests and counted for none)")


if __name__ == "__main__":
    main()
