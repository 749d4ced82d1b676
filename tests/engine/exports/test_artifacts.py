# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Artifact Manifests of other tools: what is told, which disk boots where that was left out, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.artifacts import (
    Artifacts,
    is_of_others,
    read_artifacts,
)

from .samples import manifest

WHERE = "file:///srv/web/manifest.json"


def disk(number: int = 0, **more: Any) -> dict[str, Any]:
    path = f"/var/lib/hypersdk/web/web-{number}.vmdk"
    return {"id": f"disk-{number}", "source_format": "vmdk", "bytes": 4096, "local_path": path, **more}


def document(*disks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"manifest_version": "1.0", "disks": list(disks or [disk()]), **more}


def read(found: Any) -> Artifacts:
    return read_artifacts(json.dumps(found).encode(), WHERE)


def refusal(found: Any, kind: str = "invalid_config") -> VmferryError:
    with pytest.raises(VmferryError) as raised:
        read(found)
    assert raised.value.kind == kind
    assert raised.value.message.startswith(WHERE)
    assert raised.value.hint
    return raised.value


def test_what_is_told_is_taken_and_what_is_null_is_not_told() -> None:
    checksum = "sha256:" + "AB" * 32
    found = read(
        document(
            disk(checksum=checksum, label=None, disk_type="boot", boot_order_hint=0),
            source={"provider": "vsphere", "vm_name": "web", "datacenter": None},
            vm={
                "cpu": 4,
                "mem_gb": 8,
                "firmware": "efi",
                "secureboot": True,
                "os_hint": "linux",
                "os_version": "RHEL 9",
            },
            nics=[{"id": "nic-0", "mac": "00-50-56-AA-BB-CC", "network": "VM Network"}],
            output=None,
        )
    )
    assert (found.name, found.cpus, found.memory, found.firmware) == ("web", 4, 8 << 30, "uefi")
    assert (found.secure_boot, found.os_name, found.warnings) == (True, "RHEL 9", ())
    (only,) = found.disks
    assert (only.id, only.file, only.format, only.bytes) == ("disk-0", "web-0.vmdk", "vmdk", 4096)
    assert only.sha256 == "ab" * 32
    assert [(card.mac, card.network) for card in found.cards] == [("00:50:56:aa:bb:cc", "VM Network")]


def test_what_is_not_told_is_empty() -> None:
    found = read(document())
    assert (found.name, found.cpus, found.memory, found.os_name, found.cards) == ("", 0, 0, "", ())
    assert found.firmware == "bios"
    assert ["BIOS" in warning for warning in found.warnings] == [True]
    assert found.disks[0].sha256 == ""


@pytest.mark.parametrize(
    ("disks", "order"),
    [
        ([(0, "boot"), (1, "data")], "01"),
        ([(1, "data"), (0, "boot")], "10"),
        ([(None, "boot"), (1, "data")], "01"),  # as hypersdk writes the first of these two
        ([(1, "data"), (None, "boot")], "10"),
        ([(1, "data"), (None, "data")], "10"),
        ([(1, "unknown"), (2, "unknown"), (None, "unknown")], "201"),
        ([(2, "data"), (1, "data")], "10"),  # as hypersdk counts where a descriptor comes first
        ([(None, "data"), (None, "boot")], "10"),
        ([(None, "unknown"), (None, "unknown")], "01"),
        ([(None, "boot"), (0, "data")], "10"),  # who says 0 means it
        ([(3, "boot"), (None, "data"), (1, "data")], "021"),
    ],
)
def test_the_disk_that_boots_is_found_also_where_nobody_says_so(
    disks: list[tuple[int | None, str]], order: str
) -> None:
    described = [
        disk(number, disk_type=kind, **({} if hint is None else {"boot_order_hint": hint}))
        for number, (hint, kind) in enumerate(disks)
    ]
    found = read(document(*described, vm={"firmware": "bios"}))
    assert [one.id for one in found.disks] == [f"disk-{number}" for number in order]
    is_told = 0 in [hint for hint, _kind in disks]
    assert bool(found.warnings) != is_told, "what was deduced is said"


def test_changes_inside_the_guest_are_not_made_in_silence() -> None:
    for more in ({"pipeline": {"fix": {"enabled": True}}}, {"configuration": {"hostname": {"name": "web"}}}):
        found = read(document(vm={"firmware": "bios"}, **more))
        assert ["inside the guest" in warning for warning in found.warnings] == [True]
    assert not read(document(vm={"firmware": "bios"}, pipeline={"fix": {"enabled": False}})).warnings


@pytest.mark.parametrize(
    "path", ["web.vmdk", "disks/web.vmdk", "/a/../b/web.vmdk", "C:\\exports\\web.vmdk", "\\\\h\\s\\web.vmdk"]
)
def test_only_the_name_of_an_image_counts(path: str) -> None:
    assert read(document(disk(local_path=path))).disks[0].file == "web.vmdk"


LIES: dict[str, tuple[Any, str]] = {
    "no object": ([], "is not a JSON object"),
    "no disks": ({"manifest_version": "1.0", "disks": []}, "has 0 disks"),
    "too many disks": (document(*[disk(number) for number in range(257)]), "has 257 disks"),
    "a disk twice": (document(disk(), disk()), "names a disk twice"),
    "an id of another shape": (document(disk(id="../x")), "id is not"),
    "no id": (document(disk(id=None)), "id is missing"),
    "no path": (document(disk(local_path=None)), "local_path is missing"),
    "a path that is none": (document(disk(local_path=["/x"])), "local_path is not a text"),
    "an unknown format": (document(disk(source_format="iso")), "source_format is none of"),
    "a negative size": (document(disk(bytes=-1)), "bytes is not a whole number"),
    "a size that is none": (document(disk(bytes=True)), "bytes is not a whole number"),
    "a short checksum": (document(disk(checksum="sha256:ab")), "checksum is not"),
    "another checksum": (document(disk(checksum="md5:" + "a" * 64)), "checksum is not"),
    "a negative hint": (document(disk(boot_order_hint=-1)), "boot_order_hint is not"),
    "an unknown kind": (document(disk(disk_type="cdrom")), "disk_type is none of"),
    "an unknown firmware": (document(vm={"firmware": "coreboot"}), "firmware is none of"),
    "too many processors": (document(vm={"cpu": 4097}), "cpu is 4097"),
    "too much memory": (document(vm={"mem_gb": 1 << 40}), f"mem_gb is {1 << 40}"),
    "a mac that is none": (document(nics=[{"mac": "00:50:56:aa:bb"}]), "mac is not"),
    "too many cards": (document(nics=[{}] * 65), "has 65 network cards"),
    "a vm that is none": (document(vm=[]), "vm is not a JSON object"),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_cannot_be_right_is_refused(lie: str) -> None:
    found, words = LIES[lie]
    assert words in refusal(found).message


def test_another_version_is_not_read() -> None:
    assert "'2.0'" in refusal({**document(), "manifest_version": "2.0"}, "unsupported").message


def test_a_manifest_of_ours_is_not_one_of_others() -> None:
    assert is_of_others(json.dumps(document()).encode())
    assert not is_of_others(manifest().to_json(lambda name: name))
    for other in (b"", b"{", b"[]", b"{}", b"\xff", b"[" * 100_000):
        assert not is_of_others(other)


def test_what_we_write_has_the_hint_of_the_disk_that_boots() -> None:
    """Read as others do, who know nothing of the rest."""
    written = json.loads(manifest().to_json(lambda name: f"/srv/{name}"))
    del written["x_vmferry"]
    found = read(written)
    assert [one.id for one in found.disks] == [one.id for one in manifest().disks]
    assert [one.hint for one in found.disks] == list(range(len(found.disks)))
