# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that run: QEMU with disks, sockets and names of block nodes as Proxmox VE starts it, and no guest in it.

The processors never start, which spares the time of a firmware; writes of guests are made by QEMU's own monitor. The
rig talks to a socket of its own, since the one in `/var/run/qemu-server` serves one client at a time.
https://git.proxmox.com/?p=qemu-server.git;a=blob;f=src/PVE/QemuServer/Blockdev.pm
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rigs.proxmox.volumes import Volumes
from rigs.server_process import end_with_parent

RUN = Path("/var/run/qemu-server")
START_SECONDS = 60.0
STOP_SECONDS = 30.0
DISK = re.compile(r"(ide|sata|scsi|virtio|efidisk)(\d+)")
FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
EFI_VARIABLES = 540672  # bytes, of the firmware's own choice
BLOCKDEVS = 9  # the release from which on disks are block devices with a throttle on top


class MachineError(Exception):
    pass


@dataclass(frozen=True)
class Drive:
    """`volid`: or a path. `options` as the configuration has them."""

    key: str
    volid: str
    options: Mapping[str, str]

    @property
    def bus(self) -> str:
        return re.sub(r"\d", "", self.key)

    @property
    def number(self) -> int:
        return int(re.sub(r"\D", "", self.key))


def drives_of(config: Mapping[str, Any]) -> Iterator[Drive]:
    """Disks, without CD drives, in the order of their names."""
    for key in sorted(config, key=lambda one: (re.sub(r"\d", "", one), int(re.sub(r"\D", "", one) or 0))):
        if DISK.fullmatch(key):
            volid, _comma, rest = str(config[key]).removeprefix("file=").partition(",")
            options = dict(one.partition("=")[::2] for one in rest.split(",") if one)
            if options.get("media") != "cdrom" and volid not in ("none", "cdrom"):
                yield Drive(key, volid, options)


class Machine:
    def __init__(self, vmid: int, folder: Path) -> None:
        self.vmid = vmid
        self._folder = folder
        self._own = folder / f"{vmid}.sock"
        self._log = folder / f"{vmid}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor: Monitor | None = None

    def start(self, config: Mapping[str, Any], volumes: Volumes, release: int) -> None:
        RUN.mkdir(parents=True, exist_ok=True)
        command = ["stdbuf", "-oL", "qemu-system-x86_64", *_arguments(self.vmid, config, volumes, release)]
        command += [
            "-chardev",
            f"socket,id=rig,path={self._own},server=on,wait=off",
            "-mon",
            "chardev=rig,mode=control",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=end_with_parent
            )
        deadline = time.monotonic() + START_SECONDS
        while self._monitor is None:
            with suppress(OSError):
                self._monitor = Monitor(self._own)
            if self._monitor is None and (self._process.poll() is not None or time.monotonic() > deadline):
                self.stop()
                raise MachineError(f"start failed: QEMU exited: {self._log.read_text(errors='replace').strip()}")
            time.sleep(0.01)

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self, *, crash: bool = False) -> None:
        if self._process is not None:
            if crash:
                self._process.kill()
            else:
                self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._monitor is not None:
            self._monitor.close()
        self._process = self._monitor = None
        for left in (self._own, RUN / f"{self.vmid}.qmp", RUN / f"{self.vmid}.pid"):
            left.unlink(missing_ok=True)

    def ask(self, command: str, **arguments: Any) -> Any:
        if self._monitor is None:
            raise MachineError(f"VM {self.vmid} not running")
        return self._monitor.ask(command, arguments)

    def write(self, key: str, what: str) -> None:
        """By a command of qemu-io, as the guest would."""
        before = self._log.stat().st_size
        device = f"drive-{key}" if key.startswith("efidisk") else f"-d {_device_path(key)}"
        said = self.ask("human-monitor-command", **{"command-line": f'qemu-io {device} "{what}"'})
        told = self._log.read_bytes()[before:].decode(errors="replace")
        if said.strip() or "failed" in told or "rror" in told:
            raise MachineError(f"{key}: {what}: {said} {told}")

    def grow(self, key: str, size: int) -> None:
        inserted = {str(one.get("qdev")): one["inserted"] for one in self.ask("query-block") if "inserted" in one}
        top = next(told for device, told in inserted.items() if device in (key, _device_path(key)))
        self.ask("block_resize", **{"node-name": top["node-name"], "size": size})

    def flush(self, key: str) -> None:
        self.write(key, "flush")


class Monitor:
    """QMP, for one client that asks one thing after the other."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(START_SECONDS)
            self._socket.connect(str(path))
            self._file = self._socket.makefile("r", encoding="utf-8")
            json.loads(self._file.readline())
            self.ask("qmp_capabilities", {})
        except (OSError, ValueError) as error:
            self._socket.close()
            raise OSError(str(error)) from error

    def ask(self, command: str, arguments: Mapping[str, Any]) -> Any:
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            said = json.loads(self._file.readline())
            if "error" in said:
                raise MachineError(f"{command}: {said['error']['desc']}")
            if "return" in said:
                return said["return"]

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def _device_path(key: str) -> str:
    return f"/machine/peripheral/{key}" + ("/virtio-backend" if key.startswith("virtio") else "")


def _arguments(vmid: int, config: Mapping[str, Any], volumes: Volumes, release: int) -> list[str]:
    chipset = "q35" if "q35" in str(config.get("machine", "")) else "pc"
    machine = [f"type={chipset}", "accel=tcg"]
    made = ["-name", str(config.get("name", f"vm{vmid}")), "-S", "-no-shutdown", "-nodefaults", "-display", "none"]
    made += ["-m", "64", "-chardev", f"socket,id=qmp,path={RUN}/{vmid}.qmp,server=on,wait=off"]
    made += ["-mon", "chardev=qmp,mode=control", "-pidfile", f"{RUN}/{vmid}.pid"]
    buses: set[str] = set()
    for drive in drives_of(config):
        if drive.bus == "efidisk" and release < BLOCKDEVS:
            made += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={FIRMWARE}"]
            made += ["-drive", f"if=pflash,unit=1,id=drive-{drive.key},{_old_drive(drive, volumes)}"]
        elif release < BLOCKDEVS:
            made += ["-drive", f"if=none,id=drive-{drive.key},{_old_drive(drive, volumes)}"]
        else:
            group = f"throttle-drive-{drive.key}"
            made += ["-object", json.dumps({"id": group, "limits": {}, "qom-type": "throttle-group"})]
            made += ["-blockdev", json.dumps(_block_device(drive, volumes, group))]
        if drive.bus == "efidisk":
            if release >= BLOCKDEVS:
                made += ["-blockdev", json.dumps(_firmware())]
                machine += ["pflash0=pflash0", f"pflash1=drive-{drive.key}"]
            continue
        made += _device(drive, chipset, buses)
    return [*made, "-machine", ",".join(machine)]


def _device(drive: Drive, chipset: str, buses: set[str]) -> list[str]:
    """And the controller, before its first disk."""
    named = f"drive=drive-{drive.key},id={drive.key}"
    if drive.bus == "virtio":
        return ["-device", f"virtio-blk-pci,{named}"]
    if drive.bus == "scsi":
        made = [] if "scsi" in buses else ["-device", "virtio-scsi-pci,id=scsihw0"]
        buses.add("scsi")
        return [*made, "-device", f"scsi-hd,bus=scsihw0.0,scsi-id={drive.number},{named},write-cache=on"]
    if drive.bus == "sata":
        made = [] if "sata" in buses else ["-device", "ahci,id=ahci0"]
        buses.add("sata")
        return [*made, "-device", f"ide-hd,bus=ahci0.{drive.number},{named}"]
    place = f"bus=ide.{drive.number}" if chipset == "q35" else f"bus=ide.{drive.number // 2},unit={drive.number % 2}"
    return ["-device", f"ide-hd,{place},{named}"]


def _block_device(drive: Drive, volumes: Volumes, group: str) -> dict[str, Any]:
    name = hashlib.sha256(f"drive={drive.key},volid={drive.volid}".encode()).hexdigest()[:30]
    path = volumes.path(drive.volid)
    common = {
        "detect-zeroes": "unmap" if drive.options.get("discard") == "on" else "on",
        "discard": "unmap" if drive.options.get("discard") == "on" else "ignore",
        "read-only": False,
    }
    driver = "host_device" if path.is_block_device() else "file"
    file = {"driver": driver, "filename": str(path), "node-name": f"e{name}", **common}
    image: dict[str, Any] = {"driver": volumes.format(drive.volid), "node-name": f"f{name}", "file": file, **common}
    if drive.bus == "efidisk" and image["driver"] == "raw":
        image["size"] = EFI_VARIABLES  # also of a volume that is larger
    return {"driver": "throttle", "throttle-group": group, "node-name": f"drive-{drive.key}", "file": image, **common}


def _old_drive(drive: Drive, volumes: Volumes) -> str:
    discard = "on" if drive.options.get("discard") == "on" else "ignore"
    zeroes = "unmap" if discard == "on" else "on"
    described = f"file={volumes.path(drive.volid)},format={volumes.format(drive.volid)}"
    return described if drive.bus == "efidisk" else f"{described},discard={discard},detect-zeroes={zeroes}"


def _firmware() -> dict[str, Any]:
    file = {"driver": "file", "filename": str(FIRMWARE)}
    return {"driver": "raw", "node-name": "pflash0", "read-only": True, "file": file}
