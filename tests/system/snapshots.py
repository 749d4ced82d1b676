# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots as tests ask for them, and what judges them: QEMU's own tools, from outside."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import SnapshotRequest
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.manage_snapshots import manage_snapshots
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.image_chain import read_chain
from rigs.domain import Disk, Guest, Machine, disk_sources, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

from .exports import MIB, MODULES, PATIENCE, ROOT, Bench, refused
from .leftovers import RUNNING

if TYPE_CHECKING:
    import libvirt

DISK = 8 * MIB


@dataclass(frozen=True)
class SnapshotBench:
    """One VM and the tasks that a test runs on it."""

    bench: Bench
    vm: str

    @property
    def domain(self) -> libvirt.virDomain:
        return self.bench.rig.connect().lookupByName(self.vm)

    def task(self, state: str = "present", *, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        request: Any = {"provider": self.bench.provider, "vm": self.vm, "state": state, **options}
        return manage_snapshots(SnapshotRequest(**request), check_mode)

    def refused(self, kind: str, words: str, state: str, **options: Any) -> VmferryError:
        return refused(lambda: self.task(state, **options), kind, words)

    def names(self) -> list[str]:
        return sorted(snapshot.getName() for snapshot in self.domain.listAllSnapshots())

    def images(self) -> dict[str, Path]:
        return {target: Path(path) for target, path in disk_sources(self.domain.XMLDesc()).items()}

    def killed_at(self, failpoint: str, **options: Any) -> None:
        """A module's own process, which dies there."""
        done = self.module(**options, environment={"VMFERRY_FAILPOINT": failpoint})
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr

    def module(
        self, *, environment: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        settings = {"uri": self.bench.rig.uri, "scratch_dir": str(self.bench.scratch)}
        arguments = {"provider": "libvirt", "libvirt": settings, "vm": self.vm, **options}
        script = self.bench.folder / "arguments.json"
        script.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_remote_tmp": "/tmp"}}))
        return subprocess.run(
            [sys.executable, "-m", f"{MODULES}.disk_snapshot", str(script)],
            env={**os.environ, "PYTHONPATH": str(ROOT / ".build"), **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE * 2,
        )

    def assert_nothing_left(self) -> None:
        """Of a task: every image beside the disks is one that the VM or a snapshot has, and nobody works on the VM."""
        images = set(self.images().values())
        for snapshot in self.task("absent", name="no such snapshot")["snapshots"]:
            for disk in snapshot["disks"]:
                images |= {Path(path) for path in (disk["image"], disk["overlay"]) if path}
        for path in list(images):
            images |= {Path(layer.path) for layer in read_chain(str(path), image_format(path)).layers}
        there = {path for kind in ("qcow2", "img") for path in self.bench.rig.directory.glob(f"{self.vm}[.-]*{kind}*")}
        assert there == images, f"not used: {there - images}, not there: {images - there}"
        assert not list(self.bench.scratch.iterdir())
        if self.domain.isActive():
            assert self.domain.state()[0] == RUNNING
            assert not any(self.domain.blockJobInfo(target) for target in self.images())


def define_off(rig: LibvirtRig, name: str, *, raw: bool = True) -> libvirt.virDomain:
    """A VM with two disks, that is off. The first is qcow2."""
    paths = (rig.directory / f"{name}.qcow2", rig.directory / (f"{name}.img" if raw else f"{name}-more.qcow2"))
    disks = tuple(Disk(create_image(path), image_format(path)) for path in paths)
    return rig.connect().defineXML(domain_xml(Machine(name, disks=disks, memory_mib=32), rig.directory))


def create_image(path: Path) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", image_format(path), str(path), str(DISK)], check=True)
    return path


def overlay_on(base: Path, path: Path) -> None:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", image_format(base), str(path)]
    subprocess.run(command, check=True)


def remove_with_images(rig: LibvirtRig, domain: libvirt.virDomain) -> None:
    name = domain.name()
    remove_domain(domain)
    for path in rig.directory.glob(f"{name}[.-]*"):
        path.unlink()


def image_format(path: Path) -> str:
    return "raw" if path.suffix == ".img" else "qcow2"


def write(path: Path, pattern: int, offset: int = MIB, length: int = MIB) -> None:
    """As a guest would, into the newest image of a VM that is off."""
    command = f"write -q -P {pattern} {offset} {length}"
    subprocess.run(["qemu-io", "-f", image_format(path), "-c", command, str(path)], check=True)


def content(path: Path) -> str:
    """The digest of the disk that the image and all below it give."""
    raw = path.with_name(f"{path.name}.judged")
    command = ["qemu-img", "convert", "-U", "-f", image_format(path), "-O", "raw", str(path), str(raw)]
    subprocess.run(command, check=True)
    digest = hashlib.sha256(raw.read_bytes()).hexdigest()
    raw.unlink()
    return digest


def contents(images: dict[str, Path]) -> dict[str, str]:
    return {target: content(path) for target, path in images.items()}


def dropped_caches(guest: Guest, command: str) -> str:
    """What the disks say, not the guest's memory of them."""
    return guest.console.run(f"sync; echo 3 > /proc/sys/vm/drop_caches; {command}")
