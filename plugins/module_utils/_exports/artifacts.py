# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Artifact Manifest 1.0 as other tools write it: a VM in few words, and the images of its disks beside it.

https://github.com/ssahani/hypersdk, manifest/types.go, and what https://github.com/ssahani/hyper2kvm reads of it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple

from .._errors import VmferryError
from .fields import Fields, lie

NAMES = ("manifest.json", "artifact-manifest.json")  # what tools call it
LIMIT = 4 * 1024 * 1024  # bytes
VERSION = "1.0"
FORMATS = ("vmdk", "qcow2", "raw", "vhd", "vhdx", "vdi")
MOST_DISKS = 256
MOST_CARDS = 64
MOST_CPUS = 4096
MOST_GIB = 64 * 1024
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_CHECKSUM = re.compile(r"sha256:([0-9a-fA-F]{64})")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_FIRMWARE = {"bios": "bios", "uefi": "uefi", "efi": "uefi"}  # the last is vSphere's own word, which is passed on
_HINT = "Have it written again by the tool that made it; Artifact Manifest 1.0 is what is read."


@dataclass(frozen=True)
class ArtifactDisk:
    """`bytes` are of the file with some tools, and of the disk with others. `sha256`, in hex, is of the file."""

    id: str
    file: str  # a name beside the manifest
    format: str
    bytes: int
    sha256: str = ""
    hint: Optional[int] = None  # 0 boots first
    kind: str = "unknown"  # boot, data, unknown


@dataclass(frozen=True)
class ArtifactCard:
    id: str
    mac: str  # aa:bb:cc:dd:ee:ff, or empty
    network: str


@dataclass(frozen=True)
class Artifacts:
    """Numbers that are 0 and texts that are empty are not told. The first of `disks` is the one that boots."""

    name: str
    cpus: int
    memory: int  # bytes
    firmware: str  # bios, uefi
    secure_boot: bool
    os_name: str
    disks: Tuple[ArtifactDisk, ...]
    cards: Tuple[ArtifactCard, ...]
    warnings: Tuple[str, ...]


def is_of_others(text: bytes) -> bool:
    """Whether it is such a manifest, and not one of ours, which is one too."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "manifest_version" in found and "x_vmferry" not in found


def read_artifacts(text: bytes, where: str) -> Artifacts:
    """`where`: its address. Raises `invalid_config`, and `unsupported` for another version."""
    try:
        return _read(Fields(_without_nulls(dict(Fields.parse(text, where).all())), where), where)
    except VmferryError as error:
        raise VmferryError(error.kind, error.message, error.hint if error.kind == "unsupported" else _HINT) from error


def _read(document: Fields, where: str) -> Artifacts:
    version = document.text("manifest_version")
    if version != VERSION:
        raise VmferryError(
            "unsupported",
            f"{where} is an Artifact Manifest of the version {version[:20]!r}; {VERSION} is what is read.",
            f"Have it written as version {VERSION}, or import its images one by one.",
        )
    disks = [_read_disk(disk) for disk in document.objects("disks")]
    cards = [_read_card(card) for card in document.objects("nics")]
    if not 0 < len(disks) <= MOST_DISKS:
        raise lie(where, f"has {len(disks)} disks")
    if len(cards) > MOST_CARDS:
        raise lie(where, f"has {len(cards)} network cards")
    if len({disk.id for disk in disks}) != len(disks):
        raise lie(where, "names a disk twice")
    vm = _section(document, "vm", where)
    firmware, warnings = _firmware(vm)
    ordered, deduced = boot_order(disks)
    return Artifacts(
        name=_section(document, "source", where).text("vm_name", ""),
        cpus=_at_most(vm, "cpu", MOST_CPUS),
        memory=_at_most(vm, "mem_gb", MOST_GIB) << 30,
        firmware=firmware,
        secure_boot=vm.truth("secureboot", False),
        os_name=vm.text("os_version", "") or vm.text("os_hint", ""),
        disks=ordered,
        cards=tuple(cards),
        warnings=(*warnings, *deduced, *_left_undone(document, where)),
    )


def boot_order(disks: Sequence[ArtifactDisk]) -> Tuple[Tuple[ArtifactDisk, ...], Tuple[str, ...]]:
    """The disk that boots, then the others by their hints; and a sentence where that had to be deduced.

    Hypersdk leaves out what is 0, the hint of the disk that boots (`omitempty`), so a reader that takes a missing one
    for the last boots from a data disk. Here a missing one is 0, unless another disk says 0 or is said to boot.
    """

    def rank(disk: ArtifactDisk) -> Tuple[bool, bool, int]:
        return (disk.hint != 0, disk.kind != "boot", disk.hint or 0)

    first = min(disks, key=rank)
    others = [disk for disk in disks if disk is not first]
    others.sort(key=lambda disk: (disk.hint is None, disk.hint or 0))
    if first.hint == 0 or not others:
        return (first, *others), ()
    why = "it is said to boot" if first.kind == "boot" else "no other is said to come before it"
    return (first, *others), (f"No disk has the boot_order_hint 0; {first.id} is the first, since {why}.",)


def _read_disk(disk: Fields) -> ArtifactDisk:
    found = disk.text("id")
    if not _ID.fullmatch(found):
        raise disk.lie("cannot be trusted: id is not made of letters, digits, _ and -")
    checksum = _CHECKSUM.fullmatch(disk.text("checksum", "")) if disk.text("checksum", "") else None
    if disk.text("checksum", "") and checksum is None:
        raise disk.lie("cannot be trusted: checksum is not sha256: and 64 hexadecimal digits")
    return ArtifactDisk(
        id=found,
        file=re.split(r"[/\\]", disk.text("local_path"))[-1],
        format=disk.one_of("source_format", *FORMATS),
        bytes=disk.number("bytes"),
        sha256=checksum[1].lower() if checksum is not None else "",
        hint=disk.number("boot_order_hint") if "boot_order_hint" in disk.all() else None,
        kind=disk.one_of("disk_type", "boot", "data", "unknown") if disk.text("disk_type", "") else "unknown",
    )


def _read_card(card: Fields) -> ArtifactCard:
    mac = card.text("mac", "").lower().replace("-", ":")
    if mac and not _MAC.fullmatch(mac):
        raise card.lie("cannot be trusted: mac is not a MAC address")
    return ArtifactCard(card.text("id", ""), mac, card.text("network", ""))


def _firmware(vm: Fields) -> Tuple[str, Tuple[str, ...]]:
    told = vm.text("firmware", "")
    if told not in ("", "unknown", *_FIRMWARE):
        raise vm.lie("cannot be trusted: firmware is none of bios, uefi, unknown")
    if told in _FIRMWARE:
        return _FIRMWARE[told], ()
    return "bios", ("It is not told whether the VM boots from BIOS or UEFI; BIOS is taken. See placement.firmware.",)


def _left_undone(document: Fields, where: str) -> List[str]:
    """What the manifest asks for besides, of whoever converts the disks."""
    fix = Fields(_section(document, "pipeline", where).mapping("fix"), f"{where}: pipeline.fix")
    if fix.truth("enabled", False) or document.mapping("configuration"):
        return ["The manifest asks for changes inside the guest (fix, configuration). None are made here."]
    return []


def _section(document: Fields, key: str, where: str) -> Fields:
    return Fields(document.mapping(key), f"{where}: {key}")


def _at_most(section: Fields, key: str, most: int) -> int:
    found = section.number(key, 0)
    if found > most:
        raise section.lie(f"cannot be trusted: {key} is {found}")
    return found


def _without_nulls(value: Any) -> Any:
    """What is null is not told. Never deeper than `Fields.parse` lets pass."""
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value
