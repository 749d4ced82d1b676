# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image format is: what it can hold, what is written in it and read out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterable, Iterator, Optional, Sequence

from .._blocks import BlockSource, Codec, Extent, ImageOutput, ImageWriter
from .._errors import VmferryError


@dataclass(frozen=True)
class NewImage:
    """What is to be written. `runs`: the source's, in whole leaves, as often as they are asked for."""

    size: int
    runs: Iterable[Extent]
    data_bound: int  # bytes of data, in whole leaves, at the most
    backing: str = ""  # the image it is a layer on, as tools will open it
    codec: Optional[Codec] = None
    key: Optional[bytes] = None  # of an encrypted one
    passphrase: bytes = b""
    identity: bytes = bytes(16)  # no other image has it; the same if a killed export is gone on with
    number: int = 1  # among the disks of an archive, all of the same identity


@dataclass(frozen=True)
class StoredImage:
    """What is to be read: ranges of a file. `size`: the guest's disk, by the manifest."""

    read_at: Callable[[int, memoryview], None]
    file_size: int
    size: int
    where: str = "The image"
    extents: Optional[Callable[[int], Iterator[Extent]]] = None  # of the file, where the store knows its holes
    backing: Optional[BlockSource] = None
    key: Optional[bytes] = None


@dataclass(frozen=True)
class StreamedImage:
    """A full image whose length is known before its first byte, and that is written from there on."""

    size: int
    writer: Callable[[ImageOutput], ImageWriter]


@dataclass(frozen=True)
class ImageFormat:
    """`bound(size, data, encrypted)`: bytes of a file with so much data in whole leaves, without its holes."""

    name: str
    extension: str
    largest_disk: int
    writer: Callable[[NewImage, ImageOutput], ImageWriter]
    reader: Callable[[StoredImage], BlockSource]
    bound: Callable[[int, int, bool], int]
    streamed: Optional[Callable[[NewImage], StreamedImage]] = None
    codec: Optional[Callable[[str, Optional[int]], Optional[Codec]]] = None  # by its name and level; raises
    compressions: Sequence[str] = ("none",)
    layers: bool = False  # an image can stand on another
    encrypts: bool = False

    def codec_for(self, compression: str, level: Optional[int]) -> Optional[Codec]:
        """None where leaves are stored as they are. Raises `invalid_config` for what cannot be, `unsupported` where a
        library is missing.
        """
        if compression not in self.compressions:
            how = "compressed" if len(self.compressions) == 1 else f"compressed with {compression}"
            fitting = [name for name in self.compressions if name != "none"]
            raise VmferryError(
                "invalid_config",
                f"An image of the format {self.name} cannot be {how}.",
                f"Use {' or '.join(fitting)}." if fitting else "Use qcow2, or no compression.",
            )
        codec = self.codec(compression, level) if self.codec is not None else None
        if codec is None and level is not None:
            raise VmferryError("invalid_config", "compression_level is given without compression.")
        return codec

    def open(self, image: StoredImage) -> BlockSource:
        if image.backing is not None and not self.layers:
            raise VmferryError("invalid_config", f"{image.where} cannot be a layer: it is {self.name}.")
        return self.reader(image)

    def write(self, image: NewImage, output: ImageOutput) -> ImageWriter:
        if image.backing and not self.layers:
            raise VmferryError("unsupported", f"An image of the format {self.name} cannot be a layer.", "Use qcow2.")
        if image.size > self.largest_disk:
            raise too_large(self, image.size)
        return self.writer(image, output)


def too_large(format: ImageFormat, size: int) -> VmferryError:
    return VmferryError(
        "unsupported",
        f"A disk of {size} bytes is too large for the format {format.name}, which has room for {format.largest_disk}.",
        "Use qcow2.",
    )
