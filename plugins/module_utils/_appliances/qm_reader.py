# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of a VM on Proxmox VE, read out of an archive: which machine the disks in it are of.

What is in it is no program for anybody: options of QEMU, hooks and passwords are passed over.
"""

from __future__ import annotations

import re
from typing import Dict, List, Mapping, Sequence, Tuple
from urllib.parse import unquote

from .machine import Disk, Machine, Nic
from .qm_words import DEFAULT_MEMORY_MB, EFI_DISK, MAP, NIC_MODELS, OWN_COMMENTS, PLACES, TPM_STATE, device_of
from .refusals import printable, quoted, refused

# None of them finds its end in two ways: a file of somebody else's is read in time that grows with its length.
_KEY = re.compile(r"[a-z][a-z0-9_]*")
_DRIVE = re.compile(rf"({'|'.join(PLACES)})(\d{{1,4}})")
_MAP = re.compile(re.escape(MAP) + r"([^:\s]+):([^:\s]+):\S*:")
_NIC = re.compile(r"net(\d{1,4})")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_OF_HOST = re.compile(r"(hostpci|usb|virtiofs|ivshmem)\d*|args|hookscript")
_ARCHITECTURES = ("x86_64", "aarch64")
_MOST_CPUS, _MOST_MEMORY_MB = 4096, 64 << 20
_DIGITS = 9  # of a number that is looked at
_MIB = 1 << 20
_SYSTEMS = {"l": "Linux", "w": "Microsoft Windows", "solaris": "Solaris"}  # by what `ostype` begins with


def read_config(text: bytes, devices: Mapping[str, int], name: str, where: str) -> Machine:
    """`devices`: sizes of what is in the archive, by name; `name`: of a machine that has none. Each disk's file is the
    name of its device, and the first one is booted from. Raises `invalid_config`.
    """
    return _Config(text, where).machine(devices, name)


class _Config:
    def __init__(self, text: bytes, where: str) -> None:
        self._where = where
        self._values: Dict[str, str] = {}
        self._devices: Dict[str, str] = {}  # by drive
        self._notes: List[str] = []
        self._warnings: List[str] = []
        for line in text.decode("utf-8", "replace").replace("\r\n", "\n").split("\n"):
            if line.startswith("["):  # what follows is of its snapshots
                break
            self._take(printable(line))

    def machine(self, devices: Mapping[str, int], name: str) -> Machine:
        first = self._first_of("machine", "type")
        firmware = "uefi" if self._values.get("bios") == "ovmf" else "bios"
        architecture = self._values.get("arch", "x86_64")
        if architecture not in _ARCHITECTURES:
            raise refused(self._where, f"is of a machine with processors {quoted(architecture)}")
        secure = firmware == "uefi" and self._properties(EFI_DISK).get("pre-enrolled-keys") == "1"
        # Only one of them has what QEMU's firmware needs for Secure Boot, wherever it is not Proxmox VE's own.
        chipset = "q35" if "q35" in first or secure else "pc"
        self._tell_left_out()
        return Machine(
            name=self._values.get("name", name),
            cpus=self._cpus(),
            memory=self._number("memory", "current", DEFAULT_MEMORY_MB, _MOST_MEMORY_MB) * _MIB,
            disks=tuple(self._disks(devices, chipset)),
            nics=tuple(self._nics()),
            firmware=firmware,
            secure_boot=secure,
            tpm=TPM_STATE in self._values,
            os_name=self._system(),
            architecture=architecture,
            machine=chipset if architecture == "x86_64" else "",
            annotation="\n".join(self._notes),
            removable=tuple("cdrom" for _drive in self._cdroms()),
            warnings=tuple(self._warnings),
        )

    def _take(self, line: str) -> None:
        mapped = _MAP.fullmatch(line)
        if mapped:
            self._devices[mapped[1]] = mapped[2]
        elif line.startswith("#") and not line.startswith(OWN_COMMENTS):
            self._notes += map(printable, unquote(line[1:]).split("\n"))
        key, _colon, value = line.partition(":")
        if _KEY.fullmatch(key) and value.strip():
            self._values[key] = value.strip()

    def _properties(self, key: str, default_key: str = "") -> Dict[str, str]:
        """Of `a,b=c`: the first has the name `default_key` if it has none."""
        found: Dict[str, str] = {}
        for number, one in enumerate(self._values.get(key, "").split(",")):
            name, equals, value = one.partition("=")
            if equals:
                found[name] = value
            elif one and not number:
                found[default_key] = one
        return found

    def _first_of(self, key: str, default_key: str) -> str:
        return self._properties(key, default_key).get(default_key, "")

    def _number(self, key: str, default_key: str, default: int, most: int) -> int:
        text = self._first_of(key, default_key) or str(default)
        is_number = text.isascii() and text.isdigit() and len(text) <= _DIGITS
        if not is_number or not 0 < int(text) <= most:
            raise refused(self._where, f"says {key} is {quoted(text)}, which is no number of any")
        return int(text)

    def _cpus(self) -> int:
        most = self._number("sockets", "", 1, _MOST_CPUS) * self._number("cores", "", 1, _MOST_CPUS)
        return self._number("vcpus", "", most, _MOST_CPUS)

    def _system(self) -> str:
        kind = self._values.get("ostype", "")
        known = (name for start, name in _SYSTEMS.items() if kind.startswith(start) and kind.isalnum())
        return next((f"{name} ({kind})" for name in known), "")

    # --- disks ------------------------------------------------------------------------------------------------------

    def _drives(self) -> Sequence[str]:
        """In the order in which Proxmox VE looks for one to boot from."""
        order = list(PLACES)
        found = [match for match in map(_DRIVE.fullmatch, self._values) if match]
        return [match[0] for match in sorted(found, key=lambda match: (order.index(match[1]), int(match[2])))]

    def _cdroms(self) -> Sequence[str]:
        return [drive for drive in self._drives() if self._properties(drive).get("media") == "cdrom"]

    def _disks(self, devices: Mapping[str, int], chipset: str) -> List[Disk]:
        cdroms = self._cdroms()
        found: List[Tuple[str, str]] = []  # drives and devices
        for drive in self._drives():
            device = self._devices.get(drive, device_of(drive))
            if drive in cdroms:
                if "cloudinit" in self._first_of(drive, "file"):
                    self._warnings.append(f"{drive} was made by Proxmox VE for cloud-init: it is an empty drive now.")
            elif device in devices:
                found.append((drive, device))
            else:
                self._warnings.append(f"{drive} is not in the archive: the VM is made without it.")
        boot = self._boot([drive for drive, _device in found])
        found.sort(key=lambda one: one[0] != boot)
        self._insist_on_all(devices, [device for _drive, device in found])
        return [self._disk(drive, device, devices[device], chipset) for drive, device in found]

    def _disk(self, drive: str, device: str, size: int, chipset: str) -> Disk:
        bus = drive.rstrip("0123456789")
        if bus == "ide" and chipset == "q35":  # there, what is called so is on the ports of AHCI
            bus = "sata"
        return Disk(drive, device, size, "raw", bus)

    def _boot(self, drives: Sequence[str]) -> str:
        """The first disk of those that it is booted from; that Proxmox VE would find, where none is said."""
        order = self._properties("boot").get("order", self._values.get("bootdisk", ""))
        known = frozenset(drives)
        return next((drive for drive in [*order.split(";"), *drives] if drive in known), "")

    def _insist_on_all(self, devices: Mapping[str, int], used: Sequence[str]) -> None:
        if len(set(used)) != len(used):
            raise refused(self._where, "has two drives with the data of one")
        own = {self._devices.get(drive, device_of(drive)) for drive in (EFI_DISK, TPM_STATE)}
        for device in devices:
            if device in own:
                text = f"{device} is left behind: what it holds, only the machine on Proxmox VE knows."
                self._warnings.append(text)
            elif device not in used:
                raise refused(self._where, f"has a disk {quoted(device)} that its configuration says nothing of")
        if not used:
            raise refused(self._where, "has no disk", "An archive of a VM without disks holds nothing to be imported.")

    # --- the rest ---------------------------------------------------------------------------------------------------

    def _nics(self) -> List[Nic]:
        found = [match for match in map(_NIC.fullmatch, self._values) if match]
        return [self._nic(match[0]) for match in sorted(found, key=lambda match: int(match[1]))]

    def _nic(self, key: str) -> Nic:
        values = self._properties(key, "model")
        model = next((name for name in (values.get("model", ""), *values) if name.lower() in NIC_MODELS), "")
        mac = values.get("macaddr") or values.get(model, "")
        network = values.get("bridge", "")
        if "tag" in values:
            text = f"{key} was in the VLAN {quoted(values['tag'])} of {quoted(network)}: see to it that it is again."
            self._warnings.append(text)
        return Nic(key, network, NIC_MODELS.get(model.lower(), ""), mac if _MAC.fullmatch(mac) else "")

    def _tell_left_out(self) -> None:
        left = [key for key in self._values if _OF_HOST.fullmatch(key) and not self._is_spice(key)]
        if left:
            text = f"Left behind, since they belong to the host that it was on: {', '.join(sorted(left))}."
            self._warnings.append(text)

    def _is_spice(self, key: str) -> bool:
        """A port for whoever looks at its screen."""
        return "spice" in (self._first_of(key, "host"), self._values[key])
