# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every value of `format`, on a path, in a bucket and on a WebDAV server: QEMU and an import find the same disk."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from secrets import token_hex

import pytest
from engine.images.disks import run
from engine.images.other_formats import for_qemu

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import Catalog
from ansible_collections.vmferry.migrate.plugins.module_utils._images.formats import FORMATS
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    StoreSpec,
    TransferOptions,
    VerifyRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.verify_export import verify_export
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

from .chains import LEAF, SIZES, Guest, export, restored
from .dav_rig import NginxDavRig
from .store_rigs import S3Rig

OTHERS = [name for name in FORMATS if name != "qcow2"]
each = pytest.mark.parametrize("format_", OTHERS)
MIB = 1 << 20


@pytest.fixture
def guest() -> Guest:
    """With leaves of zeros at the beginning, in the middle and at the end, and one that nothing shrinks."""
    guest = Guest()
    for leaf in (0, 5, 6, 23):
        guest.clear("disk-0", leaf)
    guest.disks["disk-0"][8 * LEAF : 12 * LEAF] = b"text" * LEAF
    return guest


def assert_the_same_to_qemu(store: Store, made: str, guest: Guest, folder: Path) -> None:
    """By what the store has, fetched whole."""
    entry = Catalog(store).find(made)
    for disk in entry.manifest.disks:
        image, expected = folder / disk.file, folder / f"{disk.id}.expected"
        data = bytearray(disk.bytes_stored)
        store.read_into(entry.key(disk.file), 0, memoryview(data))
        image.write_bytes(data)
        expected.write_bytes(guest.now[disk.id])
        assert disk.file == f"{disk.id}.{FORMATS[disk.format].extension}"
        run("qemu-img", "compare", "-f", *for_qemu(disk.format, image), "-F", "raw", expected)


@each
def test_an_export_into_a_folder_comes_back_and_is_the_same_to_qemu(format_: str, guest: Guest, tmp_path: Path) -> None:
    spec = StoreSpec(str(tmp_path / "store"))
    made = export(spec, guest, tmp_path / "state", format=format_, name="moved")["export"]
    assert made["format"] == format_
    with closing(open_store(spec.url, {})) as store:
        assert restored(store, made["id"]) == guest.now
        assert_the_same_to_qemu(store, made["id"], guest, tmp_path)
    request = VerifyRequest(spec, "content", transfer=TransferOptions(state_dir=str(tmp_path)))
    assert verify_export(request, False)["problems"] == []
    assert not export(spec, guest, tmp_path / "state", format=format_, name="moved")["changed"]
    with pytest.raises(VmferryError, match=f"format {format_}"):
        export(spec, guest, tmp_path / "state", name="moved")


@each
def test_an_export_into_a_bucket_comes_back_and_is_the_same_to_qemu(
    format_: str, s3: S3Rig, guest: Guest, tmp_path: Path
) -> None:
    spec = StoreSpec(f"s3://{s3.bucket}/{token_hex(4)}", s3.server.settings)
    made = export(spec, guest, tmp_path / "state", format=format_)["export"]["id"]
    with closing(open_store(spec.url, s3.server.settings)) as store:
        assert restored(store, made) == guest.now
        assert_the_same_to_qemu(store, made, guest, tmp_path)


@pytest.mark.parametrize(("format_", "sent"), [("vhd", "stream"), ("vmdk", "joined_parts"), ("vhdx", "joined_parts")])
def test_what_has_a_known_length_is_sent_to_webdav_as_one_stream(
    format_: str, sent: str, nginx_dav: NginxDavRig, guest: Guest, tmp_path: Path
) -> None:
    store = nginx_dav.open()
    spec = StoreSpec(store.url, dict(nginx_dav.server.settings))
    made = export(spec, guest, tmp_path / "state", format=format_, on_failure="undo")
    assert [disk["sent_as"] for disk in made["export"]["disks"]] == [sent, sent]
    assert restored(store, made["export"]["id"]) == guest.now
    assert_the_same_to_qemu(store, made["export"]["id"], guest, tmp_path)


def test_an_increment_of_another_format_than_qcow2_is_refused(guest: Guest, tmp_path: Path) -> None:
    spec, format_ = StoreSpec(str(tmp_path / "store")), "vhdx"
    export(spec, guest, tmp_path / "state")
    with pytest.raises(VmferryError, match=f"format {format_} cannot stand on another"):
        export(spec, guest, tmp_path / "state", format=format_, mode="incremental")
    made = export(spec, guest, tmp_path / "state", format=format_)["export"]
    assert (made["mode"], made["fell_back"]) == ("full", f"an image of the format {format_} cannot stand on another")


def test_how_hard_a_vmdk_is_compressed_can_be_said(guest: Guest, tmp_path: Path) -> None:
    guest.disks["disk-0"] = bytearray(b"".join(b"%d," % number for number in range(300_000))[: SIZES["disk-0"]])
    stored = []
    for level in (1, 9):
        spec = StoreSpec(str(tmp_path / f"level-{level}"))
        made = export(spec, guest, tmp_path / "state", format="vmdk", compression="zlib", compression_level=level)
        stored.append(made["export"]["disks"][0]["bytes_stored"])
    assert stored[1] < stored[0] < SIZES["disk-0"]
    with pytest.raises(VmferryError, match="with zstd"):
        export(spec, guest, tmp_path / "state", format="vmdk", compression="zstd")
    with pytest.raises(VmferryError, match="levels from 1 to 9"):
        export(spec, guest, tmp_path / "state", format="vmdk", compression_level=10)


@pytest.mark.parametrize("format_", ["vmdk", "vhdx"])
def test_two_images_are_never_taken_for_one(format_: str, guest: Guest, tmp_path: Path) -> None:
    """Hypervisors know images by what stands in them: two of the same VM, too, have to be told apart."""
    spec = StoreSpec(str(tmp_path / "store"))
    for day in ("one", "two"):
        export(spec, guest, tmp_path / "state", format=format_, name=day)
    heads = [image.read_bytes()[: 4 * MIB] for image in (tmp_path / "store").rglob(f"*.{FORMATS[format_].extension}")]
    assert len(heads) == len(set(heads)) == 4


@pytest.mark.parametrize("format_", ["vmdk", "vhd", "vhd_dynamic", "vhdx", "vmdk_sparse", "raw_tar_gz"])
def test_a_byte_that_was_changed_is_found(format_: str, guest: Guest, tmp_path: Path) -> None:
    spec = StoreSpec(str(tmp_path / "store"))
    made = export(spec, guest, tmp_path / "state", format=format_)["export"]["id"]
    (image,) = (tmp_path / "store").rglob(f"disk-0.{FORMATS[format_].extension}")
    data = bytearray(image.read_bytes())
    packed = FORMATS[format_].compressions != ("none",)
    place = 3 * LEAF if packed else data.index(bytes(guest.disks["disk-0"][2 * LEAF + 100 : 2 * LEAF + 140]))
    data[place] ^= 1
    image.chmod(0o600)
    image.write_bytes(data)
    with closing(open_store(spec.url, {})) as store, pytest.raises(VmferryError) as told:
        restored(store, made)
    assert told.value.kind in ("checksum_mismatch", "invalid_config")
