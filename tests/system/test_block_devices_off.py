# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Block devices of a VM that is off. libvirt gives each QEMU a /dev of its own, with nodes made for it: the same device
by another inode, so that neither the locks nor the times of the host's node tell of that QEMU."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import Limits, Protections
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.clean_up_exports import clean_up_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    CleanupRequest,
    SnapshotOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt import image_stamp
from rigs.domain import Disk, Machine, domain_xml
from rigs.loop import loop_device

from .exports import MIB, PATIENCE, Bench, convert, meanwhile, refused, wait_until_read

SIZE = 48 * MIB
WRITTEN = (10 * MIB, 40 * MIB)


@pytest.fixture
def node(bench: Bench) -> Iterator[Path]:
    """The node that a QEMU gets in its own mount namespace, of the only disk of the VM `lv`, which is off."""
    image = bench.folder / "lv.img"
    image.write_bytes(random.Random("lv").randbytes(SIZE - MIB) + bytes(MIB))
    with loop_device(image) as device:
        other = bench.folder / "node"
        os.mknod(other, stat.S_IFBLK | 0o600, device.stat().st_rdev)
        machine = Machine("lv", (Disk(device, "raw", kind="block"),), memory_mib=32)
        domain = bench.rig.connect().defineXML(domain_xml(machine, bench.rig.directory))
        yield other
        domain.undefine()
        other.unlink()


def run_guest(node: Path) -> None:
    """It is started, writes near both ends, and is shut down."""
    commands = [word for at in WRITTEN for word in ("-c", f"write -P 1 {at} 1M")]
    subprocess.run(["qemu-io", "-f", "raw", *commands, str(node)], check=True, capture_output=True)


def has_writes(image: Path) -> list[bool]:
    data = image.read_bytes()
    return [data[at : at + 4096] == b"\1" * 4096 for at in WRITTEN]


def kill(bench: Bench, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    monkeypatch.setenv("VMFERRY_FAILPOINT", "journal-written:2")
    with bench.running_module("vm_export", bench.module_arguments(vm="lv", **options)) as killed:
        assert killed.process.wait(PATIENCE) == -signal.SIGKILL
    monkeypatch.delenv("VMFERRY_FAILPOINT")


def test_a_killed_export_of_a_device_begins_anew_once_the_vm_ran(
    bench: Bench, node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch)
    run_guest(node)
    result = bench.export("lv")
    assert "was changed since" in result["resumed"]["reason"]
    assert has_writes(convert(bench.stored(result), "qcow2", bench.folder / "restored.raw")) == [True, True]


def test_a_killed_export_of_a_device_that_nobody_wrote_to_is_gone_on_with(
    bench: Bench, node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch)
    resumed = bench.export("lv")["resumed"]
    assert (resumed["reason"], resumed["bytes_kept"] > 0) == ("", True)


def test_a_vm_that_runs_on_a_device_while_it_is_exported_makes_the_export_fail(bench: Bench, node: Path) -> None:
    def export() -> None:
        def run_soon() -> None:
            wait_until_read(bench)
            run_guest(node)

        with meanwhile(run_soon) as ran:
            bench.export("lv", transfer={"bandwidth_limit": "12MiB/s"})
        ran()

    refused(export, "conflict", "was changed while it was being exported")


def test_a_device_whose_writes_nobody_counts_is_exported_with_a_warning_and_never_gone_on_with(
    bench: Bench, node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch)
    monkeypatch.setattr(image_stamp, "DEVICES", bench.folder / "no sys")
    result = bench.export("lv")
    assert "was changed since" in result["resumed"]["reason"]
    assert "cannot be told" in result["warnings"][0]


@pytest.fixture
def snapshot(bench: Bench, node: Path) -> Iterator[str]:
    """`then`, of another program, with an overlay that is a file. The VM's description without that."""
    text = f"""<domainsnapshot><name>then</name><disks><disk name='vda' snapshot='external'>
    <driver type='qcow2'/><source file='{bench.folder}/overlay.qcow2'/></disk></disks></domainsnapshot>"""
    domain = bench.rig.connect().lookupByName("lv")
    without_overlay = domain.XMLDesc()
    domain.snapshotCreateXML(text, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY)
    yield without_overlay
    domain.snapshotLookupByName("then").delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)


SOURCE = SnapshotOptions(source="then")


def test_a_device_below_a_snapshot_that_is_written_to_while_it_is_read_makes_the_export_fail(
    bench: Bench, node: Path, snapshot: str
) -> None:
    """As `virsh blockcommit` does, by the node that its QEMU has."""

    def export() -> None:
        def run_soon() -> None:
            wait_until_read(bench)
            run_guest(node)

        with meanwhile(run_soon) as ran:
            bench.export("lv", snapshot=SOURCE, transfer={"bandwidth_limit": "12MiB/s"})
        ran()

    refused(export, "conflict", "was changed while it was being exported")


def test_a_vm_that_leaves_the_overlay_of_its_snapshot_while_that_is_read_makes_the_export_fail(
    bench: Bench, node: Path, snapshot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody counts what is written, this is what a merge is known by: the snapshot's description stays."""
    monkeypatch.setattr(image_stamp, "DEVICES", bench.folder / "no sys")

    def export() -> None:
        def merge_soon() -> None:
            wait_until_read(bench)
            bench.rig.connect().defineXML(snapshot)

        with meanwhile(merge_soon) as was_merged:
            bench.export("lv", snapshot=SOURCE, transfer={"bandwidth_limit": "12MiB/s"})
        was_merged()

    refused(export, "conflict", "was changed while it was being exported")


def test_a_killed_export_of_a_snapshot_begins_anew_once_the_device_below_it_was_written_to(
    bench: Bench, node: Path, snapshot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, snapshot={"source": "then"})
    run_guest(node)
    result = bench.export("lv", snapshot=SOURCE)
    assert "an image of it was changed since" in result["resumed"]["reason"]
    assert has_writes(convert(bench.stored(result), "qcow2", bench.folder / "restored.raw")) == [True, True]


def test_a_killed_export_of_a_snapshot_on_a_device_is_gone_on_with_also_after_a_cleanup(
    bench: Bench, node: Path, snapshot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, snapshot={"source": "then"})
    clean_up_exports(CleanupRequest(bench.store, Limits(), Protections(), orphans=True, provider=bench.provider), False)
    resumed = bench.export("lv", snapshot=SOURCE)["resumed"]
    assert (resumed["reason"], resumed["bytes_kept"] > 0) == ("", True)


def test_a_snapshot_on_a_device_whose_writes_nobody_counts_is_exported_with_a_warning(
    bench: Bench, node: Path, snapshot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_stamp, "DEVICES", bench.folder / "no sys")
    assert any("cannot be told" in one for one in bench.export("lv", snapshot=SOURCE)["warnings"])
