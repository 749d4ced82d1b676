# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks with an I/O thread: old versions of QEMU crash when a backup job serves them, so they are not asked to."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import libvirt
import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import SnapshotOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._providers import qemu_serving
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Tracking
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt import domain_xml as read_xml
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt import live_export
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.open import open_provider
from rigs import guests
from rigs.domain import Disk, Machine, domain_xml, remove_domain, start_with_console
from rigs.libvirt import LibvirtRig

from .conftest import small_disk
from .exports import Bench
from .snapshots import content

JOB = Job("0" * 32, "1" * 8, "2" * 8)


@pytest.fixture(params=["virtio", "scsi"])
def threaded(rig: LibvirtRig, request: pytest.FixtureRequest) -> Iterator[libvirt.virDomain]:
    """A guest that runs, whose first disk has an I/O thread, of its own or its controller's; its second has none."""
    bus = request.param
    first = small_disk(rig.directory / f"threaded-{bus}.qcow2", "threaded", "qcow2")
    second = guests.mbr_disk(rig.directory / f"threaded-{bus}.raw", "second")
    machine = Machine(f"threaded-{bus}", (Disk(first, bus=bus), Disk(second, "raw", "sata")), memory_mib=32)
    root = ET.fromstring(domain_xml(machine, rig.directory))
    root.append(ET.fromstring("<iothreads>1</iothreads>"))
    driver = root.find("devices/disk/driver")
    if bus == "scsi":
        controller = root.find("devices/controller[@type='scsi']")
        assert controller is not None
        driver = ET.SubElement(controller, "driver")
    assert driver is not None
    driver.set("iothread", "1")
    domain = rig.connect().defineXML(ET.tostring(root, "unicode"))
    with closing(start_with_console(domain)) as console:
        console.wait_for(guests.boot_marker("threaded"))
        yield domain
    remove_domain(domain)


def first_disk(domain: libvirt.virDomain) -> tuple[str, Path]:
    target, source = next((one.target, one.source) for one in read_xml.disks(read_xml.parse(domain.XMLDesc())))
    return target, Path(source)


def test_it_is_not_exported_by_a_qemu_that_would_crash_but_its_snapshot_is(
    bench: Bench, threaded: libvirt.virDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_serving, "SAFE", (99, 0, 0))
    name, (target, source) = threaded.name(), first_disk(threaded)
    bench.refused_export(
        name,
        "unsupported",
        f"which may crash when disks with an I/O thread of their own are read while it runs: {target}.",
    )
    with closing(open_provider("libvirt", bench.provider.settings)) as provider:
        vm = provider.describe(name)
        errors = [one for one in provider.check_export(vm, vm.disks, "auto") if one.severity == "error"]
        assert [(one.kind, "snapshot" in one.hint) for one in errors] == [("unsupported", True)]
        with pytest.raises(VmferryError, match="may crash"):
            provider.open_export(vm, vm.disks, "auto", JOB).__enter__()
        assert not list(bench.scratch.iterdir())
    before = content(source)
    made = bench.export(name, disks=(target,), snapshot=SnapshotOptions())
    assert content(bench.stored(made)) == before
    assert bench.export(name, disks=("sda" if target == "vda" else "sdb",))["changed"], "that one has no thread"
    assert threaded.isActive()


def test_it_lives_on_whatever_this_qemu_is(bench: Bench, threaded: libvirt.virDomain) -> None:
    name, (target, source) = threaded.name(), first_disk(threaded)
    before = content(source)
    if threaded.connect().getVersion() >= 8_002_003:
        made = bench.export(name, disks=(target,), consistency="crash_consistent")
        assert content(bench.stored(made)) == before
    else:
        bench.refused_export(name, "unsupported", "may crash", consistency="crash_consistent")
    assert threaded.isActive()


@pytest.mark.parametrize("threaded", ["virtio"], indirect=True)
def test_the_job_of_a_dead_run_is_not_gone_on_with(
    bench: Bench, threaded: libvirt.virDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_serving, "SAFE", (0, 0, 0))
    monkeypatch.setattr(live_export.LiveExport, "_open_disks", lambda *_: None)  # a client could be the end of it
    with closing(open_provider("libvirt", bench.provider.settings)) as provider:
        vm = provider.describe(threaded.name())
        with provider.open_export(vm, vm.disks, "auto", JOB) as session:
            monkeypatch.setattr(qemu_serving, "SAFE", (99, 0, 0))
            with pytest.raises(VmferryError, match="may crash"):
                provider.reopen_export(vm, vm.disks, JOB, Tracking(), session.reference).__enter__()
    assert threaded.isActive()
