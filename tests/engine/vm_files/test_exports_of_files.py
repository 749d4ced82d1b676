# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an export of a VM that is files holds, and what is refused before anything is written."""

from __future__ import annotations

import os
from hashlib import sha256
from random import Random
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.machine import FORMAT_URIS
from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting import write_export
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import DiskProgress, Progress

from ..appliances.archives import archive, descriptor, sums
from ..appliances.flipped import Flipped
from ..images.disks import MIB, run
from ..transfer.disks_in_memory import naive_root
from .shelf import GUEST, SIZE, Shelf, refused

FORMATS = {
    "web.raw": ("raw",),
    "web.qcow2": ("qcow2",),
    "packed.qcow2": ("qcow2", "-c"),
    "large.qcow2": ("qcow2", "-o", "cluster_size=2M"),  # by qemu-nbd
    "web.vmdk": ("vmdk", "-o", "subformat=streamOptimized"),
    "web.vhd": ("vpc", "-o", "subformat=dynamic,force_size=on"),
    "web.vhdx": ("vhdx",),
    "web.vdi": ("vdi",),  # by qemu-nbd
    "unnamed.img": ("qcow2",),
}


@pytest.mark.parametrize("name", FORMATS)
def test_an_image_of_any_format_is_exported_as_the_guest_sees_it(shelf: Shelf, name: str) -> None:
    shelf.image(name, *FORMATS[name])
    made = shelf.export(name, verify="content")
    assert (made["changed"], made["export"]["consistency"]) == (True, "crash_consistent")
    assert made["export"]["vm"]["name"] == name.partition(".")[0]
    assert shelf.content(made) == GUEST


@pytest.mark.parametrize(
    ("mark", "made_of"),
    [("5eed" * 8, "5eed5eed5eed5eed5eed5eed5eed5eed "), ("", "")],  # attempts that were begun before there were any
    ids=["marked", "of before"],
)
def test_the_identifier_of_an_image_is_made_of_what_the_attempt_alone_knows(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, mark: str, made_of: str
) -> None:
    monkeypatch.setattr(write_export, "token_hex", lambda count: mark)
    shelf.image("web.raw", "raw")
    made = shelf.export("web.raw", format="vhdx")["export"]
    image = (shelf.folder / "store" / made["disks"][0]["url"].partition("/store/")[2]).read_bytes()
    assert sha256(f"{made_of}{made['id']} disk-0".encode()).digest()[:16] in image
    assert not mark or mark.encode() not in b"".join(
        path.read_bytes() for path in shelf.folder.rglob("*") if path.is_file()
    )


def test_a_raw_image_that_stays_native_is_the_same_file_and_others_are_refused(shelf: Shelf) -> None:
    raw = shelf.image("web.raw", "raw")
    with raw.open("ab") as file:
        file.write(b"x" * 100)  # no whole sector
    made = shelf.export("web.raw", format="native", verify="content")["export"]
    (disk,) = made["disks"]
    stored = shelf.folder / "store" / disk["url"].partition("/store/")[2]
    assert (made["format"], stored.name, disk["size"]) == ("native", "disk-0.raw", SIZE + 100)
    assert stored.read_bytes() == raw.read_bytes()
    assert disk["digest_root"] == naive_root(raw.read_bytes())
    shelf.image("web.qcow2", "qcow2")
    error = refused(lambda: shelf.export("web.qcow2", format="native"), "unsupported", "disk-0 is qcow2")
    assert "storage_copy" in error.hint


def test_an_ova_is_exported_with_its_descriptor_and_its_empty_disk(shelf: Shelf) -> None:
    files = shelf.ova()
    made = shelf.export("app.ova", verify="content")
    assert (shelf.content(made, 0), shelf.content(made, 1)) == (GUEST, bytes(MIB))
    (text,) = (shelf.folder / "store").glob("*/*/native/descriptor.ovf")
    assert text.read_bytes() == files["app.ovf"]
    assert not made["warnings"]
    assert list(shelf.images.iterdir()) == [shelf.images / "app.ova"]


@pytest.mark.parametrize("format_", ["qcow2", "ova", "ovf"])
def test_a_password_of_a_property_is_in_no_result_and_no_export(
    format_: Any, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    section = (
        '<ProductSection><Info>i</Info><Property ovf:key="root" ovf:type="string" ovf:password="true" '
        'ovf:value="hunter2"><Value ovf:value="hunter2" ovf:configuration="c"/></Property></ProductSection>'
        "</VirtualSystem>"
    )
    text = descriptor([("", "d1", str(MIB))]).replace(b"</VirtualSystem>", section.encode())
    (shelf.images / "app.ova").write_bytes(archive({"app.ovf": text}))
    (vm,) = shelf.vms("app.ova")
    (told,) = vm["details"]["appliance"]["properties"]
    assert (told["key"], told["value"], told["password"]) == ("root", "", True)
    made = shelf.export("app.ova", format=format_)
    assert "hunter2" not in repr((vm, made, caplog.records))
    written = [path for below in ("store", "state") for path in (shelf.folder / below).rglob("*") if path.is_file()]
    assert [path.name for path in written if b"hunter2" in path.read_bytes()] == []
    marked = [path.suffix for path in written if b'ovf:password="true"' in path.read_bytes()]
    assert sorted(marked) == ([".ovf"] if format_ == "qcow2" else sorted([".ovf", f".{format_}"]))


@pytest.mark.parametrize("format_", ["ova", "ovf", "vma"])
def test_the_disk_that_is_read_is_the_one_that_is_told(
    format_: Any, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []
    jobs: list[Progress] = []
    disk, read = Progress.disk, DiskProgress.read

    def disk_told(self: Progress, number: int) -> DiskProgress:
        jobs.append(self)
        return disk(self, number)

    def read_told(self: DiskProgress, count: int) -> None:
        told.append((self.name, jobs[-1].where.rpartition(" ")[2]))
        read(self, count)

    shelf.ova()
    monkeypatch.setattr(Progress, "disk", disk_told)
    monkeypatch.setattr(DiskProgress, "read", read_told)
    shelf.export("app.ova", format=format_)
    assert told
    assert all(one == other for one, other in told)


def test_an_appliance_without_checksums_is_exported_with_a_warning(shelf: Shelf) -> None:
    shelf.ova(checked=False)
    assert "has no checksums" in shelf.export("app.ova")["warnings"][0]


def test_an_ova_whose_disk_is_not_what_its_checksum_says_leaves_nothing(shelf: Shelf) -> None:
    files = shelf.ova()
    body = bytearray((shelf.images / "app.ova").read_bytes())
    at = body.index(files["d.vmdk"]) + len(files["d.vmdk"]) - 300  # the end-of-stream marker's padding
    body[at] ^= 1
    (shelf.images / "app.ova").write_bytes(body)
    refused(lambda: shelf.export("app.ova"), "checksum_mismatch", "'d.vmdk' that is not what its checksum says")
    assert shelf.stored() == []


@pytest.mark.parametrize("format_", ["vmdk", "vmdk_sparse", "qcow2", "raw"])
def test_a_byte_of_an_ova_that_is_wrong_once_is_in_no_export(
    format_: str, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 24 * MIB
    content = Random(1).randbytes(size)
    (shelf.folder / "large.raw").write_bytes(content)
    options = {
        "vmdk": ("vmdk", "-o", "subformat=streamOptimized"),
        "vmdk_sparse": ("vmdk", "-o", "subformat=monolithicSparse"),
    }.get(format_, (format_,))
    run("qemu-img", "convert", "-f", "raw", "-O", *options, shelf.folder / "large.raw", shelf.folder / "large")
    image = (shelf.folder / "large").read_bytes()
    files = {"app.ovf": descriptor([("d", "d1", str(size))], format=FORMAT_URIS[format_][0]), "d": image}
    packed = archive({**files, "app.mf": sums(files)})
    (shelf.images / "app.ova").write_bytes(packed)
    refusals, place = 0, packed.index(image) + len(image) // 2
    for turn in range(1, 10):
        with monkeypatch.context() as patched:
            flipped = Flipped(patched, "app.ova", place, turn)
            try:
                made = shelf.export("app.ova", mode="full")
            except VmferryError as error:
                refusals += error.kind == "checksum_mismatch"
            if not flipped.was_wrong:
                break
            assert refusals == turn
    assert not flipped.was_wrong
    assert refusals >= 2
    assert shelf.content(made) == content


def test_an_image_that_stands_on_another_file_is_refused_before_anything_is_written(shelf: Shelf) -> None:
    secret = shelf.folder / "secret"
    secret.write_bytes(b"secret".ljust(MIB, b"\0"))
    layer = shelf.images / "web.qcow2"
    run("qemu-img", "create", "-f", "qcow2", "-b", secret, "-F", "raw", layer)
    refused(lambda: shelf.export("web.qcow2"), "invalid_config", "backing_file")
    assert not (shelf.folder / "store").exists()


def test_a_qcow2_that_is_called_raw_is_refused(shelf: Shelf) -> None:
    shelf.image("web.qcow2", "qcow2").rename(shelf.images / "web.raw")
    refused(lambda: shelf.export("web.raw"), "invalid_config", "disguised")


def test_check_mode_tells_everything_and_writes_nothing(shelf: Shelf) -> None:
    path = shelf.image("web.qcow2", "qcow2")
    with path.open("r+b"):
        told = shelf.export("web.qcow2", check_mode=True, consistency="powered_off")
    assert [one["kind"] for one in told["findings"]] == ["unsupported", "busy"]
    assert "how its guest was stopped" in told["findings"][0]["hint"]
    refused(lambda: shelf.export("web.qcow2", consistency="quiesced"), "unsupported", "the consistency quiesced")
    told = shelf.export("web.qcow2", check_mode=True)
    assert (told["findings"], told["plan"]["mode"], told["changed"]) == ([], "full", True)
    assert shelf.stored() == []


def test_some_disks_of_a_folder(shelf: Shelf) -> None:
    shelf.raw("db/a.raw", bytes(LEAF))
    shelf.raw("db/b.raw")
    made = shelf.export("db", disks=("b.raw",))
    assert [disk["name"] for disk in made["export"]["disks"]] == ["b.raw"]
    assert shelf.content(made) == GUEST


def test_an_increment_holds_the_leaves_that_differ_and_nothing_new_makes_none(shelf: Shelf) -> None:
    path = shelf.raw("web.raw")
    first = shelf.export("web.raw")
    assert not shelf.export("web.raw")["changed"]
    with path.open("r+b") as file:
        file.seek(MIB + 2 * LEAF + 17)
        file.write(b"changed")
        file.seek(MIB + 5 * LEAF)
        file.write(bytes(LEAF))
    now = path.read_bytes()
    second = shelf.export("web.raw", verify="content")
    assert (second["export"]["mode"], second["export"]["parent"]) == ("incremental", first["export"]["id"])
    assert "compared by digests" in second["export"]["reason"]
    assert second["export"]["disks"][0]["bytes_changed"] == 2 * LEAF
    assert shelf.content(second) == now


def test_an_image_of_another_format_in_the_same_place_still_makes_an_increment(shelf: Shelf) -> None:
    """The digests are of the guest's data, whatever holds it."""
    shelf.raw("web.img")
    shelf.export("web.img")
    shelf.image("web.img", "qcow2")
    again = shelf.export("web.img")
    assert (again["changed"], again["unchanged_since"] != "") == (False, True)


def test_an_image_that_was_resized_is_exported_in_full(shelf: Shelf) -> None:
    path = shelf.raw("web.raw")
    shelf.export("web.raw")
    os.truncate(path, SIZE + LEAF)
    again = shelf.export("web.raw")
    assert again["export"]["mode"] == "full"
    assert "resized" in again["export"]["fell_back"]
