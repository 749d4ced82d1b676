# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VMDK in several files: a descriptor, and beside it the flat or sparse extents that it names.

An extent's name is made of that of the descriptor: `web.vmdk` has its data in `web-flat.vmdk`, or in `web-s001.vmdk` or
`web-f001.vmdk` and those that follow, as every tool calls them. So no descriptor gets at an image of somebody else that
lies in the same folder, be its name `web-2.vmdk`; nor at one that somebody gave such a name and that is no part.
"""

from __future__ import annotations

import re
from typing import Dict, List, Sequence, Tuple

from ..._blocks import BlockSource
from ..._images.inspect.image import inspect_flat_extent, inspect_sparse_extent
from ..._images.inspect.vmdk_descriptor import is_beside
from ..._images.inspect.words import Description, ExtentFile, refusal
from ..._images.joined_disks import JoinedDisks, Run
from ..._images.raw import RawReader
from ..._images.vmdk.reader import VmdkReader
from .image_file import ImageFile

_FLAT, _SPARSE, _ZERO = ("FLAT", "VMFS"), "SPARSE", "ZERO"
_OF_A_PART = re.compile("-(flat|[fs][0-9]{3,})")  # between the descriptor's name and its ending
MOST_FILES = 1024  # of 2 GiB each, as they are split


def parts_of(descriptor: ImageFile, found: Description) -> Tuple[ImageFile, ...]:
    """The files, each once. Raises `invalid_config` for one that is none of its own, or not there."""
    where, parts = descriptor.where, {}
    if len(found.extents) > MOST_FILES:
        raise refusal("tables", f"has its data in {len(found.extents)} parts", where)
    _insist_on_own_bytes(found.extents, where)
    _insist_on_order(found.extents, where)
    for extent in found.extents:
        if extent.kind == _ZERO or extent.name in parts:
            continue
        parts[extent.name] = _part(descriptor, extent, where)
    return tuple(parts.values())


def split_disk(descriptor: ImageFile, parts: Sequence[ImageFile], found: Description) -> BlockSource:
    files = {part.name: part for part in parts}
    disks: Dict[str, BlockSource] = {}
    runs: List[Run] = []
    for extent in found.extents:
        if extent.kind == _ZERO:
            runs.append(Run(extent.length))
            continue
        if extent.name not in disks:
            disks[extent.name] = _disk_of(files[extent.name], extent)
        runs.append(Run(extent.length, disks[extent.name], extent.offset))
    return JoinedDisks(runs, descriptor.where)


def _part(descriptor: ImageFile, extent: ExtentFile, where: str) -> ImageFile:
    if not is_beside(extent.name) or not _is_part(extent.name, descriptor.name):
        raise refusal("outside", f"has an extent in {extent.name!r}, and no part of it is called that", where)
    if extent.kind not in (*_FLAT, _SPARSE):
        raise refusal("extents", f"has an extent of the kind {extent.kind}", where)
    file = descriptor.beside(extent.name)
    if file is None:
        raise refusal("extents", f"has an extent in {extent.name!r}, which is not beside it", where)
    if extent.kind in _FLAT:
        if extent.offset + extent.length > file.size:
            raise refusal("truncated", f"has an extent in {extent.name!r}, which is shorter than that", where)
        inspect_flat_extent(file.read_at, file.size).approve(file.where)
    if extent.kind == _SPARSE:
        part = inspect_sparse_extent(file.read_at, file.size)
        part.approve(file.where)
        if part.size != extent.length or extent.offset:
            raise refusal("damaged", f"has an extent in {extent.name!r}, which is of another size", where)
    return file


def _is_part(name: str, descriptor: str) -> bool:
    stem, dot, ending = descriptor.rpartition(".")
    if not (name.startswith(f"{stem}-") and name.endswith(dot + ending)):
        return False
    return _OF_A_PART.fullmatch(name, len(stem), len(name) - len(dot + ending)) is not None


def _disk_of(file: ImageFile, extent: ExtentFile) -> BlockSource:
    if extent.kind == _SPARSE:
        return VmdkReader(file.read_at, file.size, where=file.where)
    return RawReader(file.read_at, file.size, file.extents)


def _insist_on_own_bytes(extents: Sequence[ExtentFile], where: str) -> None:
    """A byte that is used twice could stand for any number of them."""
    used = sorted((one.name, one.offset, one.offset + one.length) for one in extents if one.kind != _ZERO)
    for before, after in zip(used, used[1:]):
        if before[0] == after[0] and after[1] < before[2]:
            raise refusal("overlap", f"uses bytes of {after[0]!r} twice", where)


def _insist_on_order(extents: Sequence[ExtentFile], where: str) -> None:
    """As every tool writes them, so that the map of each file is gone through once."""
    passed: Dict[str, int] = {}
    last = ""
    for one in (one for one in extents if one.kind != _ZERO):
        if one.name in passed and (one.name != last or one.offset < passed[one.name]):
            raise refusal("extents", f"goes back to {one.name!r}", where)
        passed[one.name], last = one.offset + one.length, one.name
