"""A naive reader of EDK2's variable stores, written for the tests alone, so that what fwfs does to
a store is judged by something that shares no code with it.

Layout (MdePkg and MdeModulePkg of edk2: PiFirmwareVolume.h, VariableFormat.h): a firmware volume's
header, the store's header, then records of 60 bytes, a UCS-2 name and data, each aligned to 4.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")

_VOLUME_SIGNATURE = b"_FVH"
_AUTHENTICATED = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792")
_STORE_HEADER = 28
_RECORD_HEADER = 60
_RECORD_START = 0x55AA
_LIVE = 0x3F
_BEING_REPLACED = 0x3E

Key = tuple[str, uuid.UUID]


@dataclass(frozen=True)
class Variable:
    attributes: int
    data: bytes


def volume_length(flash: bytes) -> int:
    """Bytes of the volume that the variables are in, at the start of the flash: all that the
    firmware writes to."""
    assert flash[0x28:0x2C] == _VOLUME_SIGNATURE, "no firmware volume at the start"
    return struct.unpack_from("<Q", flash, 0x20)[0]


def read_variables(flash: bytes) -> dict[Key, Variable]:
    """The live variables of the volume at the start of `flash`."""
    volume_end = volume_length(flash)
    start = struct.unpack_from("<H", flash, 0x30)[0]
    kind = uuid.UUID(bytes_le=flash[start:start + 16])
    assert kind == _AUTHENTICATED, f"an unknown variable store {kind}"
    end = start + struct.unpack_from("<I", flash, start + 16)[0]
    assert end <= volume_end, "the variable store passes the end of its volume"

    live: dict[Key, Variable] = {}
    replaced: dict[Key, Variable] = {}
    at = start + _STORE_HEADER
    while at + _RECORD_HEADER <= end:
        start_id, state, attributes = struct.unpack_from("<HBxI", flash, at)
        if start_id != _RECORD_START:
            break
        name_size, data_size = struct.unpack_from("<II", flash, at + 36)
        guid = uuid.UUID(bytes_le=flash[at + 44:at + 60])
        name_at = at + _RECORD_HEADER
        data_at = name_at + name_size
        assert data_at + data_size <= end, f"the record at {at:#x} passes the end of the store"
        name = flash[name_at:data_at].decode("utf-16-le").rstrip("\0")
        variable = Variable(attributes, flash[data_at:data_at + data_size])
        if state == _LIVE:
            live[name, guid] = variable
        elif state == _BEING_REPLACED:
            replaced[name, guid] = variable
        at = (data_at + data_size + 3) & ~3
    return replaced | live


def boot_order(variables: dict[Key, Variable]) -> list[str]:
    """BootOrder as the names of the variables that it points at."""
    data = variables["BootOrder", GLOBAL].data
    return [f"Boot{number:04X}" for (number,) in struct.iter_unpack("<H", data)]


def boot_entries(variables: dict[Key, Variable]) -> dict[str, Variable]:
    """The Boot#### variables."""
    return {name: variable for (name, guid), variable in variables.items()
            if guid == GLOBAL and len(name) == 8 and name.startswith("Boot")
            and all(digit in "0123456789ABCDEF" for digit in name[4:])}
