# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A chain goes on over a reboot of the host where nothing was lost, and begins anew, and says why, where something was.

What a reboot takes away is taken away: libvirtd, QEMU, the watchdog and the run directory. What is on disks stays:
images, libvirt's definitions and checkpoints, the scratch folder and the store. Who wrote there is of another boot.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import INTENT, LEASE, read_intent
from rigs import guests
from rigs.domain import Disk, Guest, Machine, define_and_start
from rigs.libvirt import LibvirtRig

from .conftest import small_disk
from .exports import MIB, Bench, compare
from .libvirt_provider.harness import watchdog_of
from .libvirt_provider.qemu_monitor import write_as_guest
from .test_resume import kill

LEAF = 65536
VM = "sturdy"


@pytest.fixture(scope="module")
def host(marked: None) -> Iterator[LibvirtRig]:
    """Of its own: it loses all that runs on it."""
    with LibvirtRig() as started:
        yield started


@dataclass
class Host:
    bench: Bench
    guest: Guest
    disk: Path
    format: str
    written: int = 0

    def write(self) -> None:
        """One leaf, among those that hold something already: what is lost of it is not seen by its size."""
        self.written += 1
        write_as_guest(self.guest, "virtio-disk0", 2 * MIB + 3 * LEAF * self.written, LEAF, self.written)

    def export(self, **options: Any) -> dict[str, Any]:
        """It holds what the disk does."""
        result = self.bench.export(VM, **options)
        compare(self.bench.stored(result), "qcow2", self.disk, self.format)
        return result

    def changed(self, result: dict[str, Any]) -> tuple[str, int]:
        (disk,) = result["export"]["disks"]
        return result["export"]["mode"], disk["bytes_changed"] // LEAF

    def restart_guest(self) -> None:
        """In good order, which stores its bitmaps. While it runs, the image says that they are in use."""
        self.guest.domain.destroy()
        self.guest.domain.create()

    def boot(self) -> None:
        self.bench.rig.start()


@pytest.fixture(params=["qcow2"])
def reboots(host: LibvirtRig, bench: Bench, request: pytest.FixtureRequest) -> Iterator[Host]:
    disk = small_disk(host.directory / f"{VM}.{request.param}", VM, request.param)
    guest = define_and_start(host, Machine(VM, disks=(Disk(disk, request.param),), memory_mib=32))
    guest.console.wait_for(guests.boot_marker(VM))
    guest.console.close()
    yield Host(replace(bench, rig=host), guest, disk, request.param)
    guest.destroy()
    disk.unlink()


def test_a_chain_goes_on_over_a_reboot_in_good_order(reboots: Host) -> None:
    full = reboots.export()
    reboots.write()
    reboots.guest.domain.destroy()
    reboots.bench.rig.shut_down()
    reboots.boot()
    off = reboots.export()
    assert (off["export"]["parent"], off["export"]["fell_back"]) == (full["export"]["id"], "")
    assert reboots.changed(off) == ("incremental", 1), "before anybody started it again"
    reboots.guest.domain.create()
    reboots.write()
    reboots.guest.domain.destroy()
    reboots.bench.rig.shut_down()
    reboots.boot()
    reboots.guest.domain.create()
    reboots.write()
    assert reboots.changed(reboots.export(mode="incremental")) == ("incremental", 2), "of both sides of the reboot"
    reboots.bench.assert_nothing_left(VM)


@pytest.mark.parametrize("then", ["off", "on"])
def test_after_a_loss_of_power_nobody_believes_what_was_tracked_and_a_full_export_says_so(
    reboots: Host, then: str
) -> None:
    reboots.export()
    reboots.restart_guest()
    reboots.write()
    assert reboots.changed(reboots.export(mode="incremental")) == ("incremental", 1)
    reboots.write()
    reboots.bench.rig.cut_power()
    reboots.boot()
    if then == "on":
        reboots.guest.domain.create()
    made = reboots.export()
    assert made["export"]["mode"] == "full"
    assert "is missing or broken" in made["export"]["fell_back"]
    if then == "off":
        reboots.guest.domain.create()
    reboots.write()
    again = reboots.export(mode="incremental")
    assert (again["export"]["parent"], *reboots.changed(again)) == (made["export"]["id"], "incremental", 1)
    reboots.bench.assert_nothing_left(VM)


@pytest.mark.parametrize("reboots", ["raw"], indirect=True)
def test_what_is_compared_by_digests_goes_on_over_a_loss_of_power(reboots: Host) -> None:
    full = reboots.export()
    reboots.write()
    reboots.bench.rig.cut_power()
    reboots.boot()
    reboots.guest.domain.create()
    made = reboots.export()
    assert (made["export"]["parent"], *reboots.changed(made)) == (full["export"]["id"], "incremental", 1)


def test_an_export_that_was_held_over_a_loss_of_power_is_begun_anew_and_says_why(
    reboots: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    reboots.export()
    reboots.write()
    kill(reboots.bench, monkeypatch, "data-sent", vm=VM)
    os.kill(watchdog_of(reboots.bench.scratch), signal.SIGKILL)
    reboots.bench.rig.cut_power()
    is_of_an_earlier_boot(reboots.bench)
    reboots.boot()
    reboots.guest.domain.create()
    reboots.write()
    made = reboots.export()
    assert "is gone" in made["resumed"]["reason"]
    assert (made["resumed"]["export"], made["resumed"]["bytes_kept"]) == ("", 0)
    assert made["export"]["mode"] == "full"
    assert "is missing or broken" in made["export"]["fell_back"]
    reboots.bench.assert_nothing_left(VM)


def test_an_export_of_a_vm_that_is_off_goes_on_after_a_loss_of_power(
    reboots: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    reboots.guest.domain.destroy()
    kill(reboots.bench, monkeypatch, "journal-closed", vm=VM)
    os.kill(watchdog_of(reboots.bench.scratch), signal.SIGKILL)
    reboots.bench.rig.cut_power()
    is_of_an_earlier_boot(reboots.bench)
    reboots.boot()
    made = reboots.export()
    assert (made["resumed"]["export"], made["resumed"]["reason"]) == (made["export"]["id"], "")
    reboots.guest.domain.create()
    reboots.write()
    assert reboots.changed(reboots.export(mode="incremental")) == ("incremental", 1)
    reboots.bench.assert_nothing_left(VM)


def is_of_an_earlier_boot(bench: Bench) -> None:
    """What lies on disks was written then, and the boot took longer than a lease."""
    now, then = Path("/proc/sys/kernel/random/boot_id").read_text().strip(), str(uuid.uuid4())
    touched = []
    for folder in (bench.scratch, bench.folder / "store", bench.state):
        for path in folder.rglob("*"):
            if path.is_file() and now.encode() in (text := path.read_bytes()):
                path.write_bytes(text.replace(now.encode(), then.encode()))
                touched.append(path.name)
    assert {"owner.json", INTENT} <= set(touched)
    (path,) = (bench.folder / "store").rglob(INTENT)
    intent = read_intent(path.read_bytes(), INTENT)
    path.write_bytes(replace(intent, lease_until=intent.lease_until - 2 * LEASE).to_json())
