# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks of appliances that QEMU made, read where they lie in the archive; and those that are not what they are said
to be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.machine import FORMAT_URIS
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.read_appliance import (
    open_disk,
    stored_appliance,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

from ..images.disks import content_of, run
from .archives import MIB, VMDK, archive, descriptor, sums
from .flipped import Flipped

SIZE = 3 * MIB
LARGE = 12 * MIB  # more than is kept of it
WRONG_KEYS = [("none.ova", "not_found"), ("folder/none.ovf", "not_found"), ("x.zip", "invalid_config")]
FORMATS = {
    "vmdk": ("vmdk", "-o", "subformat=streamOptimized"),
    "vmdk_sparse": ("vmdk", "-o", "subformat=monolithicSparse"),
    "qcow2": ("qcow2",),
    "vhd": ("vpc", "-o", "subformat=dynamic,force_size=on"),
    "vhdx": ("vhdx", "-o", "subformat=dynamic"),
    "raw": ("raw",),
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(str(tmp_path / "store"), {})) as opened:
        yield opened


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    path = tmp_path / "guest.raw"
    path.write_bytes(bytes(MIB) + bytes(range(256)) * 4096 + bytes(MIB - 512) + b"end!" * 128)
    return path


def image(guest: Path, format: str) -> bytes:
    made = guest.with_name(f"image.{format}")
    run("qemu-img", "convert", "-f", "raw", "-O", *FORMATS[format], guest, made)
    return made.read_bytes()


def put(store: Store, files: dict[str, bytes], checked: bool = True) -> None:
    if checked:
        files = {**files, "app.mf": sums(files)}
    store.put("app.ova", archive(files))
    for name, data in files.items():
        store.put(f"folder/{name}", data)


def refusal(store: Store, files: dict[str, bytes], kind: str = "invalid_config") -> str:
    put(store, files)
    appliance = stored_appliance(store, "app.ova")
    with pytest.raises(VmferryError) as raised, open_disk(appliance, appliance.machine.disks[0]):
        pass
    assert raised.value.kind == kind
    return raised.value.message


@pytest.mark.parametrize("format_", FORMATS)
def test_disks_of_every_format_are_read_where_they_lie(format_: str, store: Store, guest: Path) -> None:
    data = image(guest, format_)
    named = descriptor([("disk.img", "d1", str(SIZE))], format=FORMAT_URIS[format_][0])
    put(store, {"app.ovf": named, "disk.img": data})
    for key in ("app.ova", "folder/app.ovf"):
        appliance = stored_appliance(store, key)
        with open_disk(appliance, appliance.machine.disks[0]) as disk:
            assert disk.format == format_.partition("_")[0]
            assert content_of(disk) == guest.read_bytes()


def test_a_disk_without_a_file_is_empty(store: Store) -> None:
    put(store, {"app.ovf": descriptor([("", "d1", "1024")])})
    appliance = stored_appliance(store, "app.ova")
    with open_disk(appliance, appliance.machine.disks[0]) as disk:
        assert content_of(disk) == bytes(1024)
        assert [extent.kind for extent in disk.extents()] == ["zero"]


@pytest.mark.parametrize("said", ["512", str(SIZE - 512), str(SIZE + 512), str(1 << 50)])
@pytest.mark.parametrize("format_", ["vmdk", "raw", "qcow2"])
def test_a_disk_that_lies_about_its_capacity_is_refused(format_: str, said: str, store: Store, guest: Path) -> None:
    named = descriptor([("disk.img", "d1", said)], format=FORMAT_URIS[format_][0])
    assert f"said to be one of {said}" in refusal(store, {"app.ovf": named, "disk.img": image(guest, format_)})


def test_a_format_that_is_not_the_one_named_is_refused(store: Store, guest: Path) -> None:
    disk = ("disk.img", "d1", str(SIZE))
    assert "other_format" in refusal(store, {"app.ovf": descriptor([disk]), "disk.img": image(guest, "qcow2")})
    raw = descriptor([disk], format=FORMAT_URIS["raw"][0])
    assert "disguised" in refusal(store, {"app.ovf": raw, "disk.img": image(guest, "qcow2")})


def test_an_image_that_stands_on_a_file_of_the_host_is_refused(store: Store, guest: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret".ljust(SIZE, b"\0"))
    layer = tmp_path / "layer.qcow2"
    run("qemu-img", "create", "-f", "qcow2", "-b", secret, "-F", "raw", layer)
    qcow2 = descriptor([("disk.img", "d1", str(SIZE))], format=FORMAT_URIS["qcow2"][0])
    assert "backing_file" in refusal(store, {"app.ovf": qcow2, "disk.img": layer.read_bytes()})
    flat = f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n' \
           f'RW {SIZE // 512} FLAT "{secret}" 0\n'  # fmt: skip
    vmdk = descriptor([("disk.img", "d1", str(SIZE))], format=VMDK)
    assert refusal(store, {"app.ovf": vmdk, "disk.img": flat.encode()})


def test_a_disk_that_was_changed_fails_in_the_end_at_the_latest(store: Store, guest: Path) -> None:
    data = bytearray(image(guest, "raw"))
    files = {"app.ovf": descriptor([("disk.img", "d1", str(SIZE))], format=FORMAT_URIS["raw"][0])}
    listed = sums({**files, "disk.img": bytes(data)})
    data[MIB + 5] ^= 1
    put(store, {**files, "disk.img": bytes(data), "app.mf": listed}, checked=False)
    for key in ("app.ova", "folder/app.ovf"):
        appliance = stored_appliance(store, key)
        wrong = pytest.raises(VmferryError, match="not what its checksum says")
        with wrong as raised, open_disk(appliance, appliance.machine.disks[0]) as disk:
            content_of(disk)
        assert raised.value.kind == "checksum_mismatch"


@pytest.mark.parametrize("format_", ["vmdk", "vmdk_sparse", "qcow2", "raw"])
def test_whichever_read_of_a_byte_is_wrong_nothing_wrong_is_made_of_it(
    format_: str, store: Store, guest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those that were compared with the checksum are given out, in whatever order they are asked for."""
    guest.write_bytes(content := Random(1).randbytes(LARGE))
    data = image(guest, format_)
    named = descriptor([("disk.img", "d1", str(LARGE))], format=FORMAT_URIS[format_][0])
    put(store, {"app.ovf": named, "disk.img": data})
    refusals = 0
    for turn in range(1, 10):
        appliance = stored_appliance(store, "folder/app.ovf")
        with monkeypatch.context() as patched:
            flipped = Flipped(patched, "disk.img", len(data) // 2, turn)
            try:
                with open_disk(appliance, appliance.machine.disks[0]) as disk:
                    parts = [content_of(disk, at, MIB) for at in reversed(range(0, LARGE, MIB))]
                    assert b"".join(reversed(parts)) == content
            except VmferryError as error:
                refusals += error.kind == "checksum_mismatch"
            if not flipped.was_wrong:
                break
    assert not flipped.was_wrong
    assert refusals == turn - 1 >= 2


def test_a_disk_without_a_checksum_is_not_read_for_one(
    store: Store, guest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = descriptor([("disk.img", "d1", str(SIZE))], format=FORMAT_URIS["raw"][0])
    put(store, {"app.ovf": named, "disk.img": image(guest, "raw")}, checked=False)
    appliance = stored_appliance(store, "folder/app.ovf")
    read = Flipped(monkeypatch, "disk.img", MIB + 100_000, 100)
    with open_disk(appliance, appliance.machine.disks[0]) as disk:
        assert not read.reads
        assert content_of(disk) == guest.read_bytes()
    assert read.reads == 1


def test_other_appliances_in_the_same_folder_do_no_harm(store: Store, guest: Path) -> None:
    put(store, {"app.ovf": descriptor([("", "d1", "512")])})
    for name in ("other.ovf", "other.mf", "other.cert", "deeper/app.mf"):
        store.put(f"folder/{name}", b"other")
    assert stored_appliance(store, "folder/app.ovf").machine.name == "web"


@pytest.mark.parametrize(("key", "kind"), WRONG_KEYS)
def test_what_is_not_there_is_said(key: str, kind: str, store: Store) -> None:
    put(store, {"app.ovf": descriptor([])})
    with pytest.raises(VmferryError) as raised:
        stored_appliance(store, key)
    assert raised.value.kind == kind
