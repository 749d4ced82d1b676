# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The best way to read a disk that works is taken, and what changed is read only where any part can be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import BlockSource
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import ExportDisk
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.disk_servers import DiskServers
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.frozen_disks import FrozenDisks
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.provider import VsphereProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.readers import (
    Readers,
    is_worth_a_snapshot,
    may_be_read_at_random,
)
from rigs.vsphere import Disk, VSphere

from .points import LEAF, Points, data_in, whole_token
from .vddk import fake_nbdkit

pytestmark = pytest.mark.slow
MIB = 1 << 20
DATA = (b"data" * 5000).ljust(MIB, b"\0")


class Stream:
    """What a lease sends, in place of which nothing is sent here."""

    def __init__(self, disk: DiskSpec) -> None:
        self.size = disk.size


class Bench(Points):
    def __init__(self, stack: ExitStack, *arguments: Any, **hardware: Any) -> None:
        super().__init__(*arguments, **hardware)
        self.stack = stack

    def open(
        self, frozen: FrozenDisks, token: str = "", allocated: int | None = None, **settings: str
    ) -> tuple[Readers, list[ExportDisk]]:
        vm = self.vm()
        given = replace(self.settings, **settings)  # type: ignore[arg-type]
        readers = Readers(given, self.session, DiskServers(given, self.session), vm, frozen, self.stack)
        disks = [replace(disk, allocated=allocated) for disk in vm.disks]
        return readers, list(readers.open(disks, token, Stream))  # type: ignore[arg-type]


MakeBench = Callable[..., Bench]


@pytest.fixture
def make(vcenter: VSphere, settings: dict[str, Any]) -> Iterator[MakeBench]:
    with ExitStack() as stack:

        def bench(*disks: Disk, **hardware: Any) -> Bench:
            made = Bench(ExitStack(), vcenter, settings, disks or [Disk(DATA)], **hardware)
            stack.callback(made.close)
            stack.enter_context(made.stack)
            return made

        yield bench
    vcenter.settings(folder_ranges=True, locked_flats="active")
    vcenter.change_datastore("LocalDS_0", type="VMFS")


@pytest.fixture(autouse=True)
def with_files(vcenter: VSphere) -> None:
    """What the simulator has are folders, which it calls OTHER."""
    vcenter.change_datastore("LocalDS_0", type="VMFS")


def content(source: BlockSource) -> bytes:
    buffer = bytearray(source.size)
    source.read_into([(0, memoryview(buffer))])
    return bytes(buffer)


def methods(disks: list[ExportDisk]) -> list[str]:
    return [disk.method for disk in disks]


@pytest.mark.parametrize("running", [True, False])
def test_increment_reads_what_changed_out_of_the_datastore(make: MakeBench, running: bool) -> None:
    bench = make(running=running)
    token = whole_token(bench.take())
    bench.write(5 * LEAF, b"new")
    then = bench.bytes_now()
    frozen = bench.take()
    bench.write(0, b"later")
    readers, (disk,) = bench.open(frozen, token)
    assert (disk.method, readers.lost, readers.warnings) == ("datastore", "", [])
    assert disk.changes is not None
    assert data_in(list(disk.changes.extents())) == [(5 * LEAF, LEAF)]
    assert content(disk.changes) == content(disk.source) == then
    readers.confirm()


def test_lost_token_and_thin_disk_leave_it_to_the_lease(make: MakeBench) -> None:
    bench = make()
    token = whole_token(bench.take())
    bench.vcenter.reset_tracking(bench.moref)
    readers, disks = bench.open(bench.take(), token, allocated=LEAF)
    assert "was reset" in readers.lost
    assert (methods(disks), disks[0].changes) == (["lease"], None)


@pytest.mark.parametrize(
    ("allocated", "method"), [(MIB // 2, "datastore"), (MIB // 2 - 1, "lease"), (None, "lease"), (MIB, "datastore")]
)
def test_full_export_is_read_in_ranges_where_most_of_the_disk_is_allocated(
    make: MakeBench, allocated: int | None, method: str
) -> None:
    bench = make(running=False, tracking=False)
    _readers, disks = bench.open(bench.take(), allocated=allocated)
    assert methods(disks) == [method]
    if method == "datastore":
        assert content(disks[0].source) == DATA


@pytest.mark.parametrize("why", ["ranges", "locked", "vsan", "other snapshot", "consolidation"])
def test_flat_file_that_is_not_the_point_in_time_or_not_given_is_not_read(make: MakeBench, why: str) -> None:
    bench = make()
    theirs = bench.snapshot("theirs") if why == "other snapshot" else None
    if why == "ranges":
        bench.vcenter.settings(folder_ranges=False)
    if why == "locked":
        bench.vcenter.settings(locked_flats="running")
    if why == "vsan":
        bench.vcenter.change_datastore("LocalDS_0", type="vsan")
    token = whole_token(bench.take())
    if why == "consolidation":
        bench.vcenter.need_consolidation(bench.moref)
    frozen = bench.take() if why != "consolidation" else bench.frozen(bench.taken)
    readers, (disk,) = bench.open(frozen, "" if why == "consolidation" else token, allocated=MIB)
    assert (disk.method, disk.changes, readers.lost) == ("lease", None, "")
    assert (theirs is None) == frozen.only or why == "consolidation"


def test_disk_outside_of_snapshots_is_left_to_the_lease_and_so_are_the_others_then(make: MakeBench) -> None:
    bench = make(Disk(DATA), Disk(DATA, mode="independent_persistent"))
    token = whole_token(bench.take())
    _readers, disks = bench.open(bench.take(), token, allocated=MIB)
    assert methods(disks) == ["lease", "lease"]
    assert disks[0].changes is None
    vm = bench.vm()
    assert [may_be_read_at_random(bench.settings, vm, disk) for disk in vm.disks] == [True, False]
    encrypted = replace(vm, details={**vm.details, "encrypted": True})
    assert not may_be_read_at_random(bench.settings, encrypted, vm.disks[0])
    nbd = replace(bench.settings, vddk_libdir="/opt/vddk")
    dependent, alone = [replace(vm.disks[0], allocated=LEAF)], replace(vm, snapshots=())
    assert not is_worth_a_snapshot(nbd, alone, vm.disks, tracked=True), "it would not hold the other disk"
    assert not is_worth_a_snapshot(bench.settings, vm, dependent, tracked=True), "there is one already"
    assert is_worth_a_snapshot(nbd, vm, dependent, tracked=False)
    assert is_worth_a_snapshot(bench.settings, alone, dependent, tracked=True)
    assert not is_worth_a_snapshot(bench.settings, alone, dependent, tracked=False), "little of it is allocated"
    shared = replace(vm.disks[1], details={**vm.disks[1].details, "shared": True})
    assert not is_worth_a_snapshot(nbd, replace(alone, disks=(*dependent, shared)), dependent, tracked=True)
    assert [may_be_read_at_random(nbd, encrypted, disk) for disk in vm.disks] == [True, False]


def test_nbd_comes_first_and_falls_to_the_next_with_a_warning(
    make: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    fake_nbdkit(tmp_path, bench.settings.password, monkeypatch)
    token = whole_token(bench.take())
    bench.write(LEAF, b"new")
    frozen = bench.take()
    readers, (disk,) = bench.open(frozen, token, vddk_libdir="/opt/vddk")
    assert disk.method == "datastore"
    assert [f"scsi0:0 of {bench.name} is not read over NBD: nbdkit cannot read" in one for one in readers.warnings]
    image = tmp_path / frozen.snapshot / "2000"
    image.parent.mkdir()
    image.write_bytes(bench.bytes_now())
    readers, (disk,) = bench.open(frozen, token, vddk_libdir="/opt/vddk")
    assert (disk.method, readers.warnings) == ("nbd", [])
    assert disk.changes is not None
    assert data_in(list(disk.changes.extents())) == [(LEAF, LEAF)]
    assert content(disk.changes) == bench.bytes_now()


def test_snapshot_that_somebody_removed_meanwhile_is_noticed(make: MakeBench) -> None:
    bench = make()
    token = whole_token(bench.take())
    readers, _disks = bench.open(bench.take(), token)
    readers.confirm()
    bench.remove(bench.taken)
    bench.taken = None
    with pytest.raises(VmferryError, match="somebody removed it") as failed:
        readers.confirm()
    assert (failed.value.kind, failed.value.retryable) == ("conflict", True)


# --- what vm_info tells -----------------------------------------------------------------------------------------------


def told(provider: VsphereProvider, bench: Bench) -> list[dict[str, str]]:
    (vm,) = provider.describe_each([bench.moref])
    return [disk.details["export_methods"] for disk in vm.disks]


def test_methods_are_tried_on_a_vm_that_is_off(make: MakeBench, provider: VsphereProvider) -> None:
    bench = make(Disk(DATA), Disk(DATA, mode="independent_persistent"), running=False)
    assert told(provider, bench) == [{"datastore": "works", "lease": "works"}, {"lease": "works"}]
    bench.vcenter.settings(folder_ranges=False)
    assert told(provider, bench) == [{"lease": "works"}] * 2
    bench.vcenter.settings(folder_ranges=True)
    bench.snapshot("theirs")
    assert told(provider, bench) == [{"lease": "works"}] * 2


def test_methods_of_a_running_vm_are_found_out_at_its_snapshot(
    make: MakeBench, settings: dict[str, Any], tmp_path: Path
) -> None:
    bench = make()
    bench.vcenter.forget_calls()
    provider = VsphereProvider({**settings, "vddk_libdir": str(tmp_path)})
    assert told(provider, bench) == [{"datastore": "possible", "lease": "works"}]
    assert not bench.vcenter.calls("GET /folder/")
    (tmp_path / "lib64").mkdir()
    (tmp_path / "lib64" / "libvixDiskLib.so.8").touch()
    assert list(told(provider, bench)[0].items()) == [
        ("nbd", "possible"),
        ("datastore", "possible"),
        ("lease", "works"),
    ]
    provider.close()
    provider = VsphereProvider({**settings, "nbd_uri": "nbd://proxy/{snapshot}/{key}"})
    assert told(provider, bench)[0]["nbd"] == "possible"
    provider.close()


def test_lease_gives_no_vm_with_a_tpm_and_none_that_is_encrypted(make: MakeBench, provider: VsphereProvider) -> None:
    assert told(provider, make(tpm=True)) == [{"datastore": "possible"}]
    assert told(provider, make(encrypted=True)) == [{}]


def test_many_vms_are_described_without_trying(make: MakeBench, provider: VsphereProvider) -> None:
    bench = make(running=False)
    names = [bench.moref] * 11
    bench.vcenter.forget_calls()
    assert all("export_methods" not in vm.disks[0].details for vm in provider.describe_each(names))
    assert "export_methods" not in provider.describe(bench.moref).disks[0].details
    assert not bench.vcenter.calls("GET /folder/")
