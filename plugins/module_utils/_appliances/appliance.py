# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An appliance, opened: its descriptor read and compared with its checksum, every file it names found."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import List, Optional

from .checksums import CheckedMember, Checksums
from .documents import MAX_DOCUMENT
from .machine import Disk, Machine
from .ovf_reader import read_descriptor
from .packages import Member, Package
from .refusals import not_supported, quoted, refused

_DESCRIPTOR, _MANIFEST = ".ovf", ".mf"


@dataclass(frozen=True)
class Appliance:
    """`proves`: whether there are checksums; a signature (`.cert`) is looked at by nobody."""

    where: str
    identity: str  # of its content, as far as its descriptor and its checksums tell
    machine: Machine
    package: Package
    checksums: Checksums

    @property
    def proves(self) -> bool:
        return self.checksums.is_there

    def member(self, disk: Disk) -> Member:
        return self.package.members[disk.file]

    def watched(self, disk: Disk) -> CheckedMember:
        """Its file, of which nothing is given out that was not compared with its checksum."""
        return self.checksums.watching(self.member(disk))


def open_appliance(package: Package) -> Appliance:
    """Raises `invalid_config`, `unsupported`, and `checksum_mismatch`."""
    where = package.where
    found = [member for name, member in package.members.items() if name.lower().endswith(_DESCRIPTOR)]
    if len(found) != 1:
        raise refused(where, f"has {len(found)} descriptors (.ovf), not one")
    descriptor = found[0]
    manifest = _manifest(package, descriptor)
    checksums = Checksums(package, manifest)
    checksums.insist_on(descriptor.name)
    text = descriptor.whole(MAX_DOCUMENT, where)
    checksums.check(descriptor.name, text)
    machine = read_descriptor(text, f"{where}: its descriptor {quoted(descriptor.name)}")
    _insist_on_files(machine, package, checksums)
    own = [descriptor, *([manifest] if manifest is not None else [])]
    package = package.only({*(member.name for member in own), *(disk.file for disk in machine.disks)})
    return Appliance(where, identity_of(text, package, checksums), machine, package, checksums)


def _manifest(package: Package, descriptor: Member) -> Optional[Member]:
    """It has the descriptor's name (DSP0243, 5.1)."""
    found: List[Member] = [member for name, member in package.members.items() if name.lower().endswith(_MANIFEST)]
    stem = descriptor.name[: -len(_DESCRIPTOR)]
    if len(found) > 1 or any(member.name[: -len(_MANIFEST)] != stem for member in found):
        raise refused(package.where, f"has a list of checksums that is not called {quoted(stem + _MANIFEST)}")
    return found[0] if found else None


def identity_of(descriptor: bytes, package: Package, checksums: Checksums) -> str:
    told = [f"{name} {member.size} {checksums.told(name)}" for name, member in sorted(package.members.items())]
    return f"appliance-{sha256(descriptor + chr(0).join(told).encode()).hexdigest()[:24]}"


def _insist_on_files(machine: Machine, package: Package, checksums: Checksums) -> None:
    seen = set()
    for disk in machine.disks:
        if not disk.file:
            continue
        if disk.file not in package.members:
            hint = "A .ova has all files in it; beside a .ovf they lie in its folder."
            if disk.file.lower().endswith(".gz"):
                raise not_supported(package.where, f"has a compressed disk {quoted(disk.file)}", "Unpack it first.")
            raise refused(package.where, f"names the file {quoted(disk.file)}, which is not there", hint)
        if disk.file in seen:
            raise refused(package.where, f"has two disks in one file {quoted(disk.file)}")
        checksums.insist_on(disk.file)
        seen.add(disk.file)
