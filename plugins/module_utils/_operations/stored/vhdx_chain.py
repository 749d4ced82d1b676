# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A differencing VHDX and the images that it stands on, which lie in its folder.

A parent is believed by the id that it had when the layer was made on it, and that every write to it changes. So no
image gets at another one of the folder that it was not made on.
"""

from __future__ import annotations

from typing import List, Tuple

from ..._blocks import BlockSource
from ..._errors import VmferryError
from ..._images.inspect.image import inspect_image
from ..._images.inspect.vmdk_descriptor import is_beside
from ..._images.inspect.words import refusal
from ..._images.layers import Fitted, Layers
from ..._images.vhdx.locator import ParentLocator
from ..._images.vhdx.reader import VhdxReader
from .answered_objections import answered
from .image_file import ImageFile

MOST_LAYERS = 64
MOST_TABLES = 64 << 20  # bytes, of all images of a chain, which are held together
_MERGE = "Put all images that it stands on beside it, or merge them where it was made, with Merge-VHD."
_Link = Tuple[ImageFile, VhdxReader]


def parents_of(top: ImageFile) -> Tuple[ImageFile, ...]:
    """The next one down first. Raises `invalid_config` for a chain that is not whole, or not approved."""
    return tuple(file for file, _reader in _links(top)[1:])


def vhdx_chain(top: ImageFile) -> BlockSource:
    links = _links(top)
    source: BlockSource = links[-1][1]
    for _file, reader in reversed(links[:-1]):
        below = Fitted.to(source, reader.size)
        reader.stand_on(below)
        source = Layers(reader, below)
    return source


def _links(top: ImageFile) -> List[_Link]:
    links = [(top, _reader_of(top))]
    while True:
        file, reader = links[-1]
        if reader.parent is None:
            return links
        if len(links) == MOST_LAYERS:
            raise _refused(file, f"stands on more than {MOST_LAYERS - 1} other images")
        below = _found(file, reader.parent)
        if below.key in [known.key for known, _reader in links]:
            raise _refused(file, f"stands on {below.name}, which stands on it")
        found = inspect_image(below.read_at, below.size, expected="vhdx")
        found.approve(below.where, despite=answered(found))
        links.append((below, _reader_of(below)))
        if sum(one.table_size for _file, one in links) > MOST_TABLES:
            raise refusal("tables", "and what it stands on have larger tables than would be held", top.where)
        if links[-1][1].data_id not in reader.parent.data_ids:
            raise _refused(
                file, f"stands on {below.name} as it was before somebody wrote to it, or on another of that name"
            )


def _reader_of(file: ImageFile) -> VhdxReader:
    return VhdxReader(file.read_at, file.size, where=file.where, layer=True)


def _found(file: ImageFile, parent: ParentLocator) -> ImageFile:
    for name in filter(is_beside, parent.names):
        found = file.beside(name)
        if found is not None:
            return found
    raise _refused(file, f"stands on {' or '.join(map(repr, parent.names))}, which is not beside it")


def _refused(file: ImageFile, seen: str) -> VmferryError:
    return VmferryError("invalid_config", f"{file.where} is not opened (backing_file): it {seen}.", _MERGE)
