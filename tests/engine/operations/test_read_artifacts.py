# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images that an Artifact Manifest names: found by their names beside it, inspected, measured, never elsewhere."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
from engine.images.disks import run

from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.appliance import Appliance
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.appliance_machine import vm_of
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.read_appliance import (
    open_disk,
    stored_appliance,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

MIB = 1 << 20
SIZE = MIB + 512
CONTENT = Random(5).randbytes(SIZE)
QEMU = {"vmdk": "vmdk", "qcow2": "qcow2", "raw": "raw", "vhd": "vpc", "vhdx": "vhdx", "vdi": "vdi"}
OPTIONS = {"vhd": "force_size=on", "vmdk": "subformat=streamOptimized"}


def image(folder: Path, format: str) -> Path:
    (folder / "content").write_bytes(CONTENT)
    made = folder / f"image.{format}"
    options = ("-o", OPTIONS[format]) if format in OPTIONS else ()
    run("qemu-img", "convert", "-f", "raw", "-O", QEMU[format], *options, folder / "content", made)
    return made


def disk(file: Path, format: str, **more: Any) -> dict[str, Any]:
    """With the path that it had somewhere else."""
    path = f"/elsewhere/{file.name}"
    return {"id": "disk-0", "source_format": format, "bytes": file.stat().st_size, "local_path": path, **more}


def opened(folder: Path, *disks: dict[str, Any], key: str = "manifest.json", **more: Any) -> Appliance:
    (folder / key).parent.mkdir(exist_ok=True)
    vm = {"cpu": 2, "mem_gb": 1, "firmware": "bios"}
    (folder / key).write_text(json.dumps({"manifest_version": "1.0", "vm": vm, "disks": list(disks), **more}))
    return stored_appliance(open_store(f"file://{folder}", {}), key)


def refused(folder: Path, *disks: dict[str, Any]) -> VmferryError:
    with pytest.raises(VmferryError) as raised:
        opened(folder, *disks)
    assert raised.value.hint
    return raised.value


def content(appliance: Appliance) -> bytes:
    (disk,) = appliance.machine.disks
    found = bytearray(disk.capacity)
    with open_disk(appliance, disk) as source:
        source.read_into([(0, memoryview(found))])
    return bytes(found)


@pytest.mark.parametrize("format", sorted(set(QEMU) - {"vdi"}))
def test_an_image_of_each_format_is_read_with_the_size_that_it_has_itself(format: str, tmp_path: Path) -> None:
    file = image(tmp_path, format)
    told = sha256(file.read_bytes()).hexdigest()
    appliance = opened(tmp_path, disk(file, format, checksum=f"sha256:{told}"))
    assert appliance.machine.disks[0].capacity == SIZE
    assert content(appliance) == CONTENT
    assert (appliance.proves, appliance.machine.warnings) == (True, ())


def test_the_folder_of_the_manifest_is_where_the_images_lie(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    file = image(tmp_path / "web", "raw")
    appliance = opened(tmp_path, disk(file, "raw"), key="web/artifact-manifest.json")
    assert content(appliance) == CONTENT
    assert appliance.machine.name == "web"
    vm = vm_of(appliance.machine, appliance.where)
    assert [(one.id, one.name, one.bus, one.boot) for one in vm.disks] == [("disk-0", "disk-0", "sata", True)]


def test_no_path_leads_out_of_the_folder(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret".ljust(MIB))
    folder = tmp_path / "web"
    folder.mkdir()
    for path in (str(secret), "../secret", "a/../../secret"):
        error = refused(folder, disk(secret, "raw", local_path=path))
        assert error.kind == "invalid_config"
        assert "'secret', which is not beside it" in error.message
    for path in ("/", "..", "a/..", "C:\\"):
        assert refused(folder, disk(secret, "raw", local_path=path)).kind == "invalid_config"


def test_an_image_is_what_it_is_said_to_be_or_refused(tmp_path: Path) -> None:
    file = image(tmp_path, "qcow2")
    assert "(other_format)" in refused(tmp_path, disk(file, "vmdk")).message
    assert "(disguised)" in refused(tmp_path, disk(file, "raw")).message
    run("qemu-img", "rebase", "-u", "-b", "/etc/shadow", "-F", "raw", file)
    assert "(backing_file)" in refused(tmp_path, disk(file, "qcow2")).message
    error = refused(tmp_path, disk(image(tmp_path, "vdi"), "vdi"))
    assert (error.kind, "qemu-img convert" in error.hint) == ("unsupported", True)


def test_one_file_is_no_two_disks(tmp_path: Path) -> None:
    file = image(tmp_path, "raw")
    assert "twice" in refused(tmp_path, disk(file, "raw"), disk(file, "raw", id="disk-1")).message


def test_a_changed_image_is_found_when_it_was_read(tmp_path: Path) -> None:
    file = image(tmp_path, "raw")
    appliance = opened(tmp_path, disk(file, "raw", checksum="sha256:" + "0" * 64))
    with pytest.raises(VmferryError) as raised:
        content(appliance)
    assert raised.value.kind == "checksum_mismatch"


def test_what_is_doubtful_is_said(tmp_path: Path) -> None:
    file = image(tmp_path, "qcow2")
    (tmp_path / "more.raw").write_bytes(bytes(MIB))
    more = disk(tmp_path / "more.raw", "raw", id="disk-1", checksum=f"sha256:{sha256(bytes(MIB)).hexdigest()}")
    first = {**disk(file, "qcow2"), "boot_order_hint": 0}
    (missing,) = opened(tmp_path, first, more).machine.warnings
    assert "no checksum of disk-0" in missing
    assert not opened(tmp_path, {**first, "bytes": SIZE}).machine.warnings, "some tools tell the size of the disk"
    (other,) = opened(tmp_path, {**first, "bytes": 7}).machine.warnings
    assert "disk-0 has 7 bytes" in other
    guessed = opened(tmp_path, first, vm={"firmware": "bios"}).machine
    assert (guessed.cpus, guessed.memory) == (1, 1 << 30)
    assert ["processors" in guessed.warnings[0], "memory" in guessed.warnings[1]] == [True, True]


def test_a_raw_image_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    file = image(tmp_path, "raw")
    told = disk(file, "raw")
    os.truncate(file, SIZE - 512)
    assert "which is said to have" in str(refused(tmp_path, told))


def test_another_content_is_another_appliance(tmp_path: Path) -> None:
    file = image(tmp_path, "raw")
    first = opened(tmp_path, disk(file, "raw"))
    assert first.identity == opened(tmp_path, disk(file, "raw")).identity
    file.write_bytes(file.read_bytes() + bytes(512))
    assert first.identity != stored_appliance(open_store(f"file://{tmp_path}", {}), "manifest.json").identity


def test_the_manifest_of_an_export_is_told_from_one_of_others(tmp_path: Path) -> None:
    with pytest.raises(VmferryError) as raised:
        opened(tmp_path, x_vmferry={})
    assert raised.value.kind == "invalid_config"
    assert "the folder" in raised.value.hint
