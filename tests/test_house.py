"""The source tree's own rules: who may include whom, how long a file is, how it is written."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FILE = 600

# What each room may include headers of, besides its own.
BELOW = {
    "base": set(),
    "firmware": {"base"},
    "store": {"base"},
    "guest": {"base", "firmware", "store"},
    "fs": {"base", "firmware", "store", "guest"},
    "cli": {"base", "firmware", "store", "guest", "fs"},
}
# Where a library's headers may be included; the store's door shows nothing of SQLite.
ROOM_OF_LIBRARY = {"sqlite3": "store", "fuse": "fs", "fuse3": "fs", "zstd": "store",
                   "openssl": "store"}
DOOR = Path("store/store.h")

SCRIPTS = [".ci/run", "scripts/bench", "scripts/build", "scripts/install-dependencies",
           "scripts/make-dictionary", "scripts/quickstart", "scripts/test"]
LOOSE_ENDS = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b")


def sources() -> list[Path]:
    """All of the project's C files, relative to its root."""
    return sorted(path.relative_to(ROOT) for room in [*BELOW, "tests"]
                  for path in (ROOT / room).rglob("*.[ch]"))


def texts() -> Iterator[Path]:
    """All files that somebody wrote, relative to the root."""
    for directory, names, files in os.walk(ROOT):
        names[:] = [name for name in names
                    if name not in (".git", "build", "__pycache__", ".pytest_cache")]
        for file in files:
            yield (Path(directory) / file).relative_to(ROOT)


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', (ROOT / path).read_text(), re.M)


@pytest.mark.parametrize("room", BELOW)
def test_no_room_looks_up(room: str) -> None:
    files = [path for path in sources() if path.parts[0] == room]
    assert files, f"there is nothing in {room}/"
    wrong = [f"{path}: {name}" for path in files for name in includes(path)
             if name.split("/")[0] in BELOW.keys() - BELOW[room] - {room}]
    assert not wrong
    assert not [f"{path}: {name}" for path in files for name in includes(path) if ".." in name]


def test_libraries_stay_in_their_rooms() -> None:
    wrong = []
    for path in sources():
        for name in includes(path):
            library = re.split(r"[/.]", name)[0].removesuffix("_lowlevel").removesuffix("_errors")
            room = ROOM_OF_LIBRARY.get(library)
            if room and (path.parts[0] != room or path == DOOR):
                wrong.append(f"{path}: {name}")
    assert not wrong


def test_files_hold_one_concern() -> None:
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in
               (path for path in texts() if path.suffix in (".c", ".h", ".py", ".sh"))}
    assert not {str(path): length for path, length in lengths.items() if length >= LONGEST_FILE}


def test_no_loose_ends() -> None:
    wrong = []
    for path in texts():
        lines = (ROOT / path).read_text(errors="replace").splitlines()
        wrong += [f"{path}:{number}" for number, line in enumerate(lines, 1)
                  if LOOSE_ENDS.search(line)]
    assert not wrong


def run_checker(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_c_is_formatted() -> None:
    run_checker("clang-format", "--dry-run", "-Werror", *sources())


def test_scripts_are_clean() -> None:
    run_checker("shellcheck", *SCRIPTS)
    not_executable = [script for script in SCRIPTS if not os.access(ROOT / script, os.X_OK)]
    assert not not_executable


def test_python_compiles_without_warnings() -> None:
    files = [path for path in texts() if path.suffix == ".py"]
    run_checker("/usr/bin/python3", "-W", "error", "-c",
                "import sys; [compile(open(f).read(), f, 'exec') for f in sys.argv[1:]]", *files)
