# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive of Proxmox VE becomes a VM that boots, in one pass over it; and one that is not whole leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import zstandard
from engine.images.disks import mixed
from engine.images.vma_archives import Archive, clusters_of

from rigs import guests
from rigs.domain import boot_and_expect, remove_domain
from rigs.libvirt import LibvirtRig

from .exports import MIB, Bench, compare
from .test_documented_results import assert_documented
from .test_import import networks

__all__ = ["networks"]

NAME, LABEL = "of-an-archive", "out of an archive"
CONFIG = b"""\
boot: order=sata0
cores: 2
ide2: none,media=cdrom
memory: 256
name: shop
sata0: local-lvm:vm-104-disk-0,size=4M
scsi3: local-lvm:vm-104-disk-1,size=2M
#qmdump#map:sata0:drive-sata0:local-lvm:raw:
#qmdump#map:scsi3:drive-scsi3:local-lvm:raw:
"""
NIC = b"net0: e1000=BC:24:11:2E:C3:5A,bridge=vmbr0\n"


@pytest.fixture(autouse=True)
def unmade(rig: LibvirtRig) -> Iterator[None]:
    """The machine that an archive may become is removed afterwards."""
    yield
    for domain in rig.connect().listAllDomains():
        if domain.name() == NAME:
            remove_domain(domain)


@pytest.fixture
def disks(tmp_path: Path) -> dict[str, Path]:
    """One that boots, and another."""
    boots, other = guests.mbr_disk(tmp_path / "guest", LABEL, 4 * MIB), tmp_path / "other"
    other.write_bytes(mixed(0, 2 * MIB, 3))
    return {"drive-sata0": boots, "drive-scsi3": other}


def placed(
    bench: Bench, disks: dict[str, Path], name: str = "vzdump-qemu-104.vma.zst", lost: int = 0, config: bytes = CONFIG
) -> Bench:
    """With pieces of both disks taking turns, in any order, as of a guest that ran."""
    contents = {device: path.read_bytes() for device, path in disks.items()}
    clusters = [one for number, data in enumerate(contents.values(), 1) for one in clusters_of(number, data)]
    Random(4).shuffle(clusters)
    devices = [(number, device, len(data)) for number, (device, data) in enumerate(contents.items(), 1)]
    whole = Archive(devices, clusters, [("qemu-server.conf", config)]).whole()
    packed = zstandard.compress(whole) if name.endswith(".zst") else whole
    path = bench.folder / "archives" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(packed[: len(packed) - lost])
    return replace(bench, store=replace(bench.store, url=f"file://{path}"))


def test_an_archive_becomes_a_vm_that_boots_and_is_made_once(
    bench: Bench, rig: LibvirtRig, disks: dict[str, Path]
) -> None:
    here = placed(bench, disks)
    foreseen = here.import_(NAME, check_mode=True)
    size = Path(here.store.url.removeprefix("file://")).stat().st_size
    assert foreseen["plan"]["bytes_to_read"] == size
    assert [disk["size"] for disk in foreseen["plan"]["disks"]] == [4 * MIB, 2 * MIB]
    made = here.import_(NAME)
    assert_documented("vm_import", made, "vm", "appliance", "job", "diff")
    assert (made["appliance"]["name"], made["appliance"]["has_checksums"]) == ("shop", False)
    assert (made["vm"]["cpu"], made["vm"]["memory_mb"], made["vm"]["firmware"]) == (2, 256, "bios")
    assert [disk["bus"] for disk in made["vm"]["disks"]] == ["sata", "scsi"]
    for found, expected in zip(made["vm"]["disks"], disks.values()):
        compare(expected, "raw", found["source"], found["format"])
    boot_and_expect(rig, rig.connect().lookupByName(NAME), guests.boot_marker(LABEL))
    assert not here.import_(NAME)["changed"]
    assert {path.name for path in (bench.folder / "archives").iterdir()} == {"vzdump-qemu-104.vma.zst"}


def test_its_bridges_are_networks_that_can_be_mapped(bench: Bench, networks: None, disks: dict[str, Path]) -> None:
    here = placed(bench, disks, config=NIC + CONFIG)
    here.refused_import(NAME, "not_found", "no network vmbr0")
    made = here.import_(NAME, placement={"network_map": {"vmbr0": "lab"}, "keep_mac": True})
    assert [(nic["model"], nic["network"], nic["mac"]) for nic in made["vm"]["nics"]] == [
        ("e1000", "lab", "bc:24:11:2e:c3:5a")
    ]


@pytest.mark.parametrize(("name", "lost", "words"), [("a.vma", 512, "ends early"), ("a.vma.zst", 1, "not whole")])
def test_one_that_is_not_whole_leaves_no_vm(
    bench: Bench, disks: dict[str, Path], name: str, lost: int, words: str
) -> None:
    here = placed(bench, disks, name, lost)
    here.refused_import(NAME, "invalid_config", words)
    here.assert_no_machine(NAME)


def test_options_of_exports_and_of_images_are_refused(bench: Bench, disks: dict[str, Path]) -> None:
    here = placed(bench, disks)
    here.refused_import(NAME, "invalid_config", "choose among exports", vm="shop")
    here.refused_import(NAME, "invalid_config", "network cards", networks=("default",))
