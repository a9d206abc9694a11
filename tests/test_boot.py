"""Real guests: OVMF, started by QEMU from the mount, to the EFI shell and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from efi_shell import EfiShell, boot_once
from support.mounting import Mounter
from support.ovmf import DESCRIPTORS, OVMF_CODE, OVMF_COMBINED, OVMF_VARS, changed_blocks
from support.program import Fwfs
from support.varstore import boot_entries, boot_order, read_variables, volume_length

GUID = "12345678-1234-1234-1234-123456789abc"
WRITE = f'setvar fwfs -guid {GUID} -nv -bs -rt =L"kept"'
READ = f"setvar fwfs -guid {GUID}"
KEPT = "6B 00 65 00 70 00 74 00"  # what the shell shows of L"kept"
MOVE_SHELL_FIRST = "bcfg boot mv 2 0"


@pytest.fixture
def qemu_arguments(fwfs: Fwfs, mount: Mounter) -> Callable[[str], list[str]]:
    def arguments(guest: str) -> list[str]:
        printed = fwfs("guest", "qemu", guest, "--mountpoint", mount.mountpoint, "--json").stdout
        return json.loads(printed)["arguments"]

    return arguments


def boot_twice(arguments: list[str], flash: Path, image: Path) -> None:
    """Asserts that what the first boot left is what the second finds, and keeps."""
    written, _ = boot_once(arguments, [WRITE, MOVE_SHELL_FIRST])
    assert "Unable" not in written
    first = read_variables(flash.read_bytes())
    assert not boot_entries(read_variables(image.read_bytes())), "the image has entries already"
    assert len(boot_entries(first)) >= 3
    # The firmware's own order begins with Boot0000: this one cannot be made up by the second boot.
    assert boot_order(first)[0] != "Boot0000"
    assert set(boot_order(first)) <= set(boot_entries(first))

    (answer,) = boot_once(arguments, [READ])
    assert KEPT in answer
    second = read_variables(flash.read_bytes())
    assert boot_order(second) == boot_order(first)
    assert boot_entries(second) == boot_entries(first)


def test_split_guest_keeps_its_variables(fwfs: Fwfs, mount: Mounter,
                                         qemu_arguments: Callable[[str], list[str]]) -> None:
    fwfs("firmware", "import", DESCRIPTORS / "60-edk2-x86_64.json")
    fwfs("guest", "add", "--firmware", "60-edk2-x86_64", "web01", "web02")
    fw = mount()
    boot_twice(qemu_arguments("web01"), fw / "web01" / "vars", OVMF_VARS)
    assert (fw / "web01" / "code").read_bytes() == OVMF_CODE.read_bytes()
    assert (fw / "web02" / "vars").read_bytes() == OVMF_VARS.read_bytes()
    kept = (fw / "web01" / "vars").read_bytes()
    fw = mount.remount()
    assert (fw / "web01" / "vars").read_bytes() == kept


def test_combined_guest_changes_variables_only(fwfs: Fwfs, mount: Mounter,
                                               qemu_arguments: Callable[[str], list[str]]) -> None:
    fwfs("firmware", "add", "ovmf", "--mode", "combined", "--executable", OVMF_COMBINED)
    fwfs("guest", "add", "--firmware", "ovmf", "web01", "web02")
    fw = mount()
    boot_twice(qemu_arguments("web01"), fw / "web01" / "code", OVMF_COMBINED)
    image, flash = OVMF_COMBINED.read_bytes(), (fw / "web01" / "code").read_bytes()
    end_of_variables = volume_length(image)
    assert flash[end_of_variables:] == image[end_of_variables:]
    changed = changed_blocks(image, flash)
    assert 1 <= len(changed) <= 8 and max(changed) < end_of_variables
    assert (fw / "web02" / "code").read_bytes() == image
    usage = json.loads(fwfs("guest", "show", "web01", "--json").stdout)
    assert usage["usage"]["delta_bytes"] == sum(map(len, changed.values()))


@pytest.mark.parametrize("image", [OVMF_COMBINED, OVMF_CODE], ids=lambda path: path.name)
def test_stateless_guest_keeps_nothing(fwfs: Fwfs, mount: Mounter, image: Path,
                                       qemu_arguments: Callable[[str], list[str]]) -> None:
    fwfs("firmware", "add", "plain", "--mode", "stateless", "--executable", image)
    fwfs("guest", "add", "--firmware", "plain", "web01")
    fw = mount()
    before = fwfs("status", "--json").stdout
    for _ in range(2):
        missing, _, written = boot_once(qemu_arguments("web01"), [READ, WRITE, READ])
        assert "Unable to get" in missing
        assert KEPT in written
    assert not (fw / "web01" / "vars").exists()
    assert (fw / "web01" / "code").read_bytes() == image.read_bytes()
    fw = mount.remount()
    after = fwfs("status", "--json").stdout
    blocks = "private_block_count"
    assert json.loads(after)[blocks] == json.loads(before)[blocks] == 0


def test_secure_boot_guest_gets_its_smm(fwfs: Fwfs, mount: Mounter,
                                        qemu_arguments: Callable[[str], list[str]]) -> None:
    """Firmware that requires SMM does not start without the machine's and the flash's property."""
    fwfs("firmware", "import", DESCRIPTORS / "50-edk2-x86_64-secure.json")
    fwfs("guest", "add", "--firmware", "50-edk2-x86_64-secure", "web01")
    fw = mount()
    boot_twice(qemu_arguments("web01"), fw / "web01" / "vars", OVMF_VARS)


def test_running_guest_is_read_and_survives_a_kill(
        fwfs: Fwfs, mount: Mounter, qemu_arguments: Callable[[str], list[str]]) -> None:
    """What the guest has written is there for others while it runs, and when QEMU is killed."""
    fwfs("firmware", "import", DESCRIPTORS / "60-edk2-x86_64.json")
    fwfs("guest", "add", "--firmware", "60-edk2-x86_64", "web01")
    fw = mount()
    with EfiShell(qemu_arguments("web01")) as shell:
        shell.boot()
        shell.run(WRITE)
        names = {name for name, _ in read_variables((fw / "web01" / "vars").read_bytes())}
        assert {"fwfs", "BootOrder"} <= names
    (answer,) = boot_once(qemu_arguments("web01"), [READ])
    assert KEPT in answer
