# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Appliances in a store: an OVA, or an OVF with its files beside it, read by ranges. Nothing is unpacked."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, Iterator, Sequence

from ..._appliances.appliance import Appliance, open_appliance
from ..._appliances.machine import Disk
from ..._appliances.packages import MAX_MEMBERS, Member, Package, ReadAt, folder_package, ova_package
from ..._appliances.refusals import not_supported, refused
from ..._blocks import BlockSource, Extent, Piece
from ..._errors import VmferryError
from ..._images.image_format import ImageFormat, StoredImage
from ..._stores.base import Store
from .inspected_image import inspected_image


def stored_appliance(store: Store, key: str, *, run_through: bool = True) -> Appliance:
    """`key`: of a .ova, .ova.gz or .ovf, or the .json of an Artifact Manifest. `run_through`: whether all of a .ova.gz
    that others packed may be read to see what is in it. Raises `not_found`, `unsupported`, `invalid_config`,
    `checksum_mismatch`."""
    if key.lower().endswith(".json"):
        from .read_artifacts import stored_artifacts

        return stored_artifacts(store, key)
    return open_appliance(_package(store, key, run_through))


def _package(store: Store, key: str, run_through: bool) -> Package:
    where = store.object_url(key)
    if key.lower().endswith((".ova", ".ova.gz")):
        info = store.stat(key)
        if info is None:
            raise VmferryError("not_found", f"{where} does not exist.")
        return _archive(lambda offset, buffer: store.read_into(key, offset, buffer), info.size, where, run_through)
    if not key.lower().endswith(".ovf"):
        raise VmferryError(
            "invalid_config", f"{where} is no appliance.", "Name a file that ends in .ova, .ova.gz or .ovf."
        )
    return _folder(store, key, where)


def _archive(read_at: ReadAt, size: int, where: str, run_through: bool) -> Package:
    if not where.lower().endswith(".gz"):
        return ova_package(read_at, size, where)
    from ..._appliances.stored_gzip import StoredGzip, is_stored

    if is_stored(read_at, size):
        stored = StoredGzip(read_at, size, where)
        return ova_package(stored, stored.size, where)
    if not run_through:
        raise not_supported(
            where,
            "is compressed, and all of it would have to be read to see what is in it",
            "Unpack it with gunzip, or give vm_import its URL.",
        )
    from ..._appliances.gzip_reader import GzipReader

    unpacked = GzipReader(read_at, size, where)
    return ova_package(unpacked, unpacked.size, where)


def _folder(store: Store, key: str, where: str) -> Package:
    """The descriptor at `key`, and of what lies beside it all but other descriptors and their checksums."""
    folder, slash, name = key.rpartition("/")
    prefix, stem = folder + slash, name[: -len(".ovf")]
    found = []
    for info in store.list(prefix):
        beside = info.key[len(prefix) :]
        other = beside.lower().endswith((".ovf", ".mf", ".cert")) and beside.rpartition(".")[0] != stem
        if "/" not in beside and not other:
            found.append((beside, info.size))
        if len(found) > MAX_MEMBERS:
            raise refused(where, f"has more than {MAX_MEMBERS} files beside it", "Put it into a folder of its own.")
    if name not in dict(found):
        raise VmferryError("not_found", f"{where} does not exist.")
    return folder_package(where, found, lambda member, at, buffer: store.read_into(prefix + member, at, buffer))


@contextmanager
def open_disk(appliance: Appliance, disk: Disk, alive: Callable[[], object] = lambda: None) -> Iterator[ApplianceDisk]:
    """As `ApplianceDisk.of`."""
    source = ApplianceDisk.of(appliance, disk, alive)
    try:
        yield source
    finally:
        source.close()


@dataclass(frozen=True)
class ApplianceDisk:
    """Plays BlockSource. `format`: what the image was found to be; empty for a disk that begins empty."""

    size: int
    format: str
    _image: BlockSource | None = None

    @classmethod
    def of(cls, appliance: Appliance, disk: Disk, alive: Callable[[], object] = lambda: None) -> ApplianceDisk:
        """Raises `checksum_mismatch`, and `invalid_config` for whatever it is not said to be. Of a file with a
        checksum, all is read for that first, with a call of `alive` now and then.
        """
        if not disk.file:
            return cls(disk.capacity, "")
        member, checked = appliance.member(disk), appliance.watched(disk)
        checked.check(alive)
        file = Member(member.name, member.size, checked.read_at)
        format = _inspected(appliance, disk, file)
        image = StoredImage(file.read_at, file.size, disk.capacity, _where(appliance, disk))
        return cls(disk.capacity, format.name, format.open(image))

    def extents(self) -> Iterator[Extent]:
        if self._image is not None:
            yield from self._image.extents()
        elif self.size:
            yield Extent(0, self.size, "zero")

    def read_into(self, pieces: Sequence[Piece]) -> None:
        if self._image is not None:
            self._image.read_into(pieces)
            return
        for _unused, buffer in pieces:
            buffer[:] = bytes(len(buffer))

    def close(self) -> None:
        if self._image is not None:
            self._image.close()


def inspected_disks(appliance: Appliance) -> None:
    """Raises `invalid_config` or `unsupported` for the first that would not be read."""
    for disk in appliance.machine.disks:
        if disk.file:
            _inspected(appliance, disk, appliance.member(disk))


def _where(appliance: Appliance, disk: Disk) -> str:
    return f"{appliance.where}: {disk.file}"


def _inspected(appliance: Appliance, disk: Disk, file: Member) -> ImageFormat:
    where = _where(appliance, disk)
    format, size = inspected_image(file, disk.format, where)
    if disk.capacity != size:
        raise refused(where, f"is a disk of {size} bytes, and said to be one of {disk.capacity}")
    return format
