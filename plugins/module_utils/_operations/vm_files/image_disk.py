# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One image file as a disk of a VM that is files: inspected first, then read where it lies."""

from __future__ import annotations

from typing import ContextManager

from ..._blocks import BlockSource, ObjectInfo
from ..._errors import VmferryError
from ..._images.inspect.image import inspect_image
from ..._images.inspect.words import Description
from ..._stores.base import Store
from ..stored.disk_image import OWN, DiskImage, insist_on_image, insist_on_reader, stored_image
from ..stored.disk_image import open_image as opened
from ..stored.image_names import format_by_name


def seen_image(store: Store, info: ObjectInfo, *, is_path: bool) -> Description:
    """What its header says. Its name announces its format; `.img` may be any.

    Raises `invalid_config` for what speaks against reading it, `unsupported` for what is only read on a path.
    """
    where = store.object_url(info.key)

    def read_at(offset: int, buffer: memoryview) -> None:
        store.read_into(info.key, offset, buffer)

    found = inspect_image(read_at, info.size, expected=format_by_name(info.key), header_only=True)
    found.approve(where)
    _insist_on_ranges(where, found)
    if found.format not in OWN and not is_path:
        raise VmferryError(
            "unsupported",
            f"{where} is an image of the format {found.format}, which is not read in a store.",
            "Download it to a path, for example with vmferry.migrate.storage_download, or convert it with qemu-img.",
        )
    return found


def _insist_on_ranges(where: str, found: Description) -> None:
    """Raises `unsupported` for an archive: what is damaged in it, reading parts of it would not tell."""
    insist_on_image(where, found)
    if found.format == "raw_tar_gz":
        hint = "Unpack it first, with `tar -xzf`, or import it with vmferry.migrate.vm_import."
        raise VmferryError("unsupported", f"{where} is an archive ({found.format}), and no disk image.", hint)


def insist_on_readable(store: Store, info: ObjectInfo) -> None:
    """Raises what `open_image` would."""
    insist_on_reader(_image(store, info))


def open_image(store: Store, info: ObjectInfo) -> ContextManager[BlockSource]:
    """The guest's disk. Raises as `seen_image`, and `conflict` where the image changed meanwhile."""
    return opened(_image(store, info))


def _image(store: Store, info: ObjectInfo) -> DiskImage:
    found = stored_image(store, info.key)
    _insist_on_ranges(found.where, found.found)
    if len(found.files) > 1 or found.has_snapshots:
        what = "snapshots inside" if found.has_snapshots else "its disk in several files"
        hint = "Make one image of its disk with `qemu-img convert`, or import it with vmferry.migrate.vm_import."
        raise VmferryError("unsupported", f"{found.where} has {what}.", hint)
    return found
