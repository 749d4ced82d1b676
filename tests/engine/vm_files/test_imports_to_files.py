# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM of any source becomes an OVA, an OVF with its files, or images with a descriptor, on a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files.layouts import DISK_FORMATS

from ..images.disks import MIB
from .shelf import GUEST
from .written import WritingShelf, assert_same, assert_summed_up


@pytest.fixture
def shelf(tmp_path: Path) -> WritingShelf:
    (tmp_path / "images").mkdir()
    (tmp_path / "written").mkdir()
    return WritingShelf(tmp_path)


@pytest.mark.parametrize("disk_format", DISK_FORMATS)
def test_an_appliance_is_written_in_every_format(shelf: WritingShelf, disk_format: str) -> None:
    """Its second disk begins empty, and is no file in the appliance that is read."""
    shelf.ova("app.ova")
    made = shelf.bring((shelf.images / "app.ova").as_uri(), disk_format=disk_format)
    assert made["changed"]
    files = shelf.members()
    assert_summed_up(files)
    guest, empty = shelf.raw("guest.raw"), shelf.raw("empty.raw", bytes(MIB))
    disks = [name for name in sorted(files) if not name.endswith((".ovf", ".mf"))]
    assert [name.partition(".")[0] for name in disks] == ["web-disk1", "web-disk2"]
    assert_same(files[disks[0]], disk_format, guest)
    assert_same(files[disks[1]], disk_format, empty)
    (told,) = shelf.told()
    assert told == made["vm"]
    (before,) = [vm for vm in shelf.vms() if vm["path"] == "app.ova"]
    assert [told[name] for name in ("cpu", "memory_mb", "firmware")] == [
        before[name] for name in ("cpu", "memory_mb", "firmware")
    ]
    assert [(disk["size"], disk["bus"]) for disk in told["disks"]] == [
        (disk["size"], disk["bus"]) for disk in before["disks"]
    ]
    assert [nic["network"] for nic in told["nics"]] == [nic["network"] for nic in before["nics"]]
    exported = shelf.again().export("web")
    assert shelf.content(exported) == GUEST
