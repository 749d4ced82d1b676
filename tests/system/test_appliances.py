# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An appliance that other tools packed becomes a VM that boots; and what it is refused for leaves nothing."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from engine.appliances.archives import MIB, archive, descriptor, sums
from engine.images.disks import run

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.seals import Seals
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.signing import Lenient
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs import fill_disks
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.copy_blocks import copy_blocks
from rigs import guests
from rigs.domain import boot_and_expect, remove_domain
from rigs.libvirt import LibvirtRig

from .exports import Bench
from .test_documented_results import assert_documented

BIOS = (b'vmw:key="firmware" vmw:value="efi"', b'vmw:key="firmware" vmw:value="bios"')


@pytest.fixture
def imported(rig: LibvirtRig) -> Iterator[str]:
    """A name for an import; the machine that it may become is removed afterwards."""
    yield "unpacked"
    for domain in rig.connect().listAllDomains():
        if domain.name() == "unpacked":
            remove_domain(domain)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    raw = guests.mbr_disk(tmp_path / "guest", "from an appliance", 4 * MIB)
    run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, tmp_path / "d.vmdk")
    text = descriptor([("d.vmdk", "d1", "4"), ("", "d2", "1")], units="byte * 2^20").replace(*BIOS)
    return {"app.ovf": text, "d.vmdk": (tmp_path / "d.vmdk").read_bytes()}


def placed(bench: Bench, files: dict[str, bytes], name: str = "app.ova") -> Bench:
    folder = bench.folder / "appliances"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(archive(files))
    for file, data in files.items():
        (folder / file).write_bytes(data)
    return replace(bench, store=replace(bench.store, url=f"file://{folder}/{name}"))


def test_an_ova_becomes_a_vm_that_boots_and_is_made_once(
    bench: Bench, rig: LibvirtRig, imported: str, files: dict[str, bytes]
) -> None:
    here = placed(bench, {**files, "app.mf": sums(files)})
    foreseen = here.import_(imported, check_mode=True, placement={"disk_bus": "sata"})
    assert foreseen["changed"]
    assert foreseen["plan"]["bytes_to_read"] == 2 * len(files["d.vmdk"])  # once for its checksum
    made = here.import_(imported, placement={"disk_bus": "sata"})
    assert_documented("vm_import", made, "vm", "appliance", "job", "diff")
    assert made["changed"]
    assert (made["appliance"]["name"], made["appliance"]["has_checksums"]) == ("web", True)
    assert [disk["size"] for disk in made["vm"]["disks"]] == [4 * MIB, MIB]
    assert (made["vm"]["cpu"], made["vm"]["memory_mb"], made["vm"]["firmware"]) == (2, 2048, "bios")
    boot_and_expect(rig, rig.connect().lookupByName(imported), guests.boot_marker("from an appliance"))
    assert not here.import_(imported, placement={"disk_bus": "sata"})["changed"]
    here.refused_import(imported, "conflict", "exists already", store=placed(bench, files, "other.ova").store)


def test_a_thin_disk_needs_no_room_for_what_is_not_in_it(bench: Bench, files: dict[str, bytes]) -> None:
    thin = descriptor([("d.vmdk", "d1", "4"), ("", "d2", str(8 << 20))], units="byte * 2^20").replace(*BIOS)
    here = placed(bench, {**files, "app.ovf": thin})
    found = here.import_("unpacked", check_mode=True)
    assert found["changed"]
    assert [one["kind"] for one in found["findings"] if one["severity"] == "warning"][:1] == ["no_space"]


def test_a_compressed_ova_is_read_where_it_lies(
    bench: Bench, rig: LibvirtRig, imported: str, files: dict[str, bytes]
) -> None:
    here = placed(bench, {**files, "app.mf": sums(files)})
    packed = Path(here.store.url.removeprefix("file://") + ".gz")
    packed.write_bytes(gzip.compress(archive({**files, "app.mf": sums(files)})))
    made = here.import_(imported, store=replace(here.store, url=f"file://{packed}"), placement={"disk_bus": "sata"})
    assert made["appliance"]["has_checksums"]
    boot_and_expect(rig, rig.connect().lookupByName(imported), guests.boot_marker("from an appliance"))
    names = {path.name for path in packed.parent.iterdir()}
    assert names == {"app.mf", "app.ova", "app.ova.gz", "app.ovf", "d.vmdk"}
    packed.write_bytes(packed.read_bytes()[:-100])
    here.refused_import("other", "invalid_config", "not whole", store=replace(here.store, url=f"file://{packed}"))


def test_an_ovf_is_read_with_the_files_beside_it(bench: Bench, imported: str, files: dict[str, bytes]) -> None:
    here = placed(bench, files)
    beside = replace(here.store, url=here.store.url.replace("app.ova", "app.ovf"))
    made = here.import_(imported, store=beside)
    assert not made["appliance"]["has_checksums"]
    assert "no checksums" in " ".join(made["warnings"])


@pytest.mark.parametrize("name", ["app.ova", "app.ovf", "d.vmdk"])
def test_without_checksums_too_a_file_that_changes_meanwhile_leaves_no_vm(
    name: str, bench: Bench, imported: str, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = placed(bench, files)
    url = here.store.url if name == "app.ova" else here.store.url.replace("app.ova", "app.ovf")
    changing = Path(url.removeprefix("file://")).with_name(name)

    def copied(*args: Any, **options: Any) -> Any:
        with changing.open("ab") as file:
            file.write(bytes(512))
        return copy_blocks(*args, **options)

    monkeypatch.setattr(fill_disks, "copy_blocks", copied)
    here.refused_import(imported, "conflict", "changed while it was read", store=replace(here.store, url=url))
    here.assert_no_machine(imported)


def test_a_disk_that_was_changed_leaves_no_vm(bench: Bench, imported: str, files: dict[str, bytes]) -> None:
    changed = {**files, "app.mf": sums({**files, "d.vmdk": files["d.vmdk"] + b"more"})}
    here = placed(bench, changed)
    here.refused_import(imported, "checksum_mismatch", "'d.vmdk' that is not what its checksum says")
    here.assert_no_machine(imported)


def test_options_that_choose_among_exports_are_refused(bench: Bench, files: dict[str, bytes]) -> None:
    here = placed(bench, files)
    here.refused_import("unpacked", "invalid_config", "choose among exports", export="20261121T063000Z-1a2b3c4d")
    here.refused_import("unpacked", "invalid_config", "choose among exports", vm="web")
    here.refused_import("unpacked", "invalid_config", "no signature", seals=Seals(trusts=(Lenient(cast("Any", None)),)))
