"""What every test may ask for: the program, a store of its own, and a mount that is undone."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
# Before the imports that it is for.
sys.path[:0] = [str(TESTS), str(ROOT / "scripts" / "lib")]

from support.hammers import Hammers, Record  # noqa: E402
from support.mounting import Mounter  # noqa: E402
from support.ovmf import FirstBoot, record_first_boot, record_first_split_boot  # noqa: E402
from support.program import Fwfs, run_program  # noqa: E402
from support.server import Server  # noqa: E402


@pytest.fixture(scope="session")
def fwfs_bin() -> Path:
    path = Path(os.environ.get("FWFS_BIN", ROOT / "build" / "debug" / "fwfs")).resolve()
    if not path.is_file():
        pytest.exit(f"{path} is not there: build it, or name another in FWFS_BIN", returncode=2)
    return path


@pytest.fixture(scope="session")
def release_bin() -> Path:
    """The program as it is installed. A module whose tests are of speed or of crashes has its
    `fwfs_bin` return this one: under a sanitizer memory is not locked."""
    path = Path(os.environ.get("FWFS_RELEASE_BIN", ROOT / "build" / "release" / "fwfs")).resolve()
    if not path.is_file():
        pytest.exit(f"{path} is not there: build it, or name another in FWFS_RELEASE_BIN",
                    returncode=2)
    return path


@pytest.fixture(autouse=True)
def sanitizer_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Sends what a sanitizer finds in any process of the test, also one without a terminal, to
    files in this directory, and fails the test if there is one at its end."""
    reports = tmp_path / "sanitizer"
    reports.mkdir()
    for variable, name in (("ASAN_OPTIONS", "address"), ("UBSAN_OPTIONS", "undefined")):
        options = f"{os.environ.get(variable, '')}:log_path={reports / name}"
        monkeypatch.setenv(variable, options.lstrip(":"))
    yield reports
    texts = [report.read_text(errors="replace") for report in sorted(reports.iterdir())]
    assert not texts, "a sanitizer complained:\n" + "\n".join(texts)


@pytest.fixture
def bare_store(tmp_path: Path) -> Path:
    """A path for another store; nothing is there yet."""
    return tmp_path / "bare.db"


@pytest.fixture
def store(fwfs_bin: Path, tmp_path: Path, sanitizer_reports: Path) -> Path:
    """A new, empty store."""
    path = tmp_path / "fwfs.db"
    run_program(fwfs_bin, "--store", path, "init")
    return path


@pytest.fixture
def fwfs(fwfs_bin: Path, store: Path) -> Fwfs:
    """Runs the program on the test's store: fwfs("guest", "add", …) asserts that it succeeded;
    check=False leaves the exit code to the test. A --store of the test's own goes before."""
    return partial(run_program, fwfs_bin, "--store", store)


@pytest.fixture
def mount(fwfs: Fwfs, fwfs_bin: Path, tmp_path: Path) -> Iterator[Mounter]:
    """mount() mounts the store at tmp_path/fw and returns that path; mount.unmount() undoes it, as
    does the end of the test."""
    mounter = Mounter(fwfs, fwfs_bin, tmp_path / "fw")
    yield mounter
    mounter.finish()


@pytest.fixture
def serve(fwfs: Fwfs, fwfs_bin: Path, store: Path,
          tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """serve(option, …, program=…) mounts the store at tmp_path/fw, in the foreground; the end of
    the test undoes it."""
    servers: list[Server] = []

    def start(*options: str, program: Path = fwfs_bin) -> Server:
        servers.append(Server(fwfs, program, store, tmp_path / "fw", *options))
        return servers[-1]

    yield start
    for server in servers:
        server.finish()


@pytest.fixture
def rng(record_property: Record) -> random.Random:
    """Seeded by chance, or with FWFS_TEST_SEED, and the seed told."""
    seed = int(os.environ.get("FWFS_TEST_SEED", random.randrange(1 << 32)))
    record_property("seed", seed)
    print(f"FWFS_TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def hammers(release_bin: Path, tmp_path: Path, rng: random.Random) -> Callable[..., Hammers]:
    """hammers(files): writers to each of them."""
    program = release_bin.parent / "tests" / "hammer"
    return lambda files: Hammers(program, files, tmp_path, rng.randrange(1 << 32))


@pytest.fixture(scope="session")
def first_boot(tmp_path_factory: pytest.TempPathFactory) -> FirstBoot:
    """What a first boot to the EFI shell writes into a combined OVMF.fd."""
    return record_first_boot(tmp_path_factory.mktemp("first-boot"))


@pytest.fixture(scope="session")
def first_split_boot(tmp_path_factory: pytest.TempPathFactory) -> FirstBoot:
    """The same of OVMF_VARS_4M.fd."""
    return record_first_split_boot(tmp_path_factory.mktemp("first-split-boot"))
