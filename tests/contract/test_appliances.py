# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM written as an OVA, in one pass into every kind of store: what Python's tarfile and QEMU find in it, and what we
read of it again.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from secrets import token_hex

import pytest
from engine.images.disks import content_of, run
from engine.transfer.disks_in_memory import MemorySource

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.appliance_machine import vm_of
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.read_appliance import (
    open_disk,
    stored_appliance,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.write_appliance import (
    ApplianceDisk,
    Writing,
    write_ova,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec, NicSpec, VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.proved_digests import digests_of

from .dav_rig import NginxDavRig
from .store_rigs import S3Rig

MIB = 1 << 20
SIZES = (24 * MIB, 5 * MIB + 512, 65536 * 3)


def disk(size: int, seed: int) -> bytes:
    """Noise, so that it stays as large as it is, with zeros in the midst of it."""
    data = bytearray(Random(seed).randbytes(size))
    data[size // 4 : size // 3] = bytes(size // 3 - size // 4)
    return bytes(data)


@dataclass(frozen=True)
class Guest:
    disks: tuple[bytes, ...]

    @property
    def vm(self) -> VmSpec:
        disks = tuple(
            DiskSpec(f"disk-{number}", f"vd{'abc'[number]}", len(data), "qcow2", "virtio", "/x", boot=not number)
            for number, data in enumerate(self.disks)
        )
        nics = (NicSpec("nic-0", "52:54:00:00:00:01", "default", "virtio"),)
        details = {"appliance": {"eulas": ["Do no harm."]}}
        return VmSpec("libvirt", "u", "wéb 1/../x", "", "powered_off", 2, 1024, "uefi", disks, nics, details=details)

    def sources(self) -> list[MemorySource]:
        """The first tells of its zeros, as a provider does; the others' are found."""
        size = len(self.disks[0])
        first = (size // 4 + 65535) // 65536 * 65536
        runs = [Extent(0, first, "data"), Extent(first, MIB, "zero"), Extent(first + MIB, size - first - MIB, "data")]
        return [MemorySource(data, None if number else runs) for number, data in enumerate(self.disks)]


@pytest.fixture(scope="module")
def guest() -> Guest:
    return Guest(tuple(disk(size, seed) for seed, size in enumerate(SIZES)))


@pytest.fixture(params=["path", "bucket", "dav"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "path":
        with closing(open_store(str(tmp_path / "store"), {})) as opened:
            yield opened
        return
    rig: S3Rig | NginxDavRig = request.getfixturevalue("s3" if request.param == "bucket" else "nginx_dav")
    with closing(rig.fresh()) as opened:
        yield opened


def disks_of(sources: Sequence[MemorySource]) -> list[ApplianceDisk]:
    return [ApplianceDisk(source, digests_of(source, None)) for source in sources]


def write(store: Store, guest: Guest, format: str = "vmdk", key: str = "", **options: object) -> str:
    key = key or f"{token_hex(4)}.ova"
    rules = store.probe(f"probe-{token_hex(4)}")
    how = Writing(store, rules, Flow(), format, **options)  # type: ignore[arg-type]
    write_ova(how, key, guest.vm, disks_of(guest.sources()))
    return key


def members(store: Store, key: str) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content(store, key)), mode="r:") as tar:
        return {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]


def content(store: Store, key: str) -> bytes:
    info = store.stat(key)
    assert info is not None
    data = bytearray(info.size)
    store.read_into(key, 0, memoryview(data))
    return bytes(data)


def assert_checked(found: dict[str, bytes]) -> None:
    """As any other tool checks it: every file but the list itself."""
    names = list(found)
    assert names[0].endswith(".ovf")
    assert names[-1].endswith(".mf")
    listed = dict(re.findall(r"SHA256\((.*)\)= ([0-9a-f]{64})\n", found[names[-1]].decode()))
    assert listed == {name: hashlib.sha256(found[name]).hexdigest() for name in names[:-1]}


def test_tarfile_and_qemu_and_we_find_the_same_disks(store: Store, guest: Guest, tmp_path: Path) -> None:
    key = write(store, guest)
    appliance = stored_appliance(store, key)
    with open_disk(appliance, appliance.machine.disks[1]) as source:
        assert content_of(source) == guest.disks[1]
    found = members(store, key)
    assert_checked(found)
    assert list(found)[1:-1] == ["w-b-1-..-x-disk1.vmdk", "w-b-1-..-x-disk2.vmdk", "w-b-1-..-x-disk3.vmdk"]
    for number, data in enumerate(guest.disks[:2], 1):
        image, expected = tmp_path / f"{number}.vmdk", tmp_path / f"{number}.raw"
        image.write_bytes(found[f"w-b-1-..-x-disk{number}.vmdk"])
        expected.write_bytes(data)
        run("qemu-img", "check", "-f", "vmdk", image)
        run("qemu-img", "compare", "-f", "vmdk", "-F", "raw", image, expected)


def test_within_gzip_it_is_the_same_to_others_and_is_read_by_ranges_here(
    store: Store, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's gzip compares the checksum and the size of all of it, and gunzip of GNU the same."""
    guest = Guest((disk(13 * MIB, 4), guest.disks[2]))
    key = write(store, guest, key=f"{token_hex(4)}.ova.gz", gzip=True)
    data = content(store, key)
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data)), mode="r:") as tar:
        found = {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]
    assert_checked(found)
    subprocess.run(["gunzip", "-t"], input=data, check=True)
    listed = subprocess.run(["tar", "-tzf", "-"], input=data, capture_output=True, check=True)
    assert listed.stdout.decode().split() == list(found)
    asked: list[int] = []
    read_into = store.read_into
    monkeypatch.setattr(
        type(store), "read_into", lambda _store, key, at, into: (asked.append(len(into)), read_into(key, at, into))
    )
    appliance = stored_appliance(store, key)
    assert sum(asked) < MIB < len(data)
    for number in (0, 1):
        with open_disk(appliance, appliance.machine.disks[number]) as source:
            assert content_of(source) == guest.disks[number]


@pytest.mark.parametrize("format_", ["vmdk", "raw"])
def test_an_ova_comes_back_as_it_was(format_: str, guest: Guest, tmp_path: Path) -> None:
    with closing(open_store(str(tmp_path / "store"), {})) as store:
        key = write(store, guest, format_)
        assert_checked(members(store, key))
        appliance = stored_appliance(store, key)
        assert appliance.proves
        for one, data in zip(appliance.machine.disks, guest.disks):
            with open_disk(appliance, one) as source:
                assert content_of(source) == data
        back, vm = vm_of(appliance.machine, ""), guest.vm
        assert (back.name, back.cpu, back.memory_mb, back.firmware) == (vm.name, vm.cpu, vm.memory_mb, vm.firmware)
        assert [(one.size, one.bus) for one in back.disks] == [(one.size, one.bus) for one in vm.disks]
        assert [(one.mac, one.model, one.network) for one in back.nics] == [("52:54:00:00:00:01", "virtio", "default")]
        assert back.details["appliance"]["eulas"] == ["Do no harm."]


def test_dissect_finds_the_disks_by_the_descriptor(guest: Guest, tmp_path: Path) -> None:
    """Another reader of descriptors, which knows nothing of ours."""
    from dissect.hypervisor.descriptor.ovf import OVF

    with closing(open_store(str(tmp_path / "store"), {})) as store:
        found = members(store, write(store, guest))
    names = list(found)
    assert list(OVF(io.StringIO(found[names[0]].decode())).disks()) == names[1:-1]


def test_qemu_reads_a_disk_where_it_lies_in_the_archive(guest: Guest, tmp_path: Path) -> None:
    """At the offset that its header gives: the archive is what tools that unpack nothing take it for."""
    with closing(open_store(str(tmp_path / "store"), {})) as store:
        path = Path(store.location(write(store, guest)))
    (tmp_path / "expected").write_bytes(guest.disks[1])
    with tarfile.open(path) as tar:
        one = tar.getmember("w-b-1-..-x-disk2.vmdk")
    image = f"driver=vmdk,file.driver=raw,file.offset={one.offset_data},file.size={one.size},file.file.driver=file"
    run(
        *("qemu-img", "compare", "--image-opts", f"{image},file.file.filename={path}"),
        f"driver=raw,file.driver=file,file.filename={tmp_path / 'expected'}",
    )


def test_a_disk_of_no_bytes_is_refused(guest: Guest, tmp_path: Path) -> None:
    with closing(open_store(str(tmp_path / "store"), {})) as store, pytest.raises(VmferryError, match="0 bytes"):
        write(store, Guest((guest.disks[0], b"")))


def test_a_disk_that_ends_within_a_sector_is_filled_up(guest: Guest, tmp_path: Path) -> None:
    with closing(open_store(str(tmp_path / "store"), {})) as store:
        appliance = stored_appliance(store, write(store, Guest((guest.disks[0], b"x" * 1000))))
        with open_disk(appliance, appliance.machine.disks[1]) as source:
            assert content_of(source) == (b"x" * 1000).ljust(1024, b"\0")


def test_a_source_that_fails_leaves_nothing(store: Store, guest: Guest) -> None:
    class Broken(MemorySource):
        def read_into(self, pieces: object) -> None:
            raise VmferryError("network", "The disk went away.")

    sources = [*guest.sources()[:1], Broken(guest.disks[1]), *guest.sources()[2:]]
    rules = store.probe("probe")
    with pytest.raises(VmferryError, match="went away"):
        write_ova(Writing(store, rules, Flow()), "a.ova", guest.vm, disks_of(sources))
    assert store.stat("a.ova") is None
    assert store.abort_uploads("") == 0


@pytest.mark.parametrize("format_", ["qcow2", "vhd", "vhd_dynamic", "vhdx", "vmdk_sparse"])
def test_other_formats_are_refused_before_the_first_byte(format_: str, guest: Guest, tmp_path: Path) -> None:
    with closing(open_store(str(tmp_path / "store"), {})) as store:
        with pytest.raises(VmferryError, match="cannot be written in the format") as raised:
            write(store, guest, format_)
        assert raised.value.kind == "unsupported"
        assert list(store.list("")) == []


def test_an_ova_that_is_there_is_not_replaced_unasked(guest: Guest, tmp_path: Path) -> None:
    with closing(open_store(str(tmp_path / "store"), {})) as store:
        write(store, guest, key="a.ova")
        with pytest.raises(VmferryError) as raised:
            write(store, guest, key="a.ova", if_absent=True)
        assert raised.value.kind == "conflict"
