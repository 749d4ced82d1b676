# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes of storages as what they are: files of raw or qcow2, or block devices.

A volume of LVM is a loop device with a link in `/dev/GROUP/`, as device-mapper makes one, while it is active. A new one
of a thick pool has what was there before; one of a thin pool is zeros.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

MIB = 1 << 20
EXTENT = 4 * MIB  # of LVM, which gives out whole ones
WAS_THERE = b"\xa5" * MIB
LONGEST_MESS = 64 * MIB  # of a thick volume
BLOCK_TYPES = ("lvm", "lvmthin")
IMAGES = ("images", "rootdir")
DEVICES = Path("/dev")


class VolumeError(Exception):
    """In words of the storage's tools."""


class Volumes:
    def __init__(self, folder: Path, storages: Mapping[str, Mapping[str, Any]]) -> None:
        self._folder, self._storages = folder, storages
        self._known: dict[tuple[str, str], dict[str, Any]] = {}  # what the model said of those that are there
        self._devices: dict[tuple[str, str], str] = {}  # loop devices of those that are active
        self._held: dict[tuple[str, str], int] = {}  # file descriptors of these

    def path(self, volid: str) -> Path:
        """As `pvesm path` tells it, whether anything is there or not."""
        sid, name = _parts(volid)
        store = self._storages[sid]
        if store["type"] in BLOCK_TYPES:
            return DEVICES / str(store["vgname"]) / name
        kind, _slash, rest = name.partition("/")
        base = Path(store["path"])
        folder = {"backup": "dump", "iso": "template/iso"}.get(kind, kind)
        return base / "images" / name if kind.isdigit() else base / folder / rest

    def size(self, volid: str) -> int:
        return int(self._known[_parts(volid)]["size"])

    def format(self, volid: str) -> str:
        return str(self._known[_parts(volid)]["format"])

    def file(self, volid: str) -> Path:
        """What holds the bytes, also of a device that is not active."""
        sid, name = _parts(volid)
        if (sid, name) in self._held:
            os.fsync(self._held[sid, name])  # what was written to the device is in its file, too
        return self._backing(sid, name) if self._is_block(sid) else self.path(volid)

    def catch_up(self) -> None:
        """What the model has got is made, and what it has lost is removed."""
        wanted = {
            (sid, name): volume
            for sid, store in self._storages.items()
            for name, volume in store.get("volumes", {}).items()
            if volume["content"] in IMAGES
        }
        for one in set(self._known) - set(wanted):
            self._remove(*one)
            del self._known[one]
        for one, volume in wanted.items():
            if one not in self._known:
                if self._is_block(one[0]):
                    volume["size"] = _whole(int(volume["size"]), EXTENT)
                self._make(*one, str(volume["format"]), int(volume["size"]))
                self._known[one] = dict(volume)

    def fill(self, volid: str, image: Path, size: int) -> None:
        """From an image of raw, behind which all is zeros. What is zeros in it takes no room."""
        target = self.path(volid)
        kind = self.format(volid)
        self.activate(volid, True)
        if self._is_block(_parts(volid)[0]):
            os.truncate(self._backing(*_parts(volid)), 0)
            os.truncate(self._backing(*_parts(volid)), size)
        command = ["qemu-img", "convert", "-n", "-f", "raw", "-O", kind, str(image), str(target)]
        _run(command)

    def image(self, path: Path) -> tuple[int, str]:
        """Its size and format. What others hand in may not lead anywhere else, as Proxmox VE checks it."""
        told = json.loads(_run(["qemu-img", "info", "--output=json", str(path)]))
        if "backing-filename" in told:
            raise VolumeError(f"import: {path} has a backing file, which is not allowed")
        return int(told["virtual-size"]), str(told["format"])

    def convert(self, path: Path, kind: str, volid: str) -> None:
        _run(["qemu-img", "convert", "-n", "-f", kind, "-O", self.format(volid), str(path), str(self.path(volid))])

    def write(self, volid: str, what: str) -> bool:
        """By a command of qemu-io, and a guest that is off. False where something holds the image's lock."""
        was_active = self.is_active(volid)
        self.activate(volid, True)
        try:
            _run(["qemu-io", "-f", self.format(volid), "-d", "unmap", "-c", what, str(self.path(volid))])
        except VolumeError as error:
            if "lock" in str(error):
                return False
            raise
        finally:
            self.activate(volid, was_active)
        return True

    def bytes_of(self, volid: str) -> bytes:
        """Also while a machine writes to it. Behind the last data that it has, all is zeros."""
        kind, source = self.format(volid), self.file(volid)
        if kind == "raw":
            return _data_of(source)
        scratch = self._folder / "scratch.raw"
        _run(["qemu-img", "convert", "-U", "-f", kind, "-O", "raw", str(source), str(scratch)])
        try:
            return _data_of(scratch)
        finally:
            scratch.unlink()

    def keep(self, volid: str, snapshot: str) -> None:
        """What it has now. A copy stands for whatever the storage does."""
        kept = self.kept(volid, snapshot)
        kept.parent.mkdir(parents=True, exist_ok=True)
        _run(["qemu-img", "convert", "-U", "-f", self.format(volid), "-O", "raw", str(self.file(volid)), str(kept)])

    def forget(self, volid: str, snapshot: str) -> None:
        self.kept(volid, snapshot).unlink(missing_ok=True)

    def revert(self, volid: str, snapshot: str) -> int:
        """And the size that it had then."""
        kept = self.kept(volid, snapshot)
        size = kept.stat().st_size
        if not self._is_block(_parts(volid)[0]):
            self.path(volid).unlink()
            self._make(*_parts(volid), self.format(volid), size)
        was_active = self.is_active(volid)
        self.activate(volid, False)
        self.fill(volid, kept, size)
        self.activate(volid, was_active)
        self._known[_parts(volid)]["size"] = size
        return size

    def kept(self, volid: str, snapshot: str) -> Path:
        return self._folder / "snapshots" / volid.replace("/", "+") / snapshot

    def grow(self, volid: str, size: int, running: bool) -> int:
        """The size that it then has. That of a file is changed by the machine itself, if it is running."""
        sid, name = _parts(volid)
        if self._is_block(sid):
            size = _whole(size, EXTENT)
            os.truncate(self._backing(sid, name), size)
            if (sid, name) in self._devices:
                _run(["/sbin/losetup", "--set-capacity", self._devices[sid, name]])
        elif not running:
            _run(["qemu-img", "resize", "-q", "-f", self.format(volid), str(self.path(volid)), str(size)])
        self._known[sid, name]["size"] = size
        return size

    def activate(self, volid: str, active: bool) -> None:
        """As LVM does it. A file always is."""
        sid, name = _parts(volid)
        if not self._is_block(sid):
            return
        if (sid, name) not in self._known:
            raise VolumeError(f'Failed to find logical volume "{self._storages[sid]["vgname"]}/{name}"')
        link = self.path(volid)
        if active and (sid, name) not in self._devices:
            attached = _run(["/sbin/losetup", "--find", "--show", str(self._backing(sid, name))]).strip()
            self._devices[sid, name] = attached
            # Open once and given back at once: the kernel detaches it when nobody has it open any more, which is so
            # when this process is killed, too.
            self._held[sid, name] = os.open(attached, os.O_RDONLY | os.O_CLOEXEC)
            _run(["/sbin/losetup", "--detach", attached])
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(attached)
        elif not active and (sid, name) in self._devices:
            link.unlink()
            del self._devices[sid, name]
            os.close(self._held.pop((sid, name)))

    def is_active(self, volid: str) -> bool:
        sid, _name = parts = _parts(volid)
        return parts in self._devices or not self._is_block(sid)

    def by_path(self, path: str) -> str:
        """The volume whose device that is, for LVM's own commands."""
        for sid, name in self._known:
            if str(self.path(f"{sid}:{name}")) in (path, f"/dev/{path}"):
                return f"{sid}:{name}"
        raise VolumeError(f'Failed to find logical volume "{path}"')

    def all(self) -> list[str]:
        return sorted(f"{sid}:{name}" for sid, name in self._known)

    def close(self) -> None:
        for sid, name in list(self._devices):
            self.activate(f"{sid}:{name}", False)
        for store in self._storages.values():
            folder = DEVICES / str(store.get("vgname"))
            if store["type"] in BLOCK_TYPES and folder.is_dir():
                folder.rmdir()

    def _make(self, sid: str, name: str, kind: str, size: int) -> None:
        if self._is_block(sid):
            backing = self._backing(sid, name)
            backing.parent.mkdir(parents=True, exist_ok=True)
            with backing.open("xb") as file:
                file.truncate(size)
                if self._storages[sid]["type"] == "lvm":
                    for _unused in range(min(size, LONGEST_MESS) // MIB):
                        file.write(WAS_THERE)
            self._known[sid, name] = {}
            self.activate(f"{sid}:{name}", True)  # as lvcreate leaves it
            return
        path = self.path(f"{sid}:{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():  # an import wrote it
            return
        _run(["qemu-img", "create", "-q", "-f", kind, str(path), str(size)])

    def _remove(self, sid: str, name: str) -> None:
        self.activate(f"{sid}:{name}", False)
        file = self.file(f"{sid}:{name}")
        file.unlink()
        if not self._is_block(sid) and not any(file.parent.iterdir()):
            file.parent.rmdir()

    def _backing(self, sid: str, name: str) -> Path:
        return self._folder / "groups" / sid / name

    def _is_block(self, sid: str) -> bool:
        return self._storages[sid]["type"] in BLOCK_TYPES


def _data_of(path: Path) -> bytes:
    with path.open("rb") as file:
        end, size = 0, path.stat().st_size
        with suppress(OSError):  # there is no data any more
            while end < size:
                end = os.lseek(file.fileno(), os.lseek(file.fileno(), end, os.SEEK_DATA), os.SEEK_HOLE)
        file.seek(0)
        return file.read(end)


def _parts(volid: str) -> tuple[str, str]:
    sid, _colon, name = volid.partition(":")
    return sid, name


def _whole(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise VolumeError(done.stderr.strip())
    return done.stdout
