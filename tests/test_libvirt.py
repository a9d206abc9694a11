"""Guests of a real libvirtd, their firmware and variables in the mount."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.libvirtd import QEMU_GID, QEMU_UID, Libvirtd
from support.mounting import Mounter
from support.ovmf import DESCRIPTORS, OVMF_CODE, OVMF_COMBINED, OVMF_VARS, changed_blocks
from support.program import Fwfs
from support.varstore import read_variables

GUID = "12345678-1234-1234-1234-123456789abc"
WRITE = f'setvar fwfs -guid {GUID} -nv -bs -rt =L"kept"'
READ = f"setvar fwfs -guid {GUID}"
KEPT = "6B 00 65 00 70 00 74 00"  # what the shell shows of L"kept"
ABSENT = "Unable to get"

# What a name may hold and XML, or libvirt, might stumble over.
ODD_NAME = "büro ☕ <a href='x'> & \"]]>\" %s\u202e"
OWNER = f"{QEMU_UID}:{QEMU_GID}"
LABELS = "trusted.libvirt.security."

DomainOf = Callable[..., str]


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that QEMU's user reaches, unlike pytest's, with a short path for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="fwfs-", dir="/srv"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def mount(fwfs: Fwfs, fwfs_bin: Path, public: Path) -> Iterator[Mounter]:
    mounter = Mounter(fwfs, fwfs_bin, public / "fw")
    yield mounter
    mounter.finish()


@pytest.fixture
def fw(fwfs: Fwfs, mount: Mounter) -> Path:
    """A mount with guests of every mode. libvirt gives a guest its nvram, but no loader."""
    fwfs("firmware", "import", *sorted(DESCRIPTORS.glob("[56]0-edk2-x86_64*.json")),
         DESCRIPTORS / "60-edk2-aarch64.json")
    fwfs("firmware", "add", "combined", "--mode", "combined", "--executable", OVMF_COMBINED)
    fwfs("firmware", "add", "stateless", "--mode", "stateless", "--executable", OVMF_COMBINED)
    fwfs("guest", "add", "--firmware", "60-edk2-x86_64", "split", ODD_NAME)
    fwfs("guest", "add", "--firmware", "60-edk2-x86_64", "--owner", OWNER, "other")
    fwfs("guest", "add", "--firmware", "50-edk2-x86_64-secure", "secure")
    fwfs("guest", "add", "--firmware", "60-edk2-aarch64", "arm")
    for mode in ("combined", "stateless"):
        fwfs("guest", "add", "--firmware", mode, "--owner", OWNER, mode)
    return mount()


@pytest.fixture
def domain_of(fwfs: Fwfs, fw: Path) -> DomainOf:
    def print_domain(guest: str, virt_type: str = "qemu") -> str:
        return fwfs("guest", "libvirt", guest, "--mountpoint", fw, "--virt-type", virt_type).stdout

    return print_domain


@pytest.fixture(scope="session")
def libvirt_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("libvirt-cache")


@pytest.fixture
def libvirtd(fw: Path, public: Path, libvirt_cache: Path) -> Iterator[Libvirtd]:
    with Libvirtd(public / "libvirt", libvirt_cache) as server:
        yield server


def labels(file: Path) -> dict[str, bytes]:
    """What libvirt remembers of a file that it gave to QEMU."""
    return {name.removeprefix(LABELS): os.getxattr(file, name) for name in os.listxattr(file)
            if name.startswith(LABELS)}


def owner(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_uid, status.st_gid, status.st_mode


# ---- The document ----


@pytest.mark.parametrize("virt_type", ["kvm", "qemu"])
def test_domains_are_valid(domain_of: DomainOf, tmp_path: Path, virt_type: str) -> None:
    for guest in ("split", "secure", "combined", "stateless", "arm", ODD_NAME):
        file = tmp_path / "domain.xml"
        file.write_text(domain_of(guest, virt_type))
        done = subprocess.run(["virt-xml-validate", file, "domain"], capture_output=True, text=True,
                              check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert ElementTree.parse(file).findtext("name") == guest


def test_libvirt_keeps_what_the_modes_say(libvirtd: Libvirtd, domain_of: DomainOf,
                                          fw: Path) -> None:
    """It makes up no nvram, and the names come out as they went in."""
    for guest in ("split", "combined", "stateless", ODD_NAME):
        libvirtd.define(domain_of(guest))
        system = ElementTree.fromstring(libvirtd.virsh("dumpxml", guest)).find("os")
        assert system.findtext("loader") == f"{fw}/{guest}/code"
        has_vars = (fw / guest / "vars").exists()
        assert system.findtext("nvram") == (f"{fw}/{guest}/vars" if has_vars else None)
    assert libvirtd.virsh("list", "--all", "--name").splitlines() == sorted(
        ["split", "combined", "stateless", ODD_NAME])


# ---- Running ----


def test_split_guest_keeps_its_variables_until_a_reset(libvirtd: Libvirtd, domain_of: DomainOf,
                                                       fw: Path) -> None:
    libvirtd.define(domain_of("split"))
    for options, command, answer in (([], WRITE, ""), ([], READ, KEPT),
                                     (["--reset-nvram"], READ, ABSENT)):
        shell = libvirtd.start("split", *options)
        shell.boot()
        assert answer in shell.run(command)
        assert owner(fw / "split" / "vars") == (QEMU_UID, QEMU_GID, 0o100600)
        libvirtd.virsh("destroy", "split")
    assert sorted(os.listdir(fw / "split")) == ["code", "firmware.json", "guest.json", "vars"]
    names = {name for name, _ in read_variables((fw / "split" / "vars").read_bytes())}
    assert "BootOrder" in names and "fwfs" not in names


def test_combined_guest_writes_its_loader(libvirtd: Libvirtd, domain_of: DomainOf,
                                          fw: Path) -> None:
    code = fw / "combined" / "code"
    libvirtd.define(domain_of("combined"))
    shell = libvirtd.start("combined")
    shell.boot()
    shell.run(WRITE)
    libvirtd.virsh("destroy", "combined")
    assert ("fwfs", GUID) in {(name, str(guid)) for name, guid in read_variables(code.read_bytes())}
    assert changed_blocks(OVMF_COMBINED.read_bytes(), code.read_bytes())
    # libvirt never labels a loader: whose it is, and whose it stays, the operator says.
    assert owner(code) == (QEMU_UID, QEMU_GID, 0o100600) and not labels(code)
    assert not libvirtd.nvram_files()
    libvirtd.virsh("undefine", "--nvram", "combined")
    assert code.exists()


def test_stateless_guest_forgets(libvirtd: Libvirtd, domain_of: DomainOf, fw: Path) -> None:
    libvirtd.define(domain_of("stateless"))
    shell = libvirtd.start("stateless")
    shell.boot()
    assert ABSENT in shell.run(READ)
    libvirtd.virsh("destroy", "stateless")
    assert (fw / "stateless" / "code").read_bytes() == OVMF_COMBINED.read_bytes()
    assert not libvirtd.nvram_files()


def test_secure_guest_gets_its_smm(libvirtd: Libvirtd, domain_of: DomainOf) -> None:
    """Firmware that requires SMM does not come this far without it."""
    libvirtd.define(domain_of("secure"))
    libvirtd.start("secure").boot()


# ---- What libvirt does to the files ----


@dataclass
class Trail:
    """A file's owner and labels, as they were one after the other."""

    file: Path
    states: list[tuple[tuple[int, int, int], dict[str, bytes]]]

    def note(self) -> None:
        self.states.append((owner(self.file), labels(self.file)))


def test_vars_are_given_and_taken_as_a_plain_file(libvirtd: Libvirtd, domain_of: DomainOf, fw: Path,
                                                  public: Path) -> None:
    plain = public / "plain"
    plain.mkdir()
    shutil.copyfile(OVMF_CODE, plain / "code")
    shutil.copyfile(OVMF_VARS, plain / "vars")
    (plain / "vars").chmod(0o600)
    text = domain_of("split")
    trails = []
    for directory in (plain, fw / "split"):
        nvram = directory / "vars"
        os.chown(nvram, 1234, 5678)
        libvirtd.define(text.replace(str(fw / "split"), str(directory)))
        trail = Trail(nvram, [])
        trail.note()
        libvirtd.virsh("start", "--paused", "split")
        trail.note()
        libvirtd.virsh("destroy", "split")
        trail.note()
        # Made anew, by root: that is the owner it goes back to.
        libvirtd.virsh("start", "--paused", "--reset-nvram", "split")
        trail.note()
        libvirtd.virsh("destroy", "split")
        trail.note()
        libvirtd.virsh("undefine", "--keep-nvram", "split")
        trails.append(trail.states)
    on_plain, on_fwfs = trails
    assert on_fwfs == on_plain
    assert on_fwfs[0] == on_fwfs[2] == ((1234, 5678, 0o100600), {})
    running_owner, running_labels = on_fwfs[1]
    assert running_owner == (QEMU_UID, QEMU_GID, 0o100600)
    assert running_labels.keys() == {"dac", "ref_dac", "timestamp_dac"}
    assert (running_labels["dac"], running_labels["ref_dac"]) == (b"+1234:+5678", b"1")


def test_a_second_guest_on_the_same_vars_is_refused(libvirtd: Libvirtd, domain_of: DomainOf,
                                                    fw: Path) -> None:
    nvram = fw / "split" / "vars"
    libvirtd.define(domain_of("split"))
    libvirtd.define(domain_of("other").replace(f"{fw}/other/vars", str(nvram)))
    shell = libvirtd.start("split")
    shell.boot()
    before = owner(nvram), labels(nvram)
    # libvirt's own open for writing gets EBUSY, before QEMU is there; its words for it vary.
    assert str(nvram) in libvirtd.virsh_fails("start", "other")
    assert (owner(nvram), labels(nvram)) == before
    shell.run(WRITE)
    assert KEPT in shell.run(READ)
    libvirtd.virsh("destroy", "split")
    # Nobody has it any more.
    shell = libvirtd.start("other")
    shell.boot()
    assert KEPT in shell.run(READ)


def test_undefine_takes_the_vars_and_a_start_makes_them(libvirtd: Libvirtd, domain_of: DomainOf,
                                                        fw: Path) -> None:
    nvram = fw / "split" / "vars"
    template = OVMF_VARS.read_bytes()
    with nvram.open("r+b") as file:
        file.write(b"mine")
    libvirtd.define(domain_of("split"))
    libvirtd.virsh("undefine", "--nvram", "split")
    assert not nvram.exists() and (fw / "split" / "code").exists()
    libvirtd.define(domain_of("split"))
    libvirtd.virsh("start", "--paused", "split")
    assert nvram.read_bytes() == template
    assert owner(nvram) == (QEMU_UID, QEMU_GID, 0o100600)


def test_snapshots_that_libvirt_takes(libvirtd: Libvirtd, domain_of: DomainOf, fw: Path,
                                      public: Path) -> None:
    """libvirt 9.0 refuses a snapshot of a guest without disks, an internal one (in the disk's
    qcow2) of a guest with flash, and to go back to an external one. Those that it takes, with a
    disk or with memory in files of their own, hold no variables: the flash is as it was."""
    nvram = fw / "split" / "vars"
    text = domain_of("split")
    libvirtd.define(text)
    assert "nothing selected" in libvirtd.virsh_fails("snapshot-create-as", "split", "no",
                                                      "--disk-only")
    libvirtd.virsh("undefine", "--keep-nvram", "split")
    disk = public / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1M"], check=True)
    libvirtd.define(text.replace("<devices>", f"""<devices><disk type='file'>
        <driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda' bus='virtio'/>
        </disk>"""))
    libvirtd.virsh("start", "--paused", "split")
    before = nvram.read_bytes(), owner(nvram), labels(nvram)
    assert "pflash" in libvirtd.virsh_fails("snapshot-create-as", "split", "internal")
    libvirtd.virsh("snapshot-create-as", "split", "disk", "--disk-only",
                   "--diskspec", f"vda,file={public}/disk.snapshot")
    libvirtd.virsh("snapshot-create-as", "split", "memory",
                   "--memspec", "file=/var/lib/libvirt/qemu/save/memory",
                   "--diskspec", f"vda,file={public}/memory.snapshot")
    assert (nvram.read_bytes(), owner(nvram), labels(nvram)) == before
    libvirtd.virsh("destroy", "split")
    assert "not supported" in libvirtd.virsh_fails("snapshot-revert", "split", "disk")
    libvirtd.virsh("undefine", "--nvram", "--snapshots-metadata", "split")
    assert not nvram.exists()
