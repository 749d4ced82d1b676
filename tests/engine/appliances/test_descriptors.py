# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written as a descriptor is what is read of it, and what the schema and other tools ask for."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.machine import (
    OVF,
    RASD,
    Disk,
    Machine,
    Nic,
    Product,
    Property,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.ovf_reader import read_descriptor
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.ovf_writer import write_descriptor
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.passwords import without_passwords
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.appliance_machine import (
    machine_of,
    vm_of,
)

from ..images.disks import FEW

WHOLE = Machine(
    name="db <&\"'> ü",
    cpus=6,
    memory=3 << 30,
    disks=(
        Disk("vmdisk1", "db-disk1.vmdk", 20 << 30, "vmdk", "virtio", "", 0, 0, 7 << 20),
        Disk("vmdisk2", "db-disk2.vmdk", 512, "vmdk", "sata", "vmware.sata.ahci", 0, 0),
        Disk("vmdisk3", "", 1 << 40, "vmdk", "scsi", "VirtualSCSI", 1, 0),
        Disk("vmdisk4", "d.qcow2", 1 << 30, "qcow2", "ide", "PIIX4", 0, 0),
        Disk("vmdisk5", "e.vhdx", 1 << 30, "vhdx", "nvme", "vmware.nvme.controller", 0, 0),
    ),
    nics=(Nic("Network adapter 1", "front", "virtio", "52:54:00:12:34:56"), Nic("Network adapter 2", "back", "E1000e")),
    firmware="uefi",
    secure_boot=True,
    os_type=101,
    os_name="debian12_64Guest",
    virtual_system_type="vmx-19",
    architecture="x86_64",
    machine="pc-q35-7.2",
    cores_per_socket=3,
    networks={"front": "towards people", "back": "towards machines", "unused": "none"},
    annotation="two\nlines",
    eulas=("Do no harm.", "Nor evil."),
    products=(Product("Database", "Vendor", "1", "1.2.3", "com.example.db", "1"), Product(class_="other")),
    properties=(
        Property("password", "password", "", "Password", "Of the admin", True, "com.example.db", "1", password=True),
        Property("token", "string", user_configurable=True, class_="other", password=True),
        Property("size", "uint32", "5", class_="other"),
    ),
)


def again(machine: Machine) -> Machine:
    return read_descriptor(write_descriptor(machine), "app.ovf")


def test_everything_that_is_written_is_read_again() -> None:
    assert again(WHOLE) == WHOLE


def test_no_property_is_lost_for_want_of_a_product_or_told_twice_for_two() -> None:
    """Some belong to no class, and others to one that no product has."""
    asked = (Property("a"), Property("b", class_="none"), *WHOLE.properties)
    found = again(replace(WHOLE, products=(*WHOLE.products, Product("Again", class_="other")), properties=asked))
    assert sorted(one.key for one in found.properties) == ["a", "b", "password", "size", "token"]
    assert {one.key: one.class_ for one in found.properties if one.key in "ab"} == {"a": "", "b": "none"}
    assert [one.name for one in found.products] == ["Database", "", "Again", "", ""]


@pytest.mark.parametrize(
    "said",
    ['ovf:type="string" ovf:password="true"', 'ovf:type="string" ovf:password="1"', 'ovf:type="password"',
     'ovf:type="Password(8..)"'],
)  # fmt: skip
def test_the_value_of_a_property_that_is_a_password_is_not_read(said: str) -> None:
    text = write_descriptor(WHOLE)
    plain = b'ovf:type="uint32" ovf:userConfigurable="false" ovf:value="5"'
    assert plain in text
    secret = text.replace(plain, f'{said} ovf:value="hunter2"'.encode())
    (found,) = (one for one in read_descriptor(secret, "app.ovf").properties if one.key == "size")
    assert (found.value, found.password) == ("", True)
    assert "hunter2" not in repr(read_descriptor(secret, "app.ovf"))
    kept = without_passwords(secret, "app.ovf")
    assert b"hunter2" not in kept
    assert read_descriptor(kept, "app.ovf") == read_descriptor(secret, "app.ovf")


def test_a_descriptor_without_passwords_is_kept_as_it_was() -> None:
    text = write_descriptor(WHOLE).replace(b"><", b"> <")
    assert without_passwords(text, "app.ovf") is text


def test_a_property_that_is_a_password_is_written_as_one_without_its_value() -> None:
    secret = Property("token", value="hunter2", class_="other", password=True)
    text = write_descriptor(replace(WHOLE, properties=(secret,)))
    assert b'ovf:password="true"' in text
    assert b"hunter2" not in text


def test_a_vm_goes_into_an_appliance_and_comes_back() -> None:
    vm = vm_of(WHOLE, "app.ova")
    files = [disk.file for disk in WHOLE.disks]
    back = vm_of(again(machine_of(vm, files, "vmdk")), "app.ova")
    expected = tuple(replace(disk, format="vmdk") for disk in vm.disks)
    assert back == replace(vm, disks=expected)
    assert back.details["appliance"]["eulas"] == ["Do no harm.", "Nor evil."]


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co")), min_size=1, max_size=20).map(
    str.strip
).filter(bool)  # fmt: skip


@given(
    cpus=st.integers(1, 4096),
    memory=st.integers(1 << 20, 1 << 50),
    capacities=st.lists(st.integers(0, 1 << 60), min_size=1, max_size=40),
    bus=st.sampled_from(["scsi", "ide", "sata", "nvme", "virtio"]),
    name=names,
)
@FEW
def test_numbers_and_names_come_back_as_they_were(
    cpus: int, memory: int, capacities: list[int], bus: str, name: str
) -> None:
    disks = tuple(Disk(f"d{n}", f"f{n}.vmdk", size, bus=bus) for n, size in enumerate(capacities))
    back = again(Machine(name, cpus, memory, disks))
    assert (back.name, back.cpus, back.memory) == (name, cpus, memory)
    assert [(disk.capacity, disk.file, disk.bus) for disk in back.disks] == [
        (disk.capacity, disk.file, bus) for disk in disks
    ]
    places = [(disk.bus_number, disk.unit) for disk in back.disks]
    assert len(set(places)) == len(places)
    assert bus not in ("scsi", "virtio") or 7 not in [unit for _unused, unit in places]  # where the controller is


def items(data: bytes) -> list[dict[str, Any]]:
    return [
        {child.tag.rpartition("}")[2]: child.text for child in item}
        for item in ET.fromstring(data).iter(f"{{{OVF}}}Item")
    ]


def test_hardware_is_in_the_words_that_all_of_them_know() -> None:
    """VirtualBox and vSphere refuse a machine with a controller that they do not know."""
    found = items(write_descriptor(WHOLE))
    models = {(item["ResourceType"], item["ResourceSubType"]) for item in found if item.get("ResourceSubType")}
    assert models == {
        ("6", "lsilogic"),
        ("6", "VirtualSCSI"),
        ("20", "vmware.sata.ahci"),
        ("20", "vmware.nvme.controller"),
        ("5", "PIIX4"),
        ("10", "E1000"),
        ("10", "E1000e"),
    }
    numbers = [item["InstanceID"] for item in found]
    assert len(set(numbers)) == len(numbers)
    assert {item["Parent"] for item in found if "Parent" in item} <= set(numbers)


def test_elements_of_an_item_are_in_the_order_of_the_schema() -> None:
    for item in ET.fromstring(write_descriptor(WHOLE)).iter(f"{{{OVF}}}Item"):
        tags = [child.tag for child in item if child.tag.startswith(f"{{{RASD}}}")]
        assert tags == sorted(tags)


def test_what_only_we_know_is_nothing_that_others_must_understand() -> None:
    root = ET.fromstring(write_descriptor(WHOLE))
    known = ("http://schemas.dmtf.org/", "urn:none")
    foreign = [one for one in root.iter() if not one.tag[1:].startswith(known)]
    parents = {child: parent for parent in root.iter() for child in parent}
    for one in foreign:
        top = one
        while not top.get(f"{{{OVF}}}required") and top in parents:
            top = parents[top]
        assert top.get(f"{{{OVF}}}required") == "false", one.tag
    assert foreign


def test_sizes_of_files_are_told_where_they_are_known() -> None:
    data = write_descriptor(WHOLE, {"d.qcow2": 12345})
    found = {one.get(f"{{{OVF}}}href"): one.get(f"{{{OVF}}}size") for one in ET.fromstring(data).iter(f"{{{OVF}}}File")}
    assert found == {"db-disk1.vmdk": None, "db-disk2.vmdk": None, "d.qcow2": "12345", "e.vhdx": None}


def test_characters_that_xml_cannot_hold_are_replaced() -> None:
    assert again(replace(WHOLE, annotation="a\x00b\x1bc")).annotation == "a\ufffdb\ufffdc"


@pytest.mark.parametrize(("change", "said"), [({"format": "vdi"}, "vdi"), ({"bus": "floppy"}, "floppy")])
def test_what_has_no_name_in_a_descriptor_is_refused(change: dict[str, str], said: str) -> None:
    disk = replace(WHOLE.disks[0], **change)
    with pytest.raises(VmferryError, match=said) as raised:
        write_descriptor(replace(WHOLE, disks=(disk,)))
    assert raised.value.kind == "unsupported"
