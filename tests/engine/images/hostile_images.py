# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that want something of whoever opens them: good ones that QEMU made, and one lie in each."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from ansible_collections.vmferry.migrate.plugins.module_utils._images.crc32c import crc32c

from .disks import KIB, MIB, content, run

SIZE = 4 * MIB
CLUSTER = 64 * KIB
Change = Callable[[bytes], bytes]


def guest() -> bytes:
    """Islands in zeros, the last sector among them, and nothing that compresses to nothing."""
    islands = bytearray(SIZE)
    for offset, length in ((0, 3 * CLUSTER), (2 * MIB + CLUSTER, CLUSTER), (SIZE - CLUSTER, CLUSTER)):
        islands[offset : offset + length] = content(offset, length, 7)
    return bytes(islands)


@cache
def image(format: str, options: str = "", *more: str) -> bytes:
    """As QEMU writes it; `options` as `qemu-img -o` takes them."""
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "source", Path(folder) / "disk.img"
        source.write_bytes(guest())
        chosen = ["-o", options] if options else []
        run("qemu-img", "convert", "-f", "raw", "-O", format, *chosen, *more, source, target)
        return target.read_bytes()


def create(target: Path, format: str, *more: object, options: str = "") -> Path:
    """An empty image with whatever `qemu-img create` can be asked for, also what does not exist."""
    chosen = ["-o", options] if options else []
    subprocess.run(
        [str(word) for word in ("qemu-img", "create", "-q", "-f", format, *chosen, *more[:-1], target, more[-1])],
        check=True,
        timeout=60,
    )
    return target


def put(form: str, at: int, *values: int | bytes) -> Change:
    """`form` and `values` as struct has them; a negative place counts from the end."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        struct.pack_into(form, changed, at if at >= 0 else len(changed) + at, *values)
        return bytes(changed)

    return change


def at_once(*changes: Change) -> Change:
    def change(data: bytes) -> bytes:
        for one in changes:
            data = one(data)
        return data

    return change


def word(data: bytes, form: str, at: int) -> int:
    (found,) = struct.unpack_from(form, data, at)
    return int(found)


def qcow2_backed_by(name: str, format: str = "raw") -> Change:
    """As `qemu-img create -b` writes it, where the file may be anything."""

    def change(data: bytes) -> bytes:
        extension = struct.pack(">II8s", 0xE2792ACA, len(format), format.encode()) + bytes(8)
        encoded = name.encode()
        changed = bytearray(data)
        changed[112 : 112 + len(extension)] = extension
        place = 112 + len(extension)
        changed[place : place + len(encoded)] = encoded
        struct.pack_into(">QI", changed, 8, place, len(encoded))
        return bytes(changed)

    return change


def qcow2_with_extension(kind: int, data: bytes, length: int | None = None) -> Change:
    padded = data + bytes(-len(data) % 8)
    length = len(data) if length is None else length
    return put(f">II{len(padded)}sQ", 112, kind, length, padded, 0)


def qcow2_data_file(name: str) -> Change:
    return at_once(put(">Q", 72, 4), qcow2_with_extension(0x44415441, name.encode()))


def first_l2(data: bytes) -> int:
    """Where the first L2 table of a qcow2 image lies."""
    return word(data, ">Q", word(data, ">Q", 40)) & 0x00FF_FFFF_FFFF_FE00


def qcow2_cluster_twice(data: bytes) -> bytes:
    table = first_l2(data)
    return put(">Q", table + 8, word(data, ">Q", table))(data)


def qcow2_table_as_data(data: bytes) -> bytes:
    table = first_l2(data)
    return put(">Q", table, table | 1 << 63)(data)


def qcow2_table_twice(data: bytes) -> bytes:
    """A disk of twice 512 MiB in one table."""
    l1 = word(data, ">Q", 40)
    return at_once(put(">Q", 24, 1 << 30), put(">I", 36, 2), put(">Q", l1 + 8, word(data, ">Q", l1)))(data)


def qcow2_beyond(data: bytes) -> bytes:
    return put(">Q", first_l2(data), 1 << 63 | 1 << 40)(data)


def compressed_bomb(clusters: int) -> bytes:
    """Each cluster of 2 MiB has a stream of its own, a few bytes behind the one before it."""
    bits = 21
    cluster = 1 << bits
    data = bytearray(5 * cluster)
    header = (b"QFI\xfb", 3, 0, 0, bits, clusters * cluster, 0, 1, cluster, 2 * cluster, 1, 0, 0)
    struct.pack_into(">4sIQIIQIIQQIIQ", data, 0, *header)
    struct.pack_into(">QQQII", data, 72, 0, 0, 0, 4, 104)
    struct.pack_into(">Q", data, cluster, 3 * cluster | 1 << 63)
    for number in range(clusters):
        struct.pack_into(">Q", data, 3 * cluster + 8 * number, 1 << 62 | (4 * cluster + 16 * number))
    return bytes(data)


def packed_twice(data: bytes) -> bytes:
    """One compressed cluster, in each place of the disk."""
    table = first_l2(data)
    one = word(data, ">Q", table)
    assert one >> 62 & 1
    return put(">64Q", table, *[one] * 64)(data)


def descriptor(*extents: str, kind: str = "monolithicFlat", more: str = "") -> bytes:
    lines = ("# Disk DescriptorFile", "version=1", "CID=fffffffe", "parentCID=ffffffff", f'createType="{kind}"', more)
    return "\n".join([*lines, *extents, 'ddb.adapterType = "ide"', ""]).encode()


def with_descriptor(old: bytes, new: bytes) -> Change:
    """In an image that carries one: padded with zeros, as it was."""

    def change(data: bytes) -> bytes:
        at, length = (512 * word(data, "<Q", place) for place in (28, 36))
        text = data[at : at + length].rstrip(b"\0").replace(old, new)
        assert text != data[at : at + length].rstrip(b"\0")
        assert len(text) <= length
        return data[:at] + text.ljust(length, b"\0") + data[at + length :]

    return change


def vmdk_grain_twice(data: bytes) -> bytes:
    directory = 512 * word(data, "<Q", 56)
    table = 512 * word(data, "<I", directory)
    return put("<I", table + 4, word(data, "<I", table))(data)


def vhd(change: Change) -> Change:
    """A change of the footer, with its checksum and its copy."""

    def changed(data: bytes) -> bytes:
        footer = bytearray(change(data[-512:]))
        struct.pack_into(">I", footer, 64, 0)
        struct.pack_into(">I", footer, 64, ~sum(footer) & 0xFFFFFFFF)
        start = bytes(footer) if data[:8] == b"conectix" else data[:512]
        return start + data[512:-512] + bytes(footer)

    return changed


def vhd_header(change: Change) -> Change:
    """Of the dynamic header, which QEMU puts behind the first sector."""

    def changed(data: bytes) -> bytes:
        header = bytearray(change(data[512:1536]))
        struct.pack_into(">I", header, 36, 0)
        struct.pack_into(">I", header, 36, ~sum(header) & 0xFFFFFFFF)
        return data[:512] + bytes(header) + data[1536:]

    return changed


def vhd_block_twice(data: bytes) -> bytes:
    table = word(data, ">Q", 512 + 16)
    return put(">I", table + 4, word(data, ">I", table))(data)


def vhdx_sealed(at: int, length: int, change: Change) -> Change:
    """A change of what a CRC-32C covers."""

    def changed(data: bytes) -> bytes:
        part = bytearray(change(data[at : at + length]))
        struct.pack_into("<I", part, 4, 0)
        struct.pack_into("<I", part, 4, crc32c(bytes(part)))
        return data[:at] + bytes(part) + data[at + length :]

    return changed


def vhdx_headers(change: Change) -> Change:
    return at_once(*(vhdx_sealed(at * KIB, 4 * KIB, change) for at in (64, 128)))


def vhdx_regions(change: Change) -> Change:
    return at_once(*(vhdx_sealed(at * KIB, 64 * KIB, change) for at in (192, 256)))


def vhdx_region(data: bytes, name: str) -> int:
    """Where it lies; `name` as in the file, in hex."""
    at = data.index(bytes.fromhex(name), 192 * KIB)
    return word(data, "<Q", at + 16)


_METADATA, _BAT = "06a27c8b90479a4bb8fe575f050f886e", "6677c22d23f600429d64115e9bfd4a08"
_PARAMETERS = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")


def vhdx_with_parent(data: bytes) -> bytes:
    region = vhdx_region(data, _METADATA)
    item = data.index(_PARAMETERS, region)
    return put("<I", region + word(data, "<I", item + 16) + 4, 2)(data)


def vhdx_unknown_metadata(data: bytes) -> bytes:
    """Required, and of a kind that does not exist."""
    item = data.index(bytes.fromhex("ab12cabee6b2234593efc309e000c746"), vhdx_region(data, _METADATA))
    return put("<B", item, 0)(data)


def vhdx_block_twice(data: bytes) -> bytes:
    table = vhdx_region(data, _BAT)
    return put("<Q", table + 8, word(data, "<Q", table))(data)


def disk_of(content_at: dict[int, bytes]) -> bytes:
    data = bytearray(SIZE)
    for at, some in content_at.items():
        data[at : at + len(some)] = some
    return bytes(data)


def boot_sector() -> bytes:
    return bytes(446) + struct.pack("<B3xB3xII", 0x80, 0x83, 2048, 4096) + bytes(48) + b"\x55\xaa"


def gzipped() -> bytes:
    return gzip.compress(guest(), 1, mtime=0)


def secret(folder: Path) -> tuple[Path, bytes]:
    """A file that nobody may be brought to read, and what is in it."""
    word_in_it = os.urandom(16).hex().encode()
    path = folder / "secret"
    path.write_bytes(word_in_it * 4096)
    return path, word_in_it
