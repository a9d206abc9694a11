#!/usr/bin/python3
"""Boots machines of many kinds and keeps the blocks that their firmware wrote: machines.py DIRECTORY

DIRECTORY/train and DIRECTORY/check get a directory a machine, in it one a boot, in it INDEX.block
and INDEX.below, what the firmware's image has there. A machine's number decides all of it, so the
same numbers give the same machines again.
"""

from __future__ import annotations

import random
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from efi_shell import EfiShell, ShellError

BLOCK = 4096
BOOTS = 2
BOOT_SECONDS = 40
SETTLE_SECONDS = 0.3
POLL_SECONDS = 0.05

TRAIN = {"2m": range(1, 15), "4m": range(1, 15), "4m-sb": (6, 9, 12), "4m-ms": (4, 7, 10),
         "4m-so": (5, 8, 11)}
CHECK = {"2m": range(101, 108), "4m": range(101, 108), "4m-sb": (102,), "4m-ms": (103,),
         "4m-so": (101, 104)}

# What the console shows when all is written that a boot without an operating system writes: the
# shell waits for a key, a network card looks for a server, or nothing is left to boot. Some
# machines show none of it, and are ended after BOOT_SECONDS.
SHELL = b"any other key"
ENDS = (b"net0:", b">>Start PXE", b">>Start HTTP", b"Press any key", b"No bootable")

SYSTEMS = (("debian", r"debian\shimx64.efi"), ("ubuntu", r"ubuntu\shimx64.efi"),
           ("Fedora", r"fedora\shimx64.efi"),
           ("Windows Boot Manager", r"Microsoft\Boot\bootmgfw.efi"),
           ("opensuse", r"opensuse\shim.efi"),
           ("Red Hat Enterprise Linux", r"redhat\shimx64.efi"))


@dataclass(frozen=True)
class Layout:
    template: Path  # what the flash begins as
    code: Path | None = None  # beside it; none: the template is code and variables
    smm: bool = False  # firmware with Secure Boot


OVMF = Path("/usr/share/OVMF")
SECBOOT = OVMF / "OVMF_CODE_4M.secboot.fd"
LAYOUTS = {
    "2m": Layout(Path("/usr/share/ovmf/OVMF.fd")),
    "4m": Layout(OVMF / "OVMF_VARS_4M.fd", OVMF / "OVMF_CODE_4M.fd"),
    "4m-sb": Layout(OVMF / "OVMF_VARS_4M.fd", SECBOOT, smm=True),
    "4m-ms": Layout(OVMF / "OVMF_VARS_4M.ms.fd", SECBOOT, smm=True),
    "4m-so": Layout(OVMF / "OVMF_VARS_4M.snakeoil.fd", SECBOOT, smm=True),
}


class Cards:
    """The arguments of a machine's cards, by chance."""

    def __init__(self, rng: random.Random, chipset: str) -> None:
        self._rng = rng
        self._chipset = chipset
        self._ports = 0
        self.arguments = ["-m", str(rng.choice((256, 512, 1024, 2048))),
                          "-smp", str(rng.choice((1, 1, 2, 4))),
                          "-vga", rng.choice(("std", "std", "virtio", "none"))]
        self._root_ports = chipset == "q35" and rng.random() < .5
        self._boot_index = 0
        self._disks()
        if rng.random() < .4:
            self._disc()
        for number in range(rng.choice((0, 1, 1, 1, 2))):
            self._network_card(number)
        if rng.random() < .3:
            self.card("virtio-rng-pci")
        if rng.random() < .4:
            self._input()

    def add(self, *arguments: str) -> None:
        self.arguments += arguments

    def card(self, device: str) -> None:
        """On the root bus, or, as libvirt does it, behind a root port of its own."""
        if self._root_ports:
            number, self._ports = self._ports, self._ports + 1
            multifunction = "" if number % 8 else ",multifunction=on"
            self.add("-device", f"pcie-root-port,id=port{number},port={16 + number},"
                     f"chassis={number + 1},bus=pcie.0,addr={2 + number // 8:#x}.{number % 8}"
                     + multifunction)
            device += f",bus=port{number},addr=0x0"
        self.add("-device", device)

    def _disks(self) -> None:
        rng = self._rng
        count = rng.choice((0, 1, 1, 1, 2, 3))
        in_order = rng.random() < .4
        for number in range(count):
            self.add("-blockdev", f"driver=null-co,node-name=disk{number},read-zeroes=on,"
                     f"size={rng.randrange(1, 200) << 30}")
            kind = rng.choice(("virtio", "virtio", "ahci", "nvme", "scsi", "usb"))
            order = f",bootindex={number + 1}" if in_order else ""
            serial = f"{rng.getrandbits(40):X}"
            self._disk(kind, f"drive=disk{number}{order}", number, serial)

    def _disk(self, kind: str, drive: str, number: int, serial: str) -> None:
        if kind == "virtio":
            self.card(f"virtio-blk-pci,{drive}")
        elif kind == "ahci":
            bus = self._rng.randrange(2)
            told = f",serial={serial}" if self._rng.random() < .5 else ""
            self.add("-device", f"ide-hd,{drive},bus=ide.{bus}{told}")
        elif kind == "nvme":
            self.card(f"nvme,{drive},serial={serial}")
        elif kind == "scsi":
            self.card(f"virtio-scsi-pci,id=scsi{number}")
            self.add("-device", f"scsi-hd,{drive},bus=scsi{number}.0,lun={self._rng.randrange(2)}")
        else:
            self.card(f"qemu-xhci,id=usb{number}")
            self.add("-device", f"usb-storage,{drive},bus=usb{number}.0")

    def _disc(self) -> None:
        unit = 0 if self._chipset == "q35" else 1
        self.add("-blockdev", "driver=null-co,node-name=disc,read-zeroes=on,read-only=on,"
                 f"size={self._rng.randrange(100, 4000) << 20}",
                 "-device", f"ide-cd,drive=disc,bus=ide.1,unit={unit}")

    def _network_card(self, number: int) -> None:
        rng = self._rng
        address = ":".join(f"{rng.randrange(256):02x}" for _ in range(3))
        intel = "e1000e" if self._chipset == "q35" else "e1000"
        model = rng.choice(("virtio-net-pci", "virtio-net-pci", intel, "rtl8139"))
        self.add("-netdev", f"hubport,hubid={number},id=net{number}")
        self.card(f"{model},netdev=net{number},mac=52:54:00:{address}")

    def _input(self) -> None:
        self.card("qemu-xhci,id=usbinput")
        self.add("-device", "usb-tablet,bus=usbinput.0")
        if self._rng.random() < .5:
            self.add("-device", "usb-kbd,bus=usbinput.0")


class Machine:
    def __init__(self, layout: str, number: int) -> None:
        self.layout = LAYOUTS[layout]
        rng = random.Random(f"{layout}/{number}")
        self._chipset = "q35" if self.layout.smm or rng.random() < .75 else "pc"
        self._arguments = Cards(rng, self._chipset).arguments
        # A boot to the shell can add what an installed system adds; a network card comes first.
        self._system = None
        if "-netdev" not in self._arguments and rng.random() < .6:
            self._system = rng.choice(SYSTEMS)

    def run(self, directory: Path) -> None:
        flash = directory / "flash.fd"
        directory.mkdir(parents=True)
        shutil.copyfile(self.layout.template, flash)
        arguments = self._flash_arguments(flash) + self._arguments + self._disk(directory / "esp")
        for boot in range(1, BOOTS + 1):
            with EfiShell(arguments) as shell:
                self._boot(shell, boot)
            self._keep(flash, directory / str(boot))
        flash.unlink()

    def _disk(self, directory: Path) -> list[str]:
        if not self._system:
            return []
        loader = directory / "EFI" / self._system[1].replace("\\", "/")
        loader.parent.mkdir(parents=True)
        loader.write_bytes(b"MZ")
        return ["-blockdev", f"driver=vvfat,node-name=esp,dir={directory},read-only=on",
                "-device", "virtio-blk-pci,drive=esp"]

    def _boot(self, shell: EfiShell, boot: int) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        seen = shell.wait_for((SHELL, *ENDS), deadline)
        if seen == SHELL:
            shell.boot()
            if self._system and boot > 1:
                name, path = self._system
                shell.run(rf'bcfg boot add 0 fs0:\EFI\{path} "{name}"')
        else:
            time.sleep(SETTLE_SECONDS)
        shell.quit()

    def _flash_arguments(self, flash: Path) -> list[str]:
        def drive(name: str, file: Path, options: str = "") -> list[str]:
            return ["-blockdev", f"driver=file,node-name={name}-file,filename={file}{options}",
                    "-blockdev", f"driver=raw,node-name={name},file={name}-file{options}"]

        if not self.layout.code:
            return ["-machine", f"{self._chipset},pflash0=flash", *drive("flash", flash)]
        smm = (["-global", "driver=cfi.pflash01,property=secure,value=on"]
               if self.layout.smm else [])
        return ["-machine", f"{self._chipset},pflash0=code,pflash1=flash"
                + (",smm=on" if smm else ""), *smm,
                *drive("code", self.layout.code, ",read-only=on"), *drive("flash", flash)]

    def _keep(self, flash: Path, directory: Path) -> None:
        directory.mkdir()
        before, after = self.layout.template.read_bytes(), flash.read_bytes()
        for offset in range(0, len(before), BLOCK):
            old, new = before[offset:offset + BLOCK], after[offset:offset + BLOCK]
            if old != new:
                index = f"{offset // BLOCK:04}"
                (directory / f"{index}.block").write_bytes(new)
                (directory / f"{index}.below").write_bytes(old)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__.splitlines()[0])
    for part, layouts in (("train", TRAIN), ("check", CHECK)):
        for layout, numbers in layouts.items():
            for number in numbers:
                name = f"{layout}-{number}"
                print(f"{part}: {name}", flush=True)
                try:
                    Machine(layout, number).run(Path(sys.argv[1], part, name))
                except ShellError as error:
                    sys.exit(f"machines: {name}: {error}")


if __name__ == "__main__":
    main()
