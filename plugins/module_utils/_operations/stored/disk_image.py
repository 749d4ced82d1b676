# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk image that others made, in a store or on a path: what it is, what reads it, and its disk.

Its content says what it is, and is inspected before anything else gets to see it; its name can only contradict that.
"""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Callable, Iterator, Tuple

from ..._blocks import BlockSource
from ..._errors import VmferryError
from ..._images.formats import FORMATS
from ..._images.image_format import StoredImage
from ..._images.inspect.image import inspect_image
from ..._images.inspect.words import Description
from ..._images.raw_tar_gz.reader import ProvenTarGzReader
from ..._stores.base import Store
from .answered_objections import answered
from .image_file import ImageFile
from .image_names import format_by_name
from .split_vmdk import parts_of, split_disk
from .vhdx_chain import parents_of, vhdx_chain

Limited = Callable[[BlockSource], BlockSource]
OWN = ("qcow2", "vmdk", "vhd", "vhdx", "raw", "raw_tar_gz")  # formats with a reader of ours
_HEAD = 64 << 10  # bytes that tell one image from another, beside its size and what the store knows of it


@dataclass(frozen=True)
class DiskImage:
    """`files`: the one that was named, and those of which it says that the disk is in them, too. `size`: the disk's."""

    files: Tuple[ImageFile, ...]
    found: Description
    identity: str

    @property
    def file(self) -> ImageFile:
        return self.files[0]

    @property
    def where(self) -> str:
        return self.file.where

    @property
    def size(self) -> int:
        return self.found.size

    @property
    def stored_size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def has_snapshots(self) -> bool:
        return self.found.objects("internal_snapshots")


def stored_image(store: Store, key: str) -> DiskImage:
    """Raises `not_found`, and `invalid_config` for an image that is not approved."""
    file = ImageFile.at(store, key)
    found = inspect_image(file.read_at, file.size, expected=format_by_name(file.name))
    found.approve(file.where, despite=answered(found))
    insist_on_image(file.where, found)
    if not found.size:
        raise VmferryError("invalid_config", f"{file.where} is a disk of no bytes.", "Is it the whole file?")
    others = parents_of(file) if found.subformat == "differencing" else parts_of(file, found)
    files = (file, *others)
    return DiskImage(files, found, f"image-{_mark_of(files)[:24]}")


def _mark_of(files: Tuple[ImageFile, ...]) -> str:
    """Another one as soon as somebody writes to one of them, as far as that can be told without reading it."""
    marks = sha256()
    for file in files:
        head = bytearray(min(_HEAD, file.size))
        file.read_at(0, memoryview(head))
        marks.update(sha256(file.state.encode() + head).digest())
    return marks.hexdigest()


def insist_on_image(where: str, found: Description) -> None:
    """Raises `unsupported` for an archive of a VM, which may have several disks."""
    if found.format == "vma":
        raise VmferryError(
            "unsupported",
            f"{where} is an archive of Proxmox VE (vma), and no disk image.",
            "Give it a name that ends in .vma: vm_import then makes a VM of it.",
        )


def insist_on_reader(image: DiskImage) -> None:
    """Raises `unsupported` where nothing reads it where it lies."""
    with ExitStack() as stack:
        if _own_reader(image, stack) is None and not image.file.path:
            raise _needs_path(image)


def _needs_path(image: DiskImage) -> VmferryError:
    why = f"an image of the format {image.found.format}"
    if image.has_snapshots:
        why += " with snapshots inside"
    elif image.found.format in OWN:
        why += " with features that are rare"
    return VmferryError(
        "unsupported",
        f"{image.where} is {why}, which QEMU reads here, and QEMU reads files of this host alone.",
        "Fetch it with vmferry.migrate.storage_download and import the file, or convert it with `qemu-img convert`.",
    )


@contextmanager
def open_image(
    image: DiskImage, limited: Limited = lambda source: source, *, in_part: bool = False
) -> Iterator[BlockSource]:
    """The guest's disk. `limited`: what slows a source down that is read without the store. Leaving it without an error
    proves that the files are still the same, or raises `conflict`; and that all of an archive is sound, or raises
    `invalid_config`, unless it is looked at `in_part` alone.
    """
    with ExitStack() as stack:
        source = _own_reader(image, stack) or limited(_served(image, stack))
        yield source
        if isinstance(source, ProvenTarGzReader) and not in_part:
            source.prove()
        for file in image.files:
            file.insist_on_no_change()


def _own_reader(image: DiskImage, stack: ExitStack) -> BlockSource | None:
    """None where we have none: for the format, or for a feature of it that ours does not know, which it does not tell
    from damage. That, the inspector has looked for before."""
    if image.found.format not in OWN or image.has_snapshots:
        return None
    if image.found.extents:
        return stack.enter_context(closing(split_disk(image.file, image.files[1:], image.found)))
    if len(image.files) > 1:
        return stack.enter_context(closing(vhdx_chain(image.file)))
    file = image.file
    if image.found.format == "raw_tar_gz":
        return stack.enter_context(closing(ProvenTarGzReader(file.read_at, file.size, where=file.where)))
    stored = StoredImage(file.read_at, file.size, image.size, file.where, file.extents)
    try:
        source = FORMATS[image.found.format].open(stored)
        for _extent in source.extents():  # all that maps it is looked at before the first byte is written
            pass
    except VmferryError as error:
        if error.kind not in ("invalid_config", "unsupported"):
            raise
        return None
    return stack.enter_context(closing(source))


def _served(image: DiskImage, stack: ExitStack) -> BlockSource:
    """By QEMU, which sees only the very file that is inspected once more."""
    if not image.file.path:
        raise _needs_path(image)
    from .foreign_image import open_foreign_image  # few images need it, and no description of a VM does

    # Not below $TMPDIR: the path of a unix socket has at most 107 bytes.
    folder = stack.enter_context(TemporaryDirectory(prefix="vmferry-image-", dir="/tmp"))
    opened = open_foreign_image(
        Path(image.file.path), image.found.format, socket_dir=Path(folder), despite=answered(image.found)
    )
    return stack.enter_context(opened)
