# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of a machine in an archive of Proxmox VE: what its `qmrestore` makes the VM of.

https://git.proxmox.com/?p=qemu-server.git (PVE/QemuServer.pm, restore_vma_archive): the names of volumes are
placeholders there, and `#qmdump#map` says which disk of the archive becomes which drive. Lines that begin with # are
its notes.
"""

from __future__ import annotations

import re
from typing import Dict, Iterable, Iterator, List, Sequence, Tuple
from urllib.parse import quote

from .machine import Machine, Nic
from .qm_words import DEFAULT_BRIDGE, MAP, NIC_MODELS, PLACES, device_of
from .refusals import not_supported

_NO_NAME = re.compile(r"[^A-Za-z0-9-]+")
_BRIDGE = re.compile(r"vmbr\d{1,4}")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_LONGEST_NAME = 63
_CDROM = "ide2"  # where Proxmox VE has it
_ANY_BUS, _ANY_NIC = "scsi", "e1000"
_MOST_NOTES = 8000  # bytes; there are 8 KiB for them
_PRINTABLE = " :/@()!?;'+~*"


def drives_of(machine: Machine) -> List[str]:
    """Of its disks, in their order. Raises `unsupported` where there are more than Proxmox VE has places for."""
    taken: Dict[str, int] = {"ide": 0}
    found = []
    for disk in machine.disks:
        bus = disk.bus if disk.bus in PLACES else _ANY_BUS
        if bus != _ANY_BUS and taken.get(bus, 0) >= PLACES[bus]:
            bus = _ANY_BUS
        number = taken.get(bus, 0)
        if number >= PLACES[bus]:
            raise not_supported("An archive of Proxmox VE", f"has no places for {len(machine.disks)} disks")
        taken[bus] = number + 1
        found.append(f"{bus}{number}")
    return found


def write_config(machine: Machine) -> bytes:
    """ASCII, as `vzdump` leaves it: notes, then values by their names, then which disk is which."""
    drives = drives_of(machine)
    lines = list(_fitting(f"#{quote(note, safe=_PRINTABLE)}" for note in _notes(machine)))
    lines += [f"{key}: {value}" for key, value in sorted(_values(machine, drives))]
    lines += [f"{MAP}{drive}:{device_of(drive)}::raw:" for drive in drives]
    return "".join(f"{line}\n" for line in lines).encode()


def _values(machine: Machine, drives: Sequence[str]) -> Iterator[Tuple[str, str]]:
    yield "name", _NO_NAME.sub("-", machine.name)[:_LONGEST_NAME].strip("-") or "vm"
    yield "cores", str(machine.cpus)
    yield "memory", str(max(16, -(-machine.memory >> 20)))
    yield "ostype", "win10" if "windows" in machine.os_name.lower() else "l26" if _is_linux(machine) else "other"
    if machine.firmware == "uefi":
        yield "bios", "ovmf"
    if machine.architecture == "aarch64":
        yield "arch", "aarch64"
    elif "q35" in machine.machine:
        yield "machine", "q35"
    for number, (drive, disk) in enumerate(zip(drives, machine.disks)):
        # Which volume it becomes, and where, says whoever restores it.
        yield drive, f"local:0/disk-{number}.raw,size={-(-disk.capacity // 1024)}K"
        if drive.startswith("scsi") and not any(one.startswith("scsi") for one in drives[:number]):
            yield "scsihw", "virtio-scsi-pci"
    has_cdrom = "cdrom" in machine.removable and _CDROM not in drives
    if has_cdrom:
        yield _CDROM, "none,media=cdrom"
    yield "boot", f"order={';'.join([*drives[:1], *([_CDROM] if has_cdrom else [])])}"
    for number, nic in enumerate(machine.nics):
        yield f"net{number}", f"{_model(nic)}{f'={nic.mac}' if _MAC.fullmatch(nic.mac) else ''},bridge={_bridge(nic)}"


def _is_linux(machine: Machine) -> bool:
    name = machine.os_name.lower()
    known = ("linux", "debian", "ubuntu", "centos", "rhel", "red hat", "fedora", "suse", "alma", "rocky", "alpine")
    return any(word in name for word in known)


def _notes(machine: Machine) -> Iterator[str]:
    """What the values have no words for, so that whoever restores it knows."""
    for number, nic in enumerate(machine.nics):
        if _bridge(nic) != nic.network:
            yield f"net{number} was in the network {nic.network}."
    if machine.firmware == "uefi":
        secure = ", with Secure Boot" if machine.secure_boot else ""
        yield f"It boots by UEFI{secure}: add an EFI disk, its variables are not in the archive."
    if machine.tpm:
        yield "It had a TPM, whose state is not in the archive."
    yield from machine.annotation.splitlines()


def _fitting(lines: Iterable[str]) -> Iterator[str]:
    """The first of them, as many as Proxmox VE keeps."""
    left = _MOST_NOTES
    for line in lines:
        left -= len(line) + 1
        if left < 0:
            return
        yield line


def _model(nic: Nic) -> str:
    return nic.model.lower() if nic.model.lower() in NIC_MODELS else _ANY_NIC


def _bridge(nic: Nic) -> str:
    return nic.network if _BRIDGE.fullmatch(nic.network) else DEFAULT_BRIDGE
