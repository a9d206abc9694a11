"""What sharing saves, in bytes of the store's file."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.mounting import Mounter
from support.ovmf import BLOCK, OVMF_CODE, OVMF_COMBINED, OVMF_DIRECTORY, OVMF_VARS, FirstBoot
from support.program import Fwfs

GUESTS = 1000
NEW_GUEST_BYTES = 512
BOOTED_GUEST_BYTES = 1536
OWN_BYTES = 128

Record = Callable[[str, object], None]

NAMES = [f"vm{number:04}" for number in range(GUESTS)]


def add_guests(fwfs: Fwfs) -> None:
    fwfs("guest", "add", "--firmware", "ovmf", "-", input="".join(f"{name}\n" for name in NAMES))


@pytest.fixture
def combined(fwfs: Fwfs) -> None:
    """The combined image, as firmware "ovmf"."""
    fwfs("firmware", "add", "ovmf", "--mode", "combined", "--executable", OVMF_COMBINED)


@pytest.fixture
def guests(fwfs: Fwfs, combined: None) -> None:
    """1,000 new guests of it: NAMES."""
    add_guests(fwfs)


def status(fwfs: Fwfs) -> dict[str, int]:
    return json.loads(fwfs("status", "--json").stdout)


def plain_copy_bytes(directory: Path) -> int:
    """What a guest costs with a copy of the image of its own, on the disk that the tests run on."""
    copy = directory / "copy.fd"
    shutil.copyfile(OVMF_COMBINED, copy)
    with copy.open("rb") as file:
        os.fsync(file.fileno())  # before it the disk may not have given the room yet
    return copy.stat().st_blocks * 512


@pytest.mark.usefixtures("combined")
def test_a_new_guest_costs_next_to_nothing(fwfs: Fwfs, store: Path, tmp_path: Path,
                                           record_property: Record) -> None:
    without = store.stat().st_size
    add_guests(fwfs)
    full = store.stat().st_size
    per_guest = (full - without) / GUESTS
    record_property("new_guest_bytes", round(per_guest))
    assert per_guest <= NEW_GUEST_BYTES
    assert plain_copy_bytes(tmp_path) >= 2_000_000
    assert status(fwfs)["private_block_count"] == 0
    fwfs("guest", "rm", *NAMES)
    add_guests(fwfs)
    assert store.stat().st_size <= full * 1.05, "room of removed guests is not used again"


def add_firmware(fwfs: Fwfs, mode: str) -> None:
    """As "ovmf"."""
    if mode == "combined":
        fwfs("firmware", "add", "ovmf", "--mode", mode, "--executable", OVMF_COMBINED)
    else:
        fwfs("firmware", "add", "ovmf", "--executable", OVMF_CODE, "--nvram-template", OVMF_VARS)


@pytest.mark.parametrize(("mode", "own_bytes"),
                         [("combined", 0), ("combined", OWN_BYTES), ("split", OWN_BYTES)])
def test_a_booted_guest_costs_less_than_half_a_block(
        fwfs: Fwfs, store: Path, mount: Mounter, request: pytest.FixtureRequest, tmp_path: Path,
        record_property: Record, mode: str, own_bytes: int) -> None:
    """Each gets the blocks of a real first boot; `own_bytes` more are random, each guest's own."""
    combined = mode == "combined"
    boot: FirstBoot = request.getfixturevalue("first_boot" if combined else "first_split_boot")
    flash = "code" if combined else "vars"
    assert 3 <= len(boot.blocks) <= 6
    last = max(boot.blocks)
    rng = random.Random(own_bytes)
    own = {name: rng.randbytes(own_bytes) for name in NAMES}
    add_firmware(fwfs, mode)
    without = store.stat().st_size
    add_guests(fwfs)
    fw = mount()
    for name in NAMES:
        descriptor = os.open(fw / name / flash, os.O_RDWR)
        for offset, block in boot.blocks.items():
            assert os.pwrite(descriptor, block, offset) == BLOCK
        if own_bytes:
            assert os.pwrite(descriptor, own[name], last + BLOCK - own_bytes) == own_bytes
        os.fsync(descriptor)
        os.close(descriptor)
    mount.unmount()

    size = store.stat().st_size
    per_guest = (size - without) / GUESTS
    told = status(fwfs)
    record_property(f"booted_{mode}_guest_bytes", round(per_guest))
    assert per_guest <= BOOTED_GUEST_BYTES
    if combined:
        plain = plain_copy_bytes(tmp_path)
        record_property("plain_copy_bytes", plain)
        record_property("times_smaller", round(plain / (size / GUESTS)))
        assert plain / (size / GUESTS) >= 250
    # What guests wrote is never compared with another's: each pays for its own.
    assert told["private_block_count"] == GUESTS * len(boot.blocks)
    assert told["file_size_bytes"] == size

    fw = mount()
    for name in rng.sample(NAMES, 20):
        expected = bytearray(boot.image)
        for offset, block in boot.blocks.items():
            expected[offset:offset + BLOCK] = block
        if own_bytes:
            expected[last + BLOCK - own_bytes:last + BLOCK] = own[name]
        assert (fw / name / flash).read_bytes() == expected


def test_images_share_their_blocks(fwfs: Fwfs, store: Path) -> None:
    """The combined image is, but for its variables, the split one's code."""
    def distinct(*paths: Path) -> int:
        blocks = {data[offset:offset + BLOCK] for data in map(Path.read_bytes, paths)
                  for offset in range(0, len(data), BLOCK)}
        return len(blocks - {b"\0" * BLOCK, b"\xff" * BLOCK})

    code, template = OVMF_DIRECTORY / "OVMF_CODE.fd", OVMF_DIRECTORY / "OVMF_VARS.fd"
    fwfs("firmware", "add", "combined", "--mode", "combined", "--executable", OVMF_COMBINED)
    alone = status(fwfs)
    assert alone["shared_block_count"] == distinct(OVMF_COMBINED)
    assert alone["unique_bytes"] == distinct(OVMF_COMBINED) * BLOCK
    fwfs("firmware", "add", "split", "--executable", code, "--nvram-template", template)
    fwfs("firmware", "add", "stateless", "--mode", "stateless", "--executable", OVMF_COMBINED)
    both = status(fwfs)
    assert both["image_count"] == 3
    assert both["shared_block_count"] == distinct(OVMF_COMBINED, code, template)
    assert both["shared_block_count"] - alone["shared_block_count"] <= 5
    # Most of an OVMF image is compressed already.
    assert both["stored_bytes"] < both["unique_bytes"]
    fwfs("firmware", "rm", "split")
    assert status(fwfs)["shared_block_count"] == alone["shared_block_count"]


@pytest.mark.usefixtures("guests")
def test_what_a_guest_gives_back_is_free_again(fwfs: Fwfs, mount: Mounter,
                                               first_boot: FirstBoot) -> None:
    fw = mount()
    guest = fw / NAMES[0]
    offset, block = next(iter(first_boot.blocks.items()))
    with (guest / "code").open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), block, offset)
        os.fsync(file.fileno())
        assert status(fwfs)["private_block_count"] == 1
        os.pwrite(file.fileno(), first_boot.image[offset:offset + BLOCK], offset)
        os.fsync(file.fileno())
        assert status(fwfs)["private_block_count"] == 0
        os.pwrite(file.fileno(), block, offset)
    mount.unmount()
    assert status(fwfs)["private_block_count"] == 1
    fwfs("guest", "rm", "--purge", NAMES[0])
    assert status(fwfs)["private_block_count"] == 0
