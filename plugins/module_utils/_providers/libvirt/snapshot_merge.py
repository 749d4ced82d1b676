# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Merging the layer of an external snapshot into the image below, such that a kill at any moment leaves a valid chain.

Running: a block commit (https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainBlockCommit), with a pivot where
the layer is the newest. Off: `qemu-img commit`; the layer goes on saying all that it said until nothing stands on it
any more. Libvirt 9.0 could delete such snapshots itself, but neither the oldest of several while a VM is off, nor with
an end to how long the VM is busy.
"""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from copy import deepcopy
from typing import TYPE_CHECKING, Mapping, Sequence

from ..._errors import VmferryError
from ..._nbd.qemu_img import qemu_img
from ..._transfer.failpoints import failpoint
from ..spec import VmSpec
from . import domain_xml
from .bitmaps import RECORDS, add_bitmap, bitmaps_of
from .connection import Connection
from .describe import describe
from .snapshot_chain import OFF, Merge, place_of, read_layers

if TYPE_CHECKING:
    import libvirt

PAUSE = 0.1  # seconds between two looks at a block job
NOTICED = 2.0  # seconds until libvirt has noted that a block job has ended
COMMIT_JOBS = (3, 4)  # virDomainBlockJobType: commit, active commit
TOP_IN_USE = "It goes on where it is; run the task again."


def merge(connection: Connection, vm: VmSpec, merges: Sequence[Merge], origin: ET.Element, deadline: float) -> None:
    """`origin`: the snapshot's own XML, which knows how the VM named the images that are merged into."""
    if not merges:
        return
    if vm.power_state in OFF:
        _merge_off(connection, vm, merges, origin, deadline)
    else:
        _Commit(connection, vm, merges, deadline).run()
    left = _left(connection, vm, merges)
    seen = time.monotonic() + NOTICED
    while left and vm.power_state not in OFF and time.monotonic() < seen:
        time.sleep(PAUSE)
        left = _left(connection, vm, merges)
    if left:
        raise VmferryError(
            "conflict",
            f"{left[0].overlay.path} of {vm.name} could not be merged into {left[0].base.path}.",
            "Is there room for it? QEMU's log of the VM may say more. The VM goes on as before.",
        )


def _left(connection: Connection, vm: VmSpec, merges: Sequence[Merge]) -> list[Merge]:
    layers = read_layers(connection, describe(connection, vm.id))
    return [one for one in merges if place_of(one.overlay.path, layers[one.target]) is not None]


class _Commit:
    """Of a VM that runs, all disks at once."""

    def __init__(self, connection: Connection, vm: VmSpec, merges: Sequence[Merge], deadline: float) -> None:
        self._connection, self._vm, self._merges, self._deadline = connection, vm, merges, deadline

    def run(self) -> None:
        try:
            for one in self._merges:
                self._begin(one)
            failpoint("merging")
            for one in self._merges:
                self._finish(one)
        except BaseException:
            self._cancel()
            raise

    def _begin(self, one: Merge) -> None:
        job = self._job(one)
        if job in COMMIT_JOBS:  # begun by one of us who died: the snapshot says that its removal had begun
            return

        def work(opened: libvirt.virConnect) -> None:
            import libvirt

            flags = 0 if one.above is not None else libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
            domain = opened.lookupByUUIDString(self._vm.id)
            domain.blockCommit(one.target, one.base.path, one.overlay.path, 0, flags)

        self._connection.once(f"Merging {one.overlay.path} of {self._vm.name}", work)

    def _finish(self, one: Merge) -> None:
        while self._job(one):
            if time.monotonic() > self._deadline:
                hint = "Run the task again with a longer timeout; the VM goes on as before."
                raise VmferryError("timeout", f"{one.overlay.path} of {self._vm.name} is not merged in time.", hint)
            if one.above is None and self._is_ready(one):
                failpoint("pivoting")
                self._end(one, pivot=True)
                return
            time.sleep(PAUSE)

    def _job(self, one: Merge) -> int:
        def work(domain: libvirt.virDomain) -> int:
            found = domain.blockJobInfo(one.target)
            return int(found.get("type", 0)) if found else 0

        return self._connection.domain(self._vm.id, f"Looking at {one.target} of {self._vm.name}", work)

    def _is_ready(self, one: Merge) -> bool:
        text = self._connection.domain(self._vm.id, f"Reading {self._vm.name}", lambda domain: domain.XMLDesc())
        for disk in domain_xml.parse(text).iterfind("devices/disk"):
            if domain_xml.attribute(disk, "target", "dev") == one.target:
                return domain_xml.attribute(disk, "mirror", "ready") == "yes"
        return False

    def _end(self, one: Merge, *, pivot: bool) -> None:
        def work(domain: libvirt.virDomain) -> None:
            import libvirt

            domain.blockJobAbort(one.target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT if pivot else 0)

        self._connection.domain(self._vm.id, f"Ending the block job on {one.target} of {self._vm.name}", work)

    def _cancel(self) -> None:
        for one in self._merges:
            try:
                if self._job(one) in COMMIT_JOBS:
                    self._end(one, pivot=False)
            except VmferryError:
                continue  # why it ends is what matters; the next run goes on with a job that is left


def _merge_off(
    connection: Connection, vm: VmSpec, merges: Sequence[Merge], origin: ET.Element, deadline: float
) -> None:
    for one in merges:
        seconds = max(1.0, deadline - time.monotonic())
        qemu_img("commit", "-q", "-d", "-f", "qcow2", "-b", one.base.path, one.overlay.path, seconds=seconds)
        _merge_bitmaps(one)
        failpoint("merged")
        if one.above is not None:
            base, above = one.base, one.above
            qemu_img("rebase", "-q", "-u", "-f", "qcow2", "-b", base.path, "-F", base.format, above.path)
    newest = {one.target: one for one in merges if one.above is None}
    if not newest:
        return
    sources = {
        domain_xml.attribute(disk, "target", "dev"): disk
        for disk in origin.iterfind("domain/devices/disk")
        if domain_xml.attribute(disk, "target", "dev") in newest
    }
    define_images(connection, vm, sources)


def _merge_bitmaps(one: Merge) -> None:
    """As libvirt does while a VM runs. Until nothing stands on the layer, both are read: one too many says no less."""
    if one.base.format != "qcow2":
        return
    there = bitmaps_of(one.base)
    for name, flags in bitmaps_of(one.overlay).items():
        if flags != frozenset({RECORDS}):
            continue
        if name not in there:
            add_bitmap(one.base.path, name)
        source = ("-b", one.overlay.path, "-F", "qcow2")
        qemu_img("bitmap", "--merge", name, *source, "-f", "qcow2", one.base.path, name)


def define_images(connection: Connection, vm: VmSpec, disks: Mapping[str, ET.Element]) -> None:
    """From now on a VM that is off has, by target, the images of these `<disk>`s: all of them, or none.

    Raises `busy` where it was started meanwhile, with the images that it had.
    """

    def work(domain: libvirt.virDomain) -> bool:
        import libvirt

        if domain.isActive():
            return False
        text = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_INACTIVE)
        root = domain_xml.parse(text)
        for disk in root.iterfind("devices/disk"):
            target = domain_xml.attribute(disk, "target", "dev")
            if target in disks:
                _put_image(disk, disks[target])
        domain.connect().defineXML(ET.tostring(root, "unicode"))
        return not domain.isActive()

    if not connection.domain(vm.id, f"Defining the disks of {vm.name}", work):
        raise VmferryError("busy", f"{vm.name} was started meanwhile.", TOP_IN_USE)


def _put_image(disk: ET.Element, wanted: ET.Element) -> None:
    disk.set("type", wanted.get("type", "file"))
    for name in ("backingStore", "source"):
        for element in disk.findall(name):
            disk.remove(element)
    source = wanted.find("source")
    if source is not None:
        disk.append(deepcopy(source))
    driver = disk.find("driver")
    if driver is not None:
        driver.set("type", domain_xml.attribute(wanted, "driver", "type", "raw"))
