# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the CD and floppy drives of an imported VM find a place."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.import_drives import drives
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import VmSpec

NONE = ET.Element("domain")
CD_ON_IDE = ET.fromstring(
    '<domain><devices><disk device="cdrom"><target dev="hdc" bus="ide"/><address type="drive" unit="0"/>'
    "</disk></devices></domain>"
)


def made(
    machine: str, used: Sequence[str], native: ET.Element = NONE, *, cdroms: int = 1, name: str = ""
) -> list[tuple[str, str]]:
    """Bus and name of each drive."""
    details = {"cdroms": [{"name": name}] * cdroms}
    vm = VmSpec("appliance", "a", "a", "a", "powered_off", 1, 64, "bios", (), details=details)
    found = drives(vm, native, machine, set(used), lambda number: "abcdefgh"[number], moved=False)
    return [(target.get("bus", ""), target.get("dev", "")) for drive in found for target in drive.iter("target")]


@pytest.mark.parametrize(
    ("machine", "used", "drive"),
    [
        ("pc", ("hda",), ("ide", "hdb")),
        ("pc-i440fx-8.2", ("hda", "hdb", "hdd"), ("ide", "hdc")),
        ("pc", ("hda", "hdb", "hdc", "hdd"), ("sata", "sda")),
        ("pc", ("hda", "hdb", "hdc", "hdd", "sda"), ("sata", "sdb")),
        ("pc-q35-8.2", ("sda",), ("sata", "sdb")),
        ("virt", ("vda",), ("scsi", "sda")),
    ],
)
def test_a_cd_drive_is_on_ide_as_long_as_there_is_a_place(machine: str, used: tuple[str, ...], drive: object) -> None:
    assert made(machine, used) == [drive]


def test_drives_that_ide_has_no_place_for_are_on_sata() -> None:
    assert made("pc", ("hda", "hdb"), cdroms=4) == [("ide", "hdc"), ("ide", "hdd"), ("sata", "sda"), ("sata", "sdb")]


@pytest.mark.parametrize(
    ("machine", "used", "drive"),
    [
        ("pc", ("hda",), ("ide", "hdc")),
        ("pc", ("hda", "hdb", "hdc"), ("ide", "hdd")),
        ("pc", ("hda", "hdb", "hdc", "hdd"), ("sata", "sda")),
        ("q35", ("sda",), ("sata", "sdb")),
    ],
)
def test_a_cd_drive_that_was_on_ide_stays_there_if_it_can(machine: str, used: tuple[str, ...], drive: object) -> None:
    assert made(machine, used, CD_ON_IDE, name="hdc") == [drive]
