"""The distribution's firmware, and what a boot of it writes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from efi_shell import boot_once

BLOCK = 4096

# Package ovmf: images, the one with code and variables in it, and the descriptors.
OVMF_DIRECTORY = Path("/usr/share/OVMF")
OVMF_COMBINED = Path("/usr/share/ovmf/OVMF.fd")
OVMF_CODE = OVMF_DIRECTORY / "OVMF_CODE_4M.fd"
OVMF_VARS = OVMF_DIRECTORY / "OVMF_VARS_4M.fd"
# Package qemu-efi-aarch64: 64 MiB of zeros.
AAVMF_VARS = Path("/usr/share/AAVMF/AAVMF_VARS.fd")
DESCRIPTORS = Path("/usr/share/qemu/firmware")


@dataclass(frozen=True)
class FirstBoot:
    """The blocks of an image that differ after a guest's first boot, by their offset."""

    image: bytes
    blocks: dict[int, bytes]


def changed_blocks(before: bytes, after: bytes) -> dict[int, bytes]:
    assert len(before) == len(after)
    return {offset: after[offset:offset + BLOCK] for offset in range(0, len(before), BLOCK)
            if after[offset:offset + BLOCK] != before[offset:offset + BLOCK]}


def record_first_boot(directory: Path) -> FirstBoot:
    """Boots a plain copy of the combined image once."""
    return _record(directory, OVMF_COMBINED, "q35,pflash0=flash")


def record_first_split_boot(directory: Path) -> FirstBoot:
    """Boots a plain copy of the 4M variables once, with the code beside it."""
    return _record(directory, OVMF_VARS, "q35,pflash0=code,pflash1=flash",
                   "-blockdev", f"driver=file,node-name=code,filename={OVMF_CODE},read-only=on")


def _record(directory: Path, image: Path, machine: str, *arguments: str) -> FirstBoot:
    copy = directory / image.name
    shutil.copyfile(image, copy)
    boot_once(["-machine", machine, *arguments,
               "-blockdev", f"driver=file,node-name=file,filename={copy}",
               "-blockdev", "driver=raw,node-name=flash,file=file"])
    before = image.read_bytes()
    return FirstBoot(before, changed_blocks(before, copy.read_bytes()))
