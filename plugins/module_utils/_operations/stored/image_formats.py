# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of exports: what a task asks for, in the words of the table of formats."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Callable, Iterable

from ..._blocks import BlockSource, Codec, Extent, ImageOutput, ImageWriter
from ..._errors import VmferryError
from ..._exports.manifest import DiskRecord
from ..._exports.packed import image_format_of
from ..._images.formats import format_named
from ..._images.image_format import NewImage, StoredImage, StreamedImage
from ..._stores.base import Store

if TYPE_CHECKING:
    from ..._exports.encryption import DiskKeys


def image_codec(format: str, compression: str, level: int | None = None) -> Codec | None:
    """None where leaves are stored as they are. Raises `invalid_config` for what cannot be, `unsupported` where a
    library is missing.
    """
    return image_format_of(format).codec_for(compression, level)


def insist_on_encryptable(format: str, codec: object | None) -> None:
    """Raises `invalid_config`."""
    if not image_format_of(format).encrypts:
        raise VmferryError("invalid_config", f"An image of the format {format} cannot be encrypted.", "Use qcow2.")
    if codec is not None:
        raise VmferryError(
            "invalid_config",
            "An image cannot be compressed and encrypted: QEMU does not read such images.",
            "Use compression: none, or no encryption.",
        )


def image_file(format: str, disk_id: str) -> str:
    return f"{disk_id}.{format_named(format).extension}"


def image_writer(
    format: str,
    size: int,
    output: ImageOutput,
    runs: Iterable[Extent],
    data_bound: int,
    backing: str = "",
    codec: Codec | None = None,
    keys: DiskKeys | None = None,
    identity: str = "",
) -> ImageWriter:
    """`runs`: of the source, in whole leaves up to the end of the disk. `data_bound`: bytes of guest data, in whole
    leaves, that will be written at the most. `backing`: the name of the image it is a layer on, as tools will open it.
    `codec`: of `image_codec`. `keys`: of an encrypted one, without a codec. `identity`: what no other image is told.
    """
    if keys is not None:
        insist_on_encryptable(format, codec)
    image = NewImage(
        size,
        runs,
        data_bound,
        backing,
        codec,
        key=keys.image if keys is not None else None,
        passphrase=keys.passphrase if keys is not None else b"",
        identity=sha256(identity.encode()).digest()[:16],
    )
    return format_named(format).write(image, output)


def streamed_image(format: str, size: int, runs: Iterable[Extent], identity: str = "") -> StreamedImage | None:
    """`runs`: of the source, in whole leaves up to the end of the disk. None where nobody knows the length before."""
    streamed = format_named(format).streamed
    if streamed is None:
        return None
    return streamed(NewImage(size, runs, size, identity=sha256(identity.encode()).digest()[:16]))


def image_bound(format: str, size: int, data: int, encrypted: bool = False) -> int:
    """Bytes that an image with so much data, in whole leaves, has at the most, without its holes."""
    return image_format_of(format).bound(size, data, encrypted)


def image_reader(
    store: Store, key: str, disk: DiskRecord, below: BlockSource | None = None, image_key: bytes | None = None
) -> BlockSource:
    """The guest's disk, read out of the image at `key` by ranges. Every read is checked by nobody: digests do that.
    `below`: the disk that the image is a layer on; `image_key`: of an encrypted one.
    """

    def of_object(offset: int, buffer: memoryview) -> None:
        store.read_into(key, offset, buffer)

    whole: Callable[[int, memoryview], None] = of_object
    if disk.archive is not None and disk.archive.is_gzip:
        from ..._appliances.stored_gzip import StoredGzip

        whole = StoredGzip(of_object, disk.archive.size, store.object_url(key))
    image = StoredImage(
        lambda offset, buffer: whole(disk.offset + offset, buffer),
        disk.bytes_stored,
        disk.size,
        store.object_url(key),
        (lambda size: store.extents(key, size)) if disk.archive is None else None,
        below,
        image_key,
    )
    return format_named(disk.format).open(image)
