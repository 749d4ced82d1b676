# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Appliances of others: their descriptor, their checksums, and everything they may lie about."""

from __future__ import annotations

import hashlib
from random import Random
from threading import Thread

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.checksums import (
    PIECE,
    CheckedMember,
    Checksums,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.documents import parse
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.ovf_reader import read_descriptor
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.packages import folder_package
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError

from .archives import MIB, archive, descriptor, opened, sums

DISK = ("disk-0.vmdk", "vmdisk1", "16")
FILES = {"app.ovf": descriptor([DISK], units="byte * 2^30"), "disk-0.vmdk": bytes(range(256)) * 4096}


def refusal(data: bytes, kind: str = "invalid_config") -> str:
    with pytest.raises(VmferryError) as raised:
        opened(data)
    assert raised.value.kind == kind
    return raised.value.message


def described(data: bytes, kind: str = "invalid_config") -> str:
    with pytest.raises(VmferryError) as raised:
        read_descriptor(data, "app.ovf")
    assert raised.value.kind == kind
    return raised.value.message


# --- the descriptor ---


def test_a_descriptor_of_vsphere_is_understood() -> None:
    nic = (
        "<Item><rasd:AddressOnParent>7</rasd:AddressOnParent><rasd:Connection>VM Network</rasd:Connection>"
        "<rasd:ElementName>Network adapter 1</rasd:ElementName><rasd:InstanceID>20</rasd:InstanceID>"
        "<rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>"
        "<Item><rasd:ElementName>CD</rasd:ElementName><rasd:InstanceID>21</rasd:InstanceID>"
        "<rasd:ResourceType>15</rasd:ResourceType></Item>"
    )
    disks = [DISK, ("", "empty", "1")]
    machine = read_descriptor(descriptor(disks, units="byte * 2^30", items=nic), "app.ovf")
    assert (machine.name, machine.cpus, machine.memory, machine.firmware) == ("web", 2, 2048 * MIB, "uefi")
    assert (machine.os_type, machine.os_name) == (101, "otherLinux64Guest")
    assert machine.virtual_system_type == "vmx-14"
    first, second = machine.disks
    assert (first.id, first.file, first.capacity) == ("vmdisk1", "disk-0.vmdk", 16 << 30)
    assert (first.format, first.bus, first.controller, first.unit) == ("vmdk", "scsi", "VirtualSCSI", 0)
    assert (second.file, second.capacity, second.unit) == ("", 1 << 30, 1)
    assert [(one.network, one.model) for one in machine.nics] == [("VM Network", "VmxNet3")]
    assert machine.networks == {"VM Network": "of VMs"}
    assert machine.removable == ("cdrom",)


@pytest.mark.parametrize(
    ("number", "units", "size"),
    [
        ("5", "byte", 5),
        ("5", "", 5),
        ("3", "byte * 2^20", 3 << 20),
        ("3", "byte*2^30", 3 << 30),
        ("2", "byte * 10^9", 2 * 10**9),
        ("7", "byte * 512", 7 * 512),
        ("2", "MegaBytes", 2 << 20),
        ("2", "GB", 2 << 30),
    ],
)
def test_capacities_in_any_units(number: str, units: str, size: int) -> None:
    made = descriptor([("a.vmdk", "a", number)], units=units)
    assert read_descriptor(made, "app.ovf").disks[0].capacity == size


@pytest.mark.parametrize(
    ("number", "units"),
    [
        ("-1", "byte"),
        ("1.5", "byte"),
        ("", "byte"),
        ("1e9", "byte"),
        ("0x10", "byte"),
        ("٣", "byte"),
        ("9" * 20, "byte"),
        ("1", "byte * 2^70"),
        ("1", "parsec"),
        ("1", "byte * byte"),
    ],
)
def test_capacities_that_are_none(number: str, units: str) -> None:
    assert "capacity of the disk" in described(descriptor([("a.vmdk", "a", number)], units=units))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (b'fileRef="f-vmdisk1"', b'fileRef="other"', "does not name"),
        (b"ovf:/disk/vmdisk1", b"ovf:/disk/other", "does not describe"),
        (b"ovf:/disk/vmdisk1", b"ovf:/file/f-vmdisk1", "does not describe"),
        (b"<rasd:VirtualQuantity>2<", b"<rasd:VirtualQuantity>0<", "0 processors"),
        (b"<rasd:VirtualQuantity>2048<", b"<rasd:VirtualQuantity>0<", "0 bytes of memory"),
        (b"<rasd:VirtualQuantity>2048<", b"<rasd:VirtualQuantity>lots<", "'lots'"),
        (b"<rasd:InstanceID>2<", b"<rasd:InstanceID>1<", "twice"),
        (b'href="disk-0.vmdk"', b'href="../../etc/shadow"', "leaves its folder"),
        (b'href="disk-0.vmdk"', b'href="http://host/x"', "lie in no folder"),
        (b'href="disk-0.vmdk"', b'href="/etc/shadow"', "absolute"),
    ],
)
def test_descriptors_that_contradict_themselves(before: bytes, after: bytes, said: str) -> None:
    assert before in FILES["app.ovf"]
    assert said in described(FILES["app.ovf"].replace(before, after))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (b'href="disk-0.vmdk"', b'href="disk-0.vmdk" ovf:compression="gzip"', "compressed"),
        (b'href="disk-0.vmdk"', b'href="disk-0.vmdk" ovf:chunkSize="5"', "several pieces"),
        (b'diskId="vmdisk1"', b'diskId="vmdisk1" ovf:parentRef="base"', "stands on another"),
        (b"<VirtualSystem ", b'<VirtualSystemCollection ovf:id="c"/><VirtualSystem ', "several machines"),
        (b"<Item>", b"<StorageItem></StorageItem><Item>", "as OVF 2 does"),
    ],
)
def test_sound_descriptors_that_ask_for_more(before: bytes, after: bytes, said: str) -> None:
    assert said in described(FILES["app.ovf"].replace(before, after, 1), "unsupported")


# --- XML ---

LAUGHS = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 12))


@pytest.mark.parametrize(
    "prolog",
    [
        b'<!DOCTYPE a [<!ENTITY l0 "lol">' + LAUGHS + b"]>",
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        b'<!DOCTYPE a SYSTEM "http://127.0.0.1:1/evil.dtd">',
        b'<!DOCTYPE a [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>',
        b"<!DOCTYPE a>",
    ],
)
def test_document_types_are_refused_before_anything_is_expanded(prolog: bytes) -> None:
    with pytest.raises(VmferryError, match="document type") as raised:
        parse(b'<?xml version="1.0"?>' + prolog + b"<a>&l11;&x;</a>", "app.ovf")
    assert "root:" not in raised.value.message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<a>" * 40 + b"</a>" * 40, "deeper"),
        (b"<a>" + b"<b/>" * 50_001 + b"</a>", "deeper"),
        (b"<a>" + b" " * (4 << 20) + b"</a>", "at most"),
        (b"<a>", "no XML"),
        (b"", "no XML"),
        (b"<a>&other;</a>", "no XML"),
        (b'<?xml version="1.0" encoding="zzz"?><a/>', "no XML"),
    ],
)
def test_documents_that_are_none_or_too_much(data: bytes, said: str) -> None:
    with pytest.raises(VmferryError, match=said):
        parse(data, "app.ovf")


def test_what_an_inclusion_names_is_not_read() -> None:
    made = parse(b'<a xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="/etc/passwd"/></a>', "app.ovf")
    assert [element.tag for element in made] == ["{http://www.w3.org/2001/XInclude}include"]
    assert not "".join(made.itertext())


# --- checksums ---


def test_an_appliance_without_checksums_says_so() -> None:
    assert not opened(archive(FILES)).proves
    assert opened(archive({**FILES, "app.mf": sums(FILES)})).proves


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_checksums_as_any_tool_writes_them(algorithm: str) -> None:
    lines = "".join(
        f"{algorithm.upper()} ({name}) = {hashlib.new(algorithm, data).hexdigest().upper()}\r\n"
        for name, data in FILES.items()
    )
    appliance = opened(archive({**FILES, "app.mf": lines.encode()}))
    assert appliance.checksums.algorithm("disk-0.vmdk") == algorithm
    appliance.watched(appliance.machine.disks[0]).check()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (sums({"app.ovf": FILES["app.ovf"]}), "no checksum of its file 'disk-0.vmdk'"),
        (b"", "no checksum of its file 'app.ovf'"),
        (sums({**FILES, "other": b""}), "no such file"),
        (sums(FILES) + sums({"app.ovf": b""}), "two checksums"),
        (sums(FILES)[:-10] + b"\n", "not as long"),
        (sums(FILES) + b"MD5(app.ovf)= 00\n", "the line"),
        (sums(FILES) + b"rubbish\n", "the line"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_lists_of_checksums_that_are_wrong(lines: bytes, said: str) -> None:
    assert said in refusal(archive({**FILES, "app.mf": lines}))


def test_a_list_of_checksums_of_another_name_is_refused() -> None:
    assert "is not called 'app.mf'" in refusal(archive({**FILES, "other.mf": sums(FILES)}))


def test_a_descriptor_that_was_changed_is_refused_before_it_is_read() -> None:
    changed = {**FILES, "app.ovf": b"<!DOCTYPE a>" + FILES["app.ovf"]}
    assert "'app.ovf' that is not what" in refusal(archive({**changed, "app.mf": sums(FILES)}), "checksum_mismatch")


@pytest.mark.parametrize("flip", [0, 500_000, MIB - 1])
def test_a_disk_that_was_changed_is_found_however_it_is_read(flip: int) -> None:
    made = bytearray(FILES["disk-0.vmdk"])
    made[flip] ^= 1
    appliance = opened(archive({**FILES, "disk-0.vmdk": bytes(made), "app.mf": sums(FILES)}))
    for place in (0, MIB - 4096, 123_456):
        watched = appliance.watched(appliance.machine.disks[0])
        with pytest.raises(VmferryError, match=r"'disk-0.vmdk' that is not what") as raised:
            watched.read_at(place, memoryview(bytearray(4096)))
        assert raised.value.kind == "checksum_mismatch"


def read_of(data: bytes, reads: list[tuple[int, int]]) -> CheckedMember:
    """A file with a checksum; `reads`: offset and length of each."""

    def read(_unused: str, offset: int, buffer: memoryview) -> None:
        reads.append((offset, len(buffer)))
        buffer[:] = data[offset : offset + len(buffer)]

    package = folder_package("here", [("a.bin", len(data))], read)
    return Checksums.known(package, {"a.bin": hashlib.sha256(data).hexdigest()}).watching(package.members["a.bin"])


def test_what_many_threads_read_in_about_its_order_is_read_once_more_than_for_its_checksum() -> None:
    data = Random(1).randbytes(5 * PIECE + 4096)
    reads: list[tuple[int, int]] = []
    watched = read_of(data, reads)
    watched.check()
    assert sum(length for _unused, length in reads) == len(data)
    reads.clear()
    found = memoryview(bytearray(len(data)))
    places = list(range(0, len(data), 65536))
    for at in range(0, len(places), 8):  # each group of eight in any order
        group = places[at : at + 8]
        Random(at).shuffle(group)
        threads = [Thread(target=watched.read_at, args=(place, found[place : place + 65536])) for place in group]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == data
    assert sorted(reads) == [*((number * PIECE, PIECE) for number in range(5)), (5 * PIECE, 4096)]


SOME_RANGES = [(0, 1), (PIECE - 1, 2), (PIECE, 3 * PIECE), (5, 3 * PIECE), (2 * PIECE + 7, 3 * PIECE + 4089), (9, 0)]


@pytest.mark.parametrize(("offset", "length"), SOME_RANGES)
def test_any_range_of_a_file_with_a_checksum_is_what_is_there(offset: int, length: int) -> None:
    data = Random(2).randbytes(5 * PIECE + 4096)
    found = bytearray(length)
    read_of(data, []).read_at(offset, memoryview(found))
    assert found == data[offset : offset + length]


@pytest.mark.parametrize(("offset", "length"), [(-1, 2), (PIECE, 1), (0, PIECE + 1)])
def test_a_range_beyond_a_file_with_a_checksum_is_refused(offset: int, length: int) -> None:
    with pytest.raises(VmferryError, match="ends before"):
        read_of(bytes(PIECE), []).read_at(offset, memoryview(bytearray(length)))


# --- packages ---


def test_there_is_one_descriptor_and_every_file_it_names() -> None:
    assert "has 0 descriptors" in refusal(archive({"disk-0.vmdk": b""}))
    assert "has 2 descriptors" in refusal(archive({**FILES, "other.OVF": b""}))
    assert "'disk-0.vmdk', which is not there" in refusal(archive({"app.ovf": FILES["app.ovf"]}))
    twice = descriptor([DISK, ("disk-0.vmdk", "second", "1")])
    assert "two disks in one file" in refusal(archive({**FILES, "app.ovf": twice}))


def test_a_descriptor_that_is_too_long_is_not_read() -> None:
    assert "at most" in refusal(archive({**FILES, "app.ovf": bytes((4 << 20) + 1)}))
