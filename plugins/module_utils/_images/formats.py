# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image formats: what each can hold, and which writer and reader it has.

Every writer takes the guest's data in guest order. Where a format's length is known before its first byte, an image can
be sent to a store as one stream.
"""

from __future__ import annotations

from typing import Mapping, Optional, Tuple

from .._blocks import LEAF, BlockSource, Codec, ImageOutput, ImageWriter
from .._errors import VmferryError
from .image_format import ImageFormat, NewImage, StoredImage, StreamedImage

GIB, TIB = 1 << 30, 1 << 40


def _qcow2_codec(compression: str, level: Optional[int]) -> Optional[Codec]:
    if compression == "none":
        return None
    from .qcow2.codecs import codec_named

    return codec_named(compression, level)


def _qcow2_writer(image: NewImage, output: ImageOutput) -> ImageWriter:
    bound, backing = image.data_bound, image.backing
    if image.key is not None:
        from .qcow2.encrypted import EncryptedQcow2

        return EncryptedQcow2(image.size, output, image.key, image.passphrase, data_bound=bound, backing=backing)
    if image.codec is not None:
        from .qcow2.codecs import Codec as Qcow2Codec
        from .qcow2.compressed import CompressedQcow2

        if not isinstance(image.codec, Qcow2Codec):
            raise VmferryError("internal", "A qcow2 image was given the codec of another format.")
        return CompressedQcow2(image.size, output, image.codec, data_bound=bound, backing=backing)
    from .qcow2.packed import PackedQcow2

    return PackedQcow2(image.size, output, data_bound=bound, backing=backing)


def _qcow2_streamed(image: NewImage) -> StreamedImage:
    from .qcow2.planned import PlannedQcow2
    from .qcow2.streamed import PlannedWriter

    plan = PlannedQcow2(image.size, image.runs)
    return StreamedImage(plan.size, lambda output: PlannedWriter(plan, output))


def _qcow2_reader(image: StoredImage) -> BlockSource:
    from .layers import Layers
    from .qcow2.reader import Qcow2Reader

    below = image.backing
    return Layers.on(
        below,
        Qcow2Reader(image.read_at, image.file_size, size=image.size, backing=below, where=image.where, key=image.key),
    )


def _qcow2_bound(size: int, data: int, encrypted: bool) -> int:
    from .luks import HEADER_SIZE
    from .qcow2.packed import packed_bound

    return packed_bound(size, data, HEADER_SIZE if encrypted else 0)


def _raw_writer(image: NewImage, output: ImageOutput) -> ImageWriter:
    from .raw import RawWriter

    return RawWriter(image.size, output)


def _raw_reader(image: StoredImage) -> BlockSource:
    from .raw import RawReader

    return RawReader(image.read_at, image.size, image.extents)


def _grain_codec(compression: str, level: Optional[int]) -> Codec:
    from .vmdk.stream_optimized import Deflate

    return Deflate(level)


def _vmdk_writer(image: NewImage, output: ImageOutput) -> ImageWriter:
    from .vmdk.stream_optimized import StreamOptimizedVmdk

    codec = image.codec or _grain_codec("zlib", None)
    return StreamOptimizedVmdk(image.size, output, codec, data_bound=image.data_bound, identity=image.identity)


def _vmdk_reader(image: StoredImage) -> BlockSource:
    from .vmdk.reader import VmdkReader

    return VmdkReader(image.read_at, image.file_size, size=image.size, where=image.where)


def _vmdk_bound(size: int, data: int, encrypted: bool) -> int:
    from .vmdk.stream_optimized import stream_optimized_bound

    return stream_optimized_bound(size, data)


def _sparse_vmdk_writer(image: NewImage, output: ImageOutput) -> ImageWriter:
    from .vmdk.sparse import SparseVmdk

    return SparseVmdk(image.size, output, data_bound=image.data_bound, identity=image.identity)


def _sparse_vmdk_bound(size: int, data: int, encrypted: bool) -> int:
    from .vmdk.sparse import vmdk_sparse_bound

    return vmdk_sparse_bound(size, data)


def _fixed_vhd_writer(image: NewImage, output: ImageOutput) -> ImageWriter:
    from .vhd.writer import FixedVhd

    return FixedVhd(image.size, output, identity=image.identity)


def _fixed_vhd_streamed(image: NewImage) -> StreamedImage:
    from .vhd.writer import fixed_file_size

    return StreamedImage(fixed_file_size(image.size), lambda output: _fixed_vhd_writer(image, output))


def _dynamic_vhd_writer(image: NewImage, output: ImageOutput) -> ImageWriter:
    from .vhd.writer import DynamicVhd

    return DynamicVhd(image.size, output, image.runs, identity=image.identity)


def _dynamic_vhd_bound(size: int, data: int, encrypted: bool) -> int:
    from .vhd.writer import dynamic_data_bound

    return dynamic_data_bound(size, data)


def _vhd_reader(image: StoredImage) -> BlockSource:
    from .vhd.reader import VhdReader

    return VhdReader(image.read_at, image.file_size, size=image.size, extents=image.extents, where=image.where)


def _vhdx_writer(image: NewImage, output: ImageOutput) -> ImageWriter:
    from .vhdx.writer import DynamicVhdx

    return DynamicVhdx(image.size, output, image.runs, identity=image.identity)


def _vhdx_bound(size: int, data: int, encrypted: bool) -> int:
    from .vhdx.writer import vhdx_bound

    return vhdx_bound(size, 0) + data


def _vhdx_reader(image: StoredImage) -> BlockSource:
    from .vhdx.reader import VhdxReader

    return VhdxReader(image.read_at, image.file_size, size=image.size, where=image.where)


def _leaf_codec(compression: str, level: Optional[int]) -> Codec:
    from .raw_tar_gz.deflate import DeflatedLeaf

    return DeflatedLeaf(level)


def _raw_tar_gz_writer(image: NewImage, output: ImageOutput) -> ImageWriter:
    from .raw_tar_gz.writer import RawTarGz

    return RawTarGz(image, output)


def _raw_tar_gz_reader(image: StoredImage) -> BlockSource:
    from .raw_tar_gz.reader import RawTarGzReader

    return RawTarGzReader(image.read_at, image.file_size, size=image.size, where=image.where)


def _raw_tar_gz_bound(size: int, data: int, encrypted: bool) -> int:
    from .raw_tar_gz.writer import raw_tar_gz_bound

    return raw_tar_gz_bound(size, data)


def _vma_writer(image: NewImage, output: ImageOutput) -> ImageWriter:
    from .vma.writer import VmaExtents

    return VmaExtents(image.number, image.size, image.identity, output, data_bound=image.data_bound)


def _vma_reader(image: StoredImage) -> BlockSource:
    from .vma.reader import vma_disk

    return vma_disk(image.read_at, image.file_size, image.size, image.where)


def _vma_bound(size: int, data: int, encrypted: bool) -> int:
    from .vma.writer import extents_bound

    return extents_bound(size, data)


_ALL: Tuple[ImageFormat, ...] = (
    ImageFormat(
        "qcow2",
        "qcow2",
        64 * TIB,
        _qcow2_writer,
        _qcow2_reader,
        _qcow2_bound,
        streamed=_qcow2_streamed,
        codec=_qcow2_codec,
        compressions=("none", "zstd", "zlib"),
        layers=True,
        encrypts=True,
    ),
    ImageFormat(
        "raw",
        "raw",
        64 * TIB,
        _raw_writer,
        _raw_reader,
        lambda size, data, encrypted: data,
        streamed=lambda image: StreamedImage(image.size, lambda output: _raw_writer(image, output)),
    ),
    ImageFormat(
        "vmdk",
        "vmdk",
        62 * TIB,
        _vmdk_writer,
        _vmdk_reader,
        _vmdk_bound,
        codec=_grain_codec,
        compressions=("none", "zlib"),
    ),
    ImageFormat("vmdk_sparse", "vmdk", 62 * TIB, _sparse_vmdk_writer, _vmdk_reader, _sparse_vmdk_bound),
    ImageFormat(
        "vhd",
        "vhd",
        2040 * GIB,
        _fixed_vhd_writer,
        _vhd_reader,
        lambda size, data, encrypted: data + LEAF,
        streamed=_fixed_vhd_streamed,
    ),
    ImageFormat("vhd_dynamic", "vhd", 2040 * GIB, _dynamic_vhd_writer, _vhd_reader, _dynamic_vhd_bound),
    ImageFormat("vhdx", "vhdx", 64 * TIB, _vhdx_writer, _vhdx_reader, _vhdx_bound),
    ImageFormat(
        "raw_tar_gz",
        "tar.gz",
        64 * TIB,
        _raw_tar_gz_writer,
        _raw_tar_gz_reader,
        _raw_tar_gz_bound,
        codec=_leaf_codec,
        compressions=("none", "zlib"),
    ),
)
FORMATS: Mapping[str, ImageFormat] = {format.name: format for format in _ALL}
NAMES = tuple(FORMATS)
# Of one disk among others in an archive of its own kind: no image that stands alone.
INNER: Mapping[str, ImageFormat] = {
    "vma": ImageFormat("vma", "vma", 8 * TIB, _vma_writer, _vma_reader, _vma_bound),
}


def format_named(name: str) -> ImageFormat:
    """Also of those that are in an archive alone. Raises `unsupported`."""
    found = FORMATS.get(name) or INNER.get(name)
    if found is None:
        raise VmferryError("unsupported", f"There is no image format {name!r} here.", f"Known are {', '.join(NAMES)}.")
    return found
