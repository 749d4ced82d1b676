# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An export that boots has been seen to boot, and nothing of the VM that showed it is left."""

from __future__ import annotations

import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import BootMarkers
from rigs import guests
from rigs.domain import Disk, Guest, Machine, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

from .exports import PATIENCE, Bench, meanwhile, refused
from .leftovers import left_in_folder
from .test_machine_bad_days import forget_job

if TYPE_CHECKING:
    import libvirt

NEVER = "this is never printed"


def trials(rig: LibvirtRig) -> list[libvirt.virDomain]:
    return [domain for domain in rig.connect().listAllDomains() if domain.name().startswith("boot-")]


def wait_for_trial(rig: LibvirtRig) -> libvirt.virDomain:
    deadline = time.monotonic() + PATIENCE
    while not (found := [domain for domain in trials(rig) if domain.state()[0] == 1]):
        assert time.monotonic() < deadline, "nothing boots"
        time.sleep(0.05)
    return found[0]


def assert_nothing_left(bench: Bench, vm: str, *, runs: bool = False) -> None:
    assert not trials(bench.rig)
    assert not list(left_in_folder(bench.images))
    bench.assert_nothing_left(vm, runs=runs)


def boots(bench: Bench, timeout: float = 30.0, **markers: Any) -> dict[str, Any]:
    made = bench.verify(level="boot", markers=BootMarkers(timeout=timeout, **markers))
    assert made["changed"]
    assert 0 < made["boot"]["seconds"] < timeout
    told: dict[str, Any] = made["export"]["last_verified"]
    assert (told["level"], told["passed"]) == ("boot", True)
    return made


def test_an_export_that_boots_passes_and_leaves_no_vm(bench: Bench, off: str) -> None:
    bench.export(off)
    boots(bench, serial=f"^BOOT-OK {off} +END")
    assert_nothing_left(bench, off)
    assert not bench.verify(level="content", max_age=3600.0)["changed"], "its content was compared on the way"


def test_an_increment_boots_from_a_bucket(s3_bench: Bench, off: str) -> None:
    s3_bench.export(off)
    disk = s3_bench.rig.directory / f"{off}.qcow2"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 0x41 2M 64k", str(disk)], check=True, capture_output=True)
    assert s3_bench.export(off)["export"]["mode"] == "incremental"
    boots(s3_bench, serial=guests.boot_marker(off))
    assert_nothing_left(s3_bench, off)


def test_an_export_boots_once_its_agent_answers(bench: Bench, linux: Guest) -> None:
    bench.export("linux", disks=("disk-0",))
    boots(bench, serial=guests.READY, agent=True, timeout=90.0)
    assert_nothing_left(bench, "linux", runs=True)


@pytest.fixture
def uefi(rig: LibvirtRig) -> Iterator[str]:
    """Never started, so that there are no variables to export."""
    disk = guests.place(guests.uefi_disk(), rig.directory / "trial-uefi.qcow2")
    machine = Machine("trial-uefi", disks=(Disk(disk),), boot="uefi", memory_mib=192)
    domain = rig.connect().defineXML(domain_xml(machine, rig.directory))
    yield "trial-uefi"
    remove_domain(domain)
    disk.unlink()


def is_nvram(path: Path) -> bool:
    return "nvram" in path.name or "VARS" in path.name


def test_variables_of_a_firmware_that_were_made_for_it_are_removed_again(bench: Bench, uefi: str) -> None:
    bench.export(uefi)

    def variables() -> set[Path]:
        return {path for place in (bench.rig.directory, bench.folder) for path in place.rglob("*") if is_nvram(path)}

    known = variables()
    refused(lambda: bench.verify(level="boot", markers=BootMarkers(NEVER, timeout=0.5)), "timeout", NEVER)
    assert variables() == known
    assert_nothing_left(bench, uefi)


def test_a_guest_that_does_not_boot_is_told_with_its_last_words(bench: Bench, off: str) -> None:
    bench.export(off)
    error = refused(
        lambda: bench.verify(level="boot", markers=BootMarkers(NEVER, timeout=1.0)),
        "timeout",
        f"did not show '{NEVER}'",
    )
    assert f"BOOT-OK {off} END" in str(error)
    assert (error.retryable, error.done["changed"]) == (False, True)
    (problem,) = error.done["problems"]
    assert (problem["problem"], problem["disk"], problem["offset"]) == (str(error), "", None)
    assert error.done["export"]["last_verified"]["passed"] is False
    assert_nothing_left(bench, off)


def test_it_has_no_network_and_that_it_ends_is_told_at_once(bench: Bench, rig: LibvirtRig, off: str) -> None:
    root = ET.fromstring(rig.connect().lookupByName(off).XMLDesc())
    devices = root.find("devices")
    assert devices is not None
    ET.SubElement(ET.SubElement(devices, "interface", type="user"), "model", type="virtio")
    rig.connect().defineXML(ET.tostring(root, "unicode"))
    assert "interface" in rig.connect().lookupByName(off).XMLDesc()
    bench.export(off)
    markers = BootMarkers(NEVER, timeout=PATIENCE)
    started = time.monotonic()
    with meanwhile(
        lambda: refused(
            lambda: bench.verify(level="boot", markers=markers), "timeout", ", and powered itself off after"
        )
    ) as outcome:
        domain = wait_for_trial(rig)
        assert "<interface" not in domain.XMLDesc()
        assert domain.UUIDString() != rig.connect().lookupByName(off).UUIDString()
        domain.destroy()
        outcome()
    assert time.monotonic() - started < PATIENCE
    assert_nothing_left(bench, off)


def test_a_damaged_export_is_not_booted_and_all_its_damage_is_told(bench: Bench, off: str) -> None:
    image = bench.stored(bench.export(off))
    data = bytearray(image.read_bytes())
    for place in (len(data) // 3, len(data) // 2):
        data[place] ^= 1
    image.write_bytes(data)
    error = refused(
        lambda: bench.verify(level="boot", markers=BootMarkers(NEVER, timeout=1.0)),
        "checksum_mismatch",
        "disk-0 is damaged",
    )
    assert len(error.done["problems"]) == 2
    assert_nothing_left(bench, off)


@pytest.mark.parametrize("markers", [BootMarkers()])
def test_without_a_marker_or_a_provider_nothing_is_started(bench: Bench, off: str, markers: BootMarkers) -> None:
    bench.export(off)
    refused(lambda: bench.verify(level="boot", markers=markers), "invalid_config", "Nothing tells")
    refused(lambda: bench.verify(level="boot", markers=BootMarkers("x"), provider=None), "invalid_config", "names none")
    assert_nothing_left(bench, off)


def test_check_mode_finds_what_would_stop_the_import(bench: Bench, off: str) -> None:
    bench.export(off)
    asked: dict[str, Any] = {"level": "boot", "markers": BootMarkers("x"), "check_mode": True}
    assert bench.verify(**asked)["changed"]
    found = bench.verify(**asked, storage=str(bench.folder / "nowhere"))
    assert not found["changed"]
    assert "nowhere does not exist" in found["findings"][0]["message"]
    refused(lambda: bench.verify(**{**asked, "check_mode": False}, storage="/nowhere"), "not_found", "/nowhere")
    assert_nothing_left(bench, off)


def slow_boot(bench: Bench, vm: str) -> dict[str, Any]:
    boot = {"serial": NEVER, "storage": str(bench.images), "timeout": "60s"}
    return bench.module_arguments(vm=vm, level="boot", boot=boot)


def test_a_cancelled_trial_leaves_nothing(bench: Bench, off: str) -> None:
    bench.export(off)
    with bench.running_module("export_verify", slow_boot(bench, off)) as process:
        assert "waiting for boot-" in process.wait_for_note()
        wait_for_trial(bench.rig)
        process.signal(signal.SIGTERM)
        assert process.result()["error"]["kind"] == "cancelled"
    assert_nothing_left(bench, off)


def test_a_killed_trial_ends_by_itself_and_the_next_one_removes_its_disks(
    bench: Bench, off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.export(off)
    monkeypatch.setenv("VMFERRY_FAILPOINT", "trial_runs")
    with bench.running_module("export_verify", slow_boot(bench, off)) as process:
        assert process.process.wait(PATIENCE) == -signal.SIGKILL
        monkeypatch.delenv("VMFERRY_FAILPOINT")
        deadline = time.monotonic() + PATIENCE
        while trials(bench.rig):
            assert time.monotonic() < deadline, "it runs although nobody watches it"
            time.sleep(0.05)
    assert list(left_in_folder(bench.images))
    boots(bench, serial=guests.boot_marker(off))
    forget_job(bench, process.job)
    assert_nothing_left(bench, off)


@pytest.fixture
def drawing(rig: LibvirtRig) -> Iterator[str]:
    disk = guests.place(guests.screen_disk(rig.directory / "drawing.raw"), rig.directory / "drawing.qcow2")
    domain = rig.connect().defineXML(domain_xml(Machine("drawing", disks=(Disk(disk),), memory_mib=32), rig.directory))
    yield "drawing"
    remove_domain(domain)
    for path in (disk, rig.directory / "drawing.raw"):
        path.unlink()


def test_an_export_boots_once_its_screen_is_its_own(bench: Bench, drawing: str) -> None:
    bench.export(drawing)
    booted = boots(bench, screen=True)
    assert booted["boot"]["seconds"] > 1, "its firmware's screen was there for a while, and was not taken for its own"
    assert_nothing_left(bench, drawing)


@pytest.mark.parametrize("bootable", [True, False])
def test_a_guest_that_leaves_the_firmwares_screen_as_it_is_has_not_booted(
    bench: Bench, off: str, bootable: bool
) -> None:
    """Neither one that never draws, nor a disk with nothing to boot, of which the firmware tells in a line more."""
    if not bootable:
        disk = bench.rig.directory / f"{off}.qcow2"
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -z 0 512", str(disk)], check=True, capture_output=True)
    bench.export(off)
    refused(
        lambda: bench.verify(level="boot", markers=BootMarkers(screen=True, timeout=5.0)),
        "timeout",
        "did not show a screen that is not its firmware's within 5 s",
    )
    assert_nothing_left(bench, off)
