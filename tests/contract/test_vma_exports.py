# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM written as an archive of Proxmox VE, in one pass into every kind of store: what dissect finds in it, and what we
read of it again, each disk by ranges and all of them as a stream.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from secrets import token_hex

import pytest
from dissect.archive.vma import VMA
from engine.images.disks import assert_tiled, content_of
from engine.transfer.disks_in_memory import MemorySource

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.formats import INNER
from ansible_collections.vmferry.migrate.plugins.module_utils._images.image_format import StoredImage
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting.write_vma import write_vma
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.read_vma import stored_vma
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.write_appliance import (
    ApplianceDisk,
    Writing,
    WrittenAppliance,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.proved_digests import digests_of

from .dav_rig import NginxDavRig
from .store_rigs import S3Rig
from .test_appliances import Guest, guest

__all__ = ["guest"]
MIB = 1 << 20


@pytest.fixture(params=["path", "bucket", "dav"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "path":
        with closing(open_store(str(tmp_path / "store"), {})) as opened:
            yield opened
        return
    rig: S3Rig | NginxDavRig = request.getfixturevalue("s3" if request.param == "bucket" else "nginx_dav")
    with closing(rig.fresh()) as opened:
        yield opened


def write(store: Store, guest: Guest, key: str) -> WrittenAppliance:
    how = Writing(store, store.probe(f"probe-{token_hex(4)}"), Flow())
    return write_vma(how, key, guest.vm, [written_disk(source) for source in guest.sources()])


def written_disk(source: MemorySource) -> ApplianceDisk:
    return ApplianceDisk(source, digests_of(source, None))


def whole_sectors(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // 512) * 512, b"\0")


def test_dissect_and_we_find_the_same_disks(store: Store, guest: Guest) -> None:
    made = write(store, guest, "web.vma")
    info = store.stat("web.vma")
    assert info is not None
    assert info.size == made.info.size
    data = bytearray(info.size)
    store.read_into("web.vma", 0, memoryview(data))
    found = VMA(io.BytesIO(data))
    assert [one.name for one in found.devices()] == ["drive-virtio0", "drive-virtio1", "drive-virtio2"]
    assert [one.open().read() for one in found.devices()] == [whole_sectors(disk) for disk in guest.disks]
    assert_read_by_ranges(store, guest, made)
    assert_read_as_a_stream(store, guest)


def assert_read_by_ranges(store: Store, guest: Guest, made: WrittenAppliance) -> None:
    """As `vm_import` and `export_verify` read the disks of an export."""
    for file, disk in zip(made.files, guest.disks):

        def read_at(offset: int, buffer: memoryview, start: int = file.offset) -> None:
            store.read_into("web.vma", start + offset, buffer)

        with closing(INNER["vma"].open(StoredImage(read_at, file.size, len(disk)))) as source:
            assert_tiled(list(source.extents()), len(disk))
            assert content_of(source) == disk
            assert content_of(source, len(disk) // 2 + 777, 9000) == disk[len(disk) // 2 + 777 :][:9000]


def assert_read_as_a_stream(store: Store, guest: Guest) -> None:
    found = stored_vma(store, "web.vma")
    read = [bytearray(b"\xa5" * disk.size) for disk in found.vm().disks]
    for run in found.runs():
        read[run.disk][run.offset : run.offset + run.length] = bytes(run.length) if run.data is None else run.data
    assert read == [whole_sectors(disk) for disk in guest.disks]
    vm = found.vm()
    assert (vm.name, vm.cpu, vm.memory_mb, vm.firmware) == ("w-b-1-x", 2, 1024, "uefi")
    assert [(disk.name, disk.bus) for disk in vm.disks] == [(f"virtio{number}", "virtio") for number in range(3)]
    assert [(nic.mac, nic.network, nic.model) for nic in vm.nics] == [("52:54:00:00:00:01", "vmbr0", "virtio")]
    note = found.machine.annotation
    assert "net0 was in the network default." in note
    assert "add an EFI disk" in note


def test_zeros_are_passed_over_in_few_requests(guest: Guest, tmp_path: Path) -> None:
    """An extent of zeros is a header alone: of a disk of 64 GiB, there are 18 thousand in a row."""
    size = 64 << 30
    empty = replace(guest.vm, disks=(DiskSpec("disk-0", "vda", size, "raw", "sata", ""),))
    with closing(open_store(str(tmp_path), {})) as store:
        how = Writing(store, store.probe("probe"), Flow())
        made = write_vma(how, "a.vma", empty, [written_disk(Endless(size))])
        requests = []

        def read_at(offset: int, buffer: memoryview) -> None:
            requests.append(len(buffer))
            store.read_into("a.vma", made.files[0].offset + offset, buffer)

        source = INNER["vma"].open(StoredImage(read_at, made.files[0].size, size))
        assert [(one.offset, one.length, one.kind) for one in source.extents()] == [(0, size, "zero")]
    assert made.files[0].size == -(-size // (59 * 65536)) * 512
    assert len(requests) < 100


class Endless(MemorySource):
    """Of zeros, which nobody holds in memory."""

    def __init__(self, size: int) -> None:
        super().__init__(b"", [])
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self._size, "zero")


def test_a_source_that_fails_leaves_nothing(store: Store, guest: Guest) -> None:
    def fail(_number: int) -> None:
        raise VmferryError("network", "It went away.")

    sources = [*guest.sources()[:2], MemorySource(guest.disks[2], before_read=fail)]
    how = Writing(store, store.probe("probe"), Flow())
    with pytest.raises(VmferryError, match="went away"):
        write_vma(how, "a.vma", guest.vm, [written_disk(source) for source in sources])
    assert store.stat("a.vma") is None
    assert store.abort_uploads("") == 0


@pytest.mark.parametrize(
    ("disks", "words"), [((b"",), "empty disk of 0 bytes"), ((b"x" * 512,) * 48, "no places for 48 disks")]
)
def test_what_has_no_room_in_one_is_refused_before_the_first_byte(
    disks: tuple[bytes, ...], words: str, tmp_path: Path
) -> None:
    made = Guest((b"x",)).vm
    specs = tuple(DiskSpec(f"disk-{number}", "", len(data), "raw", "scsi", "") for number, data in enumerate(disks))
    with closing(open_store(str(tmp_path), {})) as store:
        how = Writing(store, store.probe("probe"), Flow())
        sources = [written_disk(MemorySource(data)) for data in disks]
        with pytest.raises(VmferryError, match=words) as refused:
            write_vma(how, "a.vma", made.with_disks(specs), sources)
        assert refused.value.kind == "unsupported"
        assert list(store.list("")) == []


LIES = {
    "another disk's": lambda data: data[:43] + b"\x02" + data[44:],
    "cut off": lambda data: data[:-4096],
    "an extent less": lambda data: data[: len(data) // 2 // 512 * 512],
    "nothing": lambda data: b"",
}


@pytest.mark.parametrize("lie", LIES)
def test_extents_that_are_not_those_of_the_disk_are_refused(lie: str, guest: Guest, tmp_path: Path) -> None:
    with closing(open_store(str(tmp_path), {})) as store:
        file = write(store, guest, "a.vma").files[0]
    data = LIES[lie]((tmp_path / "a.vma").read_bytes()[file.offset :][: file.size])

    def read_at(offset: int, buffer: memoryview) -> None:
        buffer[:] = data[offset : offset + len(buffer)]

    with pytest.raises(VmferryError) as refused:
        INNER["vma"].open(StoredImage(read_at, len(data), len(guest.disks[0])))
    assert refused.value.kind == "invalid_config"
