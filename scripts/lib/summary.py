#!/usr/bin/python3
"""Adds up JUnit result files: summary.py FILE...

Prints what they recorded and what failed, then, as the last line, `N passed, N failed` (and `, N
skipped` if any were). A file that cannot be read is a failure. Exits with 1 if something failed or
nothing ran.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter


def outcome(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def main(paths: list[str]) -> int:
    # A test that fails and whose clean-up fails too has two entries: it is one failed test.
    outcomes: dict[tuple[str, str, str], str] = {}
    for path in paths:
        try:
            results = ElementTree.parse(path)
        except (OSError, ElementTree.ParseError) as error:
            outcomes[path, "", f"no results: {error}"] = "failed"
            continue
        for case in results.iter("testcase"):
            name = (path, case.get("classname", ""), case.get("name", ""))
            for entry in case.iter("property"):
                print(f"{name[2]}: {entry.get('name')} = {entry.get('value')}")
            if outcomes.get(name) != "failed":
                outcomes[name] = outcome(case)
    for (_, group, name), result in outcomes.items():
        if result == "failed":
            print(f"failed: {group} {name}")
    count = Counter(outcomes.values())
    skipped = f", {count['skipped']} skipped" if count["skipped"] else ""
    print(f"{count['passed']} passed, {count['failed']} failed{skipped}")
    return 0 if count["passed"] and not count["failed"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
