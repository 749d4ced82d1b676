# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which writer and which reader an image format has."""

from __future__ import annotations

from .._blocks import BlockSource, ImageOutput, ImageWriter
from .._errors import VmferryError
from .._exports.manifest import DiskRecord
from .._stores.base import Store


def image_writer(format: str, size: int, output: ImageOutput, data_bound: int, backing: str = "") -> ImageWriter:
    """`data_bound`: bytes of guest data, in whole leaves, that will be written at the most. `backing`: the name of the
    image it is a layer on, as tools will open it.
    """
    if format == "qcow2":
        from .._images.qcow2_packed import PackedQcow2

        return PackedQcow2(size, output, data_bound=data_bound, backing=backing)
    if backing:
        raise VmferryError("unsupported", f"An image of the format {format!r} cannot be a layer.", "Use qcow2.")
    if format == "raw":
        from .._images.raw import RawWriter

        return RawWriter(size, output)
    raise VmferryError("unsupported", f"Images of the format {format!r} cannot be written.", "Use qcow2 or raw.")


def image_bound(format: str, size: int, data: int) -> int:
    """Bytes that an image with so much data, in whole leaves, has at the most; of a raw one, without its holes."""
    if format == "qcow2":
        from .._images.qcow2_packed import packed_bound

        return packed_bound(size, data)
    return data


def image_reader(store: Store, key: str, disk: DiskRecord, below: BlockSource | None = None) -> BlockSource:
    """The guest's disk, read out of the image at `key` by ranges. Every read is checked by nobody: digests do that.
    `below`: the disk that the image is a layer on.
    """

    def read_at(offset: int, buffer: memoryview) -> None:
        store.read_into(key, offset, buffer)

    if disk.format == "qcow2":
        from .._images.layers import Layers
        from .._images.qcow2_reader import Qcow2Reader

        where = store.object_url(key)
        return Layers.on(below, Qcow2Reader(read_at, disk.bytes_stored, size=disk.size, backing=below, where=where))
    if below is not None:
        raise VmferryError("invalid_config", f"{store.object_url(key)} cannot be a layer: it is {disk.format}.")
    from .._images.raw import RawReader

    return RawReader(read_at, disk.size)
