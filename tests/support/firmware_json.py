"""A checker of descriptors, written for the tests alone from QEMU's docs/interop/firmware.json."""

from __future__ import annotations

from collections.abc import Callable, Iterator

Value = object
Check = Callable[[Value, str], Iterator[str]]

INTERFACES = {"bios", "openfirmware", "uboot", "uefi"}
ARCHITECTURES = {"aarch64", "arm", "i386", "loongarch64", "riscv64", "x86_64"}
FEATURES = {"acpi-s3", "acpi-s4", "amd-sev", "amd-sev-es", "amd-sev-snp", "intel-tdx",
            "enrolled-keys", "requires-smm", "secure-boot", "host-uefi-vars", "verbose-dynamic",
            "verbose-static"}
FORMATS = {"raw", "qcow2"}
MODES = {"split", "combined", "stateless"}


def text(value: Value, where: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{where} is no string"


def one_of(words: set[str]) -> Check:
    def check(value: Value, where: str) -> Iterator[str]:
        if value not in words:
            yield f"{where} is {value!r}, not one of {sorted(words)}"

    return check


def list_of(item: Check, non_empty: bool = False) -> Check:
    def check(value: Value, where: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{where} is no list"
            return
        if non_empty and not value:
            yield f"{where} is empty"
        for index, element in enumerate(value):
            yield from item(element, f"{where}[{index}]")

    return check


def struct(members: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    """An object with these members, and with no others."""
    known = members | (optional or {})

    def check(value: Value, where: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{where} is no object"
            return
        yield from (f"{where} lacks {name}" for name in members.keys() - value.keys())
        yield from (f"{where} has the unknown {name}" for name in value.keys() - known.keys())
        for name in known.keys() & value.keys():
            yield from known[name](value[name], f"{where}.{name}")

    return check


FLASH_FILE = struct({"filename": text, "format": one_of(FORMATS)})
FLASH_MAPPING = struct({"device": one_of({"flash"}), "executable": FLASH_FILE},
                       {"mode": one_of(MODES), "nvram-template": FLASH_FILE})
TARGET = struct({"architecture": one_of(ARCHITECTURES), "machines": list_of(text)})
FIRMWARE = struct({
    "description": text,
    "interface-types": list_of(one_of(INTERFACES), non_empty=True),
    "mapping": FLASH_MAPPING,
    "targets": list_of(TARGET),
    "features": list_of(one_of(FEATURES)),
    "tags": list_of(text),
})


def violations(document: Value) -> list[str]:
    """What is wrong with a descriptor that maps flash; empty if nothing is."""
    found = list(FIRMWARE(document, "firmware"))
    if not found:
        mapping = document["mapping"]  # type: ignore[index]
        split = mapping.get("mode", "split") == "split"
        if split != ("nvram-template" in mapping):
            found.append("an nvram-template goes with mode split, and with no other")
    return found
