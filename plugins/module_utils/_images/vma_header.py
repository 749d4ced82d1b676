# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The header of a VMA, Proxmox VE's archive of a VM: its configuration, and which disks there are.

https://git.proxmox.com/?p=pve-qemu.git (vma_spec.txt, vma.h). Numbers are big-endian, but for the lengths of blobs.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from typing import Dict, List, Mapping, NoReturn, Sequence, Tuple, Union

CLUSTER = 65536
HEADER = 12288  # bytes in front of the blobs
MAGIC = b"VMA\0"
VM_STATE = "vmstate"  # the device that is no disk: the guest's memory
LARGEST_HEADER = 64 << 20  # bytes; twice what all blobs there can be take
MOST_DEVICES, MOST_CONFIGS = 255, 256
_MOST_BLOBS = 2 * MOST_CONFIGS + MOST_DEVICES  # names and files
LARGEST_BLOB = 65535
_START = struct.Struct(">4sI16sQ16sIII")
_SUM = slice(32, 48)
_NAMES_AT, _DATA_AT, _DEVICES_AT = 2044, 3068, 4096
_DEVICE = struct.Struct(">IIQ16x")
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,200}")
_SECTOR = 512


class NoVma(Exception):
    """What is wrong with it, to end a sentence that begins with its name."""


@dataclass(frozen=True)
class VmaDevice:
    """`number` is from 1 on. `size`: bytes, of whole sectors."""

    number: int
    name: str
    size: int

    @property
    def clusters(self) -> int:
        return -(-self.size // CLUSTER)


@dataclass(frozen=True)
class VmaHeader:
    """`created`: seconds since the epoch. `configs`: files by their names, `qemu-server.conf` among them."""

    uuid: bytes
    created: int
    configs: Mapping[str, bytes]
    devices: Tuple[VmaDevice, ...]

    @property
    def disks(self) -> Tuple[VmaDevice, ...]:
        return tuple(device for device in self.devices if device.name != VM_STATE)

    def pack(self) -> bytes:
        """Raises `NoVma` for what has no room in it."""
        blobs = bytearray(1)  # no blob is at 0, which stands for none
        header = bytearray(HEADER)
        if len(self.configs) > MOST_CONFIGS:
            _flaw(f"has {len(self.configs)} files, and room for {MOST_CONFIGS}")
        for number, (name, data) in enumerate(self.configs.items()):
            struct.pack_into(">I", header, _NAMES_AT + 4 * number, _put(blobs, _checked(name) + b"\0"))
            struct.pack_into(">I", header, _DATA_AT + 4 * number, _put(blobs, data))
        for device in self.devices:
            if not 0 < device.number <= MOST_DEVICES or device.size % _SECTOR or not device.size:
                _flaw(f"has no room for {device.name} as its device {device.number}, of {device.size} bytes")
            name_at = _put(blobs, _checked(device.name) + b"\0")
            _DEVICE.pack_into(header, _DEVICES_AT + _DEVICE.size * device.number, name_at, 0, device.size)
        blobs += bytes(-len(blobs) % _SECTOR)
        size = HEADER + len(blobs)
        _START.pack_into(header, 0, MAGIC, 1, self.uuid, self.created, bytes(16), HEADER, len(blobs), size)
        whole = header + blobs
        whole[_SUM] = _md5(whole)
        return bytes(whole)

    @classmethod
    def unpack(cls, data: bytes) -> VmaHeader:
        """`data`: as many bytes as `header_size` said. Raises `NoVma`."""
        _magic, _version, uuid, created, digest, blobs_at, blobs_size, size = _START.unpack_from(data)
        if _md5(data[: _SUM.start], bytes(16), memoryview(data)[_SUM.stop :]) != digest:
            _flaw("has a header whose checksum is wrong")
        if blobs_at < HEADER or blobs_at + blobs_size > size:
            _flaw("has its names outside of its header")
        blobs = _blobs(data[blobs_at : blobs_at + blobs_size])
        return cls(uuid, created, _configs(data, blobs), tuple(_devices(data, blobs)))


def header_size(start: bytes) -> int:
    """Of the first HEADER bytes. Raises `NoVma`."""
    if len(start) < HEADER or not start.startswith(MAGIC):
        _flaw("is no VMA")
    _magic, version, *_unused, size = _START.unpack_from(start)
    if version != 1:
        _flaw(f"is a VMA of version {version}")
    if not HEADER < size <= LARGEST_HEADER:
        _flaw(f"has a header of {size} bytes")
    return int(size)


def _flaw(what: str) -> NoReturn:
    raise NoVma(what)


def _md5(*pieces: Union[bytes, bytearray, memoryview]) -> bytes:
    found = hashlib.new("md5", usedforsecurity=False)
    for piece in pieces:
        found.update(piece)
    return found.digest()


def _put(blobs: bytearray, data: bytes) -> int:
    at = len(blobs)
    if len(data) > LARGEST_BLOB:
        _flaw(f"has a file of {len(data)} bytes, and room for {LARGEST_BLOB}")
    blobs += struct.pack("<H", len(data)) + data
    return at


def _blobs(data: bytes) -> Dict[int, bytes]:
    """By where they begin: one behind the other, as many as anything can refer to. A blob may be empty, so that each
    two bytes of zeros are one.
    """
    found: Dict[int, bytes] = {}
    at = 1
    while at + 2 <= len(data) and len(found) < _MOST_BLOBS:
        (length,) = struct.unpack_from("<H", data, at)
        if at + 2 + length <= len(data):
            found[at] = data[at + 2 : at + 2 + length]
        at += 2 + length
    return found


def _name(blobs: Mapping[int, bytes], at: int, what: str) -> str:
    blob = blobs.get(at, b"")
    name = blob[:-1].decode("ascii", "replace")
    if not blob.endswith(b"\0") or not _NAME.fullmatch(name):
        _flaw(f"has {what} without a name, or with one that is none")
    return name


def _checked(name: str) -> bytes:
    if not _NAME.fullmatch(name):
        _flaw(f"has no room for the name {name[:200]!r}")
    return name.encode()


def _configs(data: bytes, blobs: Mapping[int, bytes]) -> Dict[str, bytes]:
    found: Dict[str, bytes] = {}
    places = zip(_words(data, _NAMES_AT, MOST_CONFIGS), _words(data, _DATA_AT, MOST_CONFIGS))
    for name_at, data_at in places:
        if name_at and data_at:
            name = _name(blobs, name_at, "a file")
            if name in found or data_at not in blobs:
                _flaw(f"has the file {name} twice, or not at all")
            found[name] = blobs[data_at]
    return found


def _devices(data: bytes, blobs: Mapping[int, bytes]) -> Sequence[VmaDevice]:
    found: List[VmaDevice] = []
    for number in range(1, MOST_DEVICES + 1):
        name_at, _reserved, size = _DEVICE.unpack_from(data, _DEVICES_AT + _DEVICE.size * number)
        if not name_at or not size:
            continue
        name = _name(blobs, name_at, "a disk")
        if size % _SECTOR or size > CLUSTER << 32:
            _flaw(f"has a disk {name} of {size} bytes")
        if name in (device.name for device in found):
            _flaw(f"has the disk {name} twice")
        found.append(VmaDevice(number, name, size))
    return found


def _words(data: bytes, at: int, count: int) -> Tuple[int, ...]:
    return struct.unpack_from(f">{count}I", data, at)
