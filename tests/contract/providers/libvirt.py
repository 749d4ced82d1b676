# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider `libvirt`, on a private libvirtd; a guest that runs is played through QEMU's own block layer."""

from __future__ import annotations

import secrets
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from system.leftovers import left_in_folder, left_on_machine
from system.libvirt_provider.qemu_monitor import bitmaps_in_image

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec
from rigs.domain import Disk, Machine, disk_sources, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

from .base import Abilities, Broken, Driver, Fate, Power, data_of, folder_of

if TYPE_CHECKING:
    import libvirt


class LibvirtDriver(Driver):
    name = "libvirt"
    sources = "plugins/module_utils/_providers/libvirt"
    abilities = Abilities(
        live=True, powered_off=True, tracking=True, snapshots=True, imports=True, power=True, removal=True
    )
    locks = True
    failpoints: ClassVar[Mapping[str, Mapping[str, Fate]]] = {
        "on": {"watchdog": "undone", "backup_begun": "undone", "job_ended": "whole"},
        "off": {"token_made": "undone"},
        "import": {"settled": "undone", "before_define": "undone", "defined": "whole", "recorded": "whole"},
    }
    snapshot_failpoints: ClassVar[Mapping[str, Sequence[str]]] = {
        "present": ("overlays_created", "snapshot_told", "images_defined"),
        "absent": ("marked_unfinished", "merged", "all_merged", "files_removed"),
        "reverted": ("overlays_created", "reverted"),
    }

    def __init__(self, rig: LibvirtRig, folder: Path) -> None:
        self._rig = rig
        self._folder = folder_of(rig.directory, f"contract-{secrets.token_hex(4)}")
        self._scratch, self._images = folder_of(folder, "scratch"), folder_of(folder, "images")
        self._made: list[str] = []

    @classmethod
    def started(cls, fixture: Callable[[str], Any], folder: Path) -> LibvirtDriver:
        return cls(fixture("libvirt_rig"), folder)

    @property
    def spec(self) -> ProviderSpec:
        return ProviderSpec("libvirt", {"uri": self._rig.uri, "scratch_dir": str(self._scratch)})

    @property
    def broken(self) -> Broken:
        uri = f"qemu:///session?socket={self._rig.directory}/nowhere"
        return Broken(ProviderSpec("libvirt", {"uri": uri, "scratch_dir": str(self._scratch)}), "network")

    def make_vm(self, *disks: bytes, power: Power = "off") -> str:
        name = f"{self._folder.name}-{len(self._made)}"
        images = tuple(self._image(name, data) for data in disks)
        self._rig.connect().defineXML(domain_xml(Machine(name, images, memory_mib=32), self._folder))
        self._made.append(name)
        self.power(name, power)
        return name

    def power(self, vm: str, power: Power) -> None:
        if power == "on":
            self._domain(vm).create()
        elif self.is_on(vm):
            self._domain(vm).destroy()  # which ends QEMU in good order

    def is_on(self, vm: str) -> bool:
        return bool(self._domain(vm).isActive())

    def write(self, vm: str, disk: int, offset: int, data: bytes) -> None:
        source = self._folder / "written"
        source.write_bytes(data)
        self._change(vm, disk, f"write -s {source} {offset} {len(data)}")

    def zero(self, vm: str, disk: int, offset: int, length: int) -> None:
        self._change(vm, disk, f"write -z {offset} {length}")

    def discard(self, vm: str, disk: int, offset: int, length: int) -> None:
        self._change(vm, disk, f"discard {offset} {length}")

    def read(self, vm: str, disk: int) -> bytes:
        raw = self._folder / "read"
        convert = ["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", str(self._path(vm, disk)), str(raw)]
        subprocess.run(convert, check=True)
        return data_of(raw)

    def add_disk(self, vm: str, data: bytes) -> None:
        domain = self._domain(vm)
        images = [Disk(Path(path)) for path in disk_sources(domain.XMLDesc()).values()]
        self._define(vm, (*images, self._image(vm, data)))

    def remove_disk(self, vm: str) -> None:
        *images, last = [Disk(Path(path)) for path in disk_sources(self._domain(vm).XMLDesc()).values()]
        self._define(vm, tuple(images))
        last.path.unlink()

    def grow(self, vm: str, disk: int, size: int) -> None:
        path = str(self._path(vm, disk))
        if self.is_on(vm):
            import libvirt

            self._domain(vm).blockResize(path, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
        else:
            subprocess.run(["qemu-img", "resize", "-q", "-f", "qcow2", path, str(size)], check=True)

    def lose_tracking(self, vm: str) -> None:
        import libvirt

        for checkpoint in self._domain(vm).listAllCheckpoints():
            if self.is_on(vm):
                checkpoint.delete()
                continue
            for image in disk_sources(self._domain(vm).XMLDesc()).values():
                subprocess.run(["qemu-img", "bitmap", "--remove", image, checkpoint.getName()], check=True)
            checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)

    def leftovers(self, vm: str, tokens: Set[str]) -> Iterator[str]:
        domain = self._domain(vm)
        yield from left_on_machine(domain, self.is_on(vm), tokens)
        yield from left_in_folder(self._scratch)
        images = {path for one in self._made for path in disk_sources(self._domain(one).XMLDesc()).values()}
        for path in self._folder.glob("*.qcow2*"):
            if str(path) not in images:
                yield f"{path} is there"
        for image in images if not self.is_on(vm) else ():
            if subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", image], check=False).returncode:
                yield f"{image} is damaged, or has clusters that nothing uses"
            for bitmap in bitmaps_in_image(Path(image)) - tokens:
                yield f"{image} has the bitmap {bitmap}"

    @property
    def placement(self) -> Mapping[str, Any]:
        return {"storage": str(self._images)}

    @property
    def network(self) -> str:
        """No VM of these tests is started on it, and neither is it."""
        connection = self._rig.connect()
        if "contract" not in [one.name() for one in connection.listAllNetworks()]:
            connection.networkDefineXML("<network><name>contract</name></network>")
        return "contract"

    @property
    def wrong_placements(self) -> Sequence[tuple[Mapping[str, Any], Kind, str]]:
        return (
            ({"storage_map": {"no-disk": str(self._images)}}, "invalid_config", "no-disk"),
            ({"storage": f"{self._images}/nowhere"}, "not_found", "nowhere"),
            ({"disk_format": "vdi"}, "invalid_config", "vdi"),
        )

    def in_the_way(self, vm: str) -> Path:
        return self._images / f"{vm}-disk-0.qcow2"

    def left_of_imports(self) -> Iterator[str]:
        yield from left_in_folder(self._images)
        for domain in self._rig.connect().listAllDomains():
            if str(self._images) in domain.XMLDesc():
                yield f"{domain.name()} is there"

    def remove_vm(self, vm: str) -> None:
        remove_domain(self._domain(vm))
        for path in self._images.iterdir():
            path.unlink()

    def close(self) -> None:
        for name in self._made:
            domain = self._domain(name)
            if domain.isActive() and domain.jobStats()["type"]:
                domain.abortJob()
            remove_domain(domain)

    def _image(self, vm: str, data: bytes) -> Disk:
        path = self._folder / f"{vm}-{secrets.token_hex(2)}.qcow2"
        seed = self._folder / "seed"
        seed.write_bytes(data)
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(seed), str(path)], check=True)
        return Disk(path)

    def _define(self, vm: str, disks: tuple[Disk, ...]) -> None:
        root = ET.fromstring(domain_xml(Machine(vm, disks, memory_mib=32), self._folder))
        ET.SubElement(root, "uuid").text = self._domain(vm).UUIDString()
        self._rig.connect().defineXML(ET.tostring(root, "unicode"))

    def _change(self, vm: str, disk: int, command: str) -> None:
        if self.is_on(vm):
            import libvirt_qemu

            backend = f"/machine/peripheral/virtio-disk{disk}/virtio-backend"
            for one in (command, "flush"):
                said = libvirt_qemu.qemuMonitorCommand(
                    self._domain(vm),
                    f'qemu-io -d {backend} "{one}"',
                    libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP,
                )
                assert "rror" not in said, said
            return
        # QEMU notes it in the bitmaps. Whoever undoes what a dead run left may be at the image just then.
        work = ["qemu-io", "-f", "qcow2", "-c", command, str(self._path(vm, disk))]
        deadline = time.monotonic() + self.patience
        while (done := subprocess.run(work, check=False, capture_output=True, text=True)).returncode:
            if time.monotonic() > deadline:
                raise BlockingIOError(done.stderr)
            time.sleep(0.05)

    def _path(self, vm: str, disk: int) -> Path:
        return Path(list(disk_sources(self._domain(vm).XMLDesc()).values())[disk])

    def _domain(self, vm: str) -> libvirt.virDomain:
        return self._rig.connect().lookupByName(vm)
