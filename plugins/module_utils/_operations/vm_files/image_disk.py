# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One image file as a disk: inspected first, then read by ranges where it lies; on a path, also by `qemu-nbd`."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Iterator

from ..._blocks import BlockSource, Extent, ObjectInfo
from ..._errors import VmferryError
from ..._images.formats import FORMATS
from ..._images.image_format import StoredImage
from ..._images.inspect.image import inspect_image
from ..._images.inspect.words import Description
from ..._stores.base import Store

OWN = ("qcow2", "raw", "vhd", "vhdx", "vmdk")  # that are read by ranges, wherever they lie
_SAID_BY = {
    "qcow": "qcow",
    "qcow2": "qcow2",
    "qed": "qed",
    "raw": "raw",
    "vdi": "vdi",
    "vhd": "vhd",
    "vhdx": "vhdx",
    "vmdk": "vmdk",
    "vpc": "vhd",
}


def seen_image(store: Store, info: ObjectInfo, *, is_path: bool, header_only: bool = False) -> Description:
    """What it says of itself. Its name announces its format; `.img` may be any.

    Raises `invalid_config` for what speaks against reading it, `unsupported` for what is only read on a path.
    """
    where = store.object_url(info.key)

    def read_at(offset: int, buffer: memoryview) -> None:
        store.read_into(info.key, offset, buffer)

    said = _SAID_BY.get(info.key.rpartition(".")[2].lower(), "")
    found = inspect_image(read_at, info.size, expected=said, header_only=header_only)
    found.approve(where)
    if found.format not in OWN and not is_path:
        raise _only_on_a_path(f"{where} is an image of the format {found.format}, which is not read in a store.")
    return found


def insist_on_readable(store: Store, info: ObjectInfo, *, is_path: bool) -> None:
    """Raises what `open_image` would."""
    found = seen_image(store, info, is_path=is_path)
    own = _own_reader(store, info, found, is_path) if found.format in OWN else None
    if own is not None:
        own.close()


@contextmanager
def open_image(store: Store, info: ObjectInfo, *, is_path: bool) -> Iterator[BlockSource]:
    """The guest's disk. Raises as `seen_image`.

    An image that QEMU can be shown, and that our own reader does not know (clusters of another size, subclusters), is
    read by a locked-down `qemu-nbd`.
    """
    found = seen_image(store, info, is_path=is_path)
    own = _own_reader(store, info, found, is_path) if found.format in OWN else None
    if own is not None:
        with closing(own):
            yield own
        return
    from ..stored.foreign_image import open_foreign_image  # few images need it, and no description of a VM does

    with ExitStack() as stack:
        # Not below $TMPDIR: the path of a unix socket has at most 107 bytes.
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="vmferry-image-", dir="/tmp")))
        path = Path(store.location(info.key))
        yield stack.enter_context(open_foreign_image(path, found.format, socket_dir=folder))


def _own_reader(store: Store, info: ObjectInfo, found: Description, is_path: bool) -> BlockSource | None:
    where = store.object_url(info.key)

    def read_at(offset: int, buffer: memoryview) -> None:
        store.read_into(info.key, offset, buffer)

    def holes(size: int) -> Iterator[Extent]:
        return store.extents(info.key, size)

    try:
        source = FORMATS[found.format].open(StoredImage(read_at, info.size, found.size, where, extents=holes))
        for _extent in source.extents():  # all that maps it is looked at before the first byte is taken for the disk's
            pass
        return source
    except VmferryError as error:
        if error.retryable or error.kind not in ("invalid_config", "unsupported"):
            raise
        if not is_path:
            raise _only_on_a_path(error.message) from error
        return None


def _only_on_a_path(message: str) -> VmferryError:
    hint = "Download it to a path, for example with vmferry.migrate.storage_download, or convert it with qemu-img."
    return VmferryError("unsupported", message, hint)
