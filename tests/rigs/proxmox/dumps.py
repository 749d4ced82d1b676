# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What archives of machines are made of, and machines of archives: the API's side of `archives.py`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fakepve.model import FakeVm, TaskError
from fakepve.qemu import join_drive, split_drive

from rigs.proxmox.machines import drives_of
from rigs.proxmox.node_pve import NodePve, told_size

MOMENT = "vzdump"  # by which a copy of a disk is kept while it is read
MAP = re.compile(r"#qmdump#map:(\S+):(\S+):(\S*):(\S*):")
ADDRESS = re.compile(r"(?<==)(?:\w\w:){5}\w\w")
NEVER_RESTORED = ("digest", "lock", "parent", "vmgenid")


class Dumps:
    def __init__(self, pve: NodePve) -> None:
        self._pve = pve

    def begin(self, vmid: int) -> dict[str, Any]:
        """The disks as they are now, and the configuration with lines on what lies where."""
        vm, volumes = self._pve.find(self._pve.node, vmid), self._pve.volumes
        if vm.lock:
            raise TaskError(f"VM is locked ({vm.lock})")
        lines = [f"{key}: {vm.config[key]}" for key in sorted(vm.config)]
        disks = {}
        for drive in drives_of(vm.config):
            if drive.options.get("backup") == "0":
                continue
            if vmid in self._pve.machines:
                self._pve.machines[vmid].flush(drive.key)
            volumes.keep(drive.volid, MOMENT)
            disks[f"drive-{drive.key}"] = str(volumes.kept(drive.volid, MOMENT))
            storage, format_ = drive.volid.partition(":")[0], volumes.format(drive.volid)
            lines.append(f"#qmdump#map:{drive.key}:drive-{drive.key}:{storage}:{format_}:")
        vm.lock = vm.config["lock"] = "backup"
        return {"config": "".join(f"{line}\n" for line in lines), "disks": disks}

    def end(self, vmid: int) -> None:
        vm = self._pve.find(self._pve.node, vmid)
        vm.lock = None
        vm.config.pop("lock", None)
        for drive in drives_of(vm.config):
            self._pve.volumes.forget(drive.volid, MOMENT)

    def restore(self, asked: Mapping[str, Any]) -> None:
        pve, vmid = self._pve, int(asked["vmid"])
        if pve.vm(vmid) is not None:
            raise TaskError(f"unable to restore VM {vmid} - VM {vmid} already exists on node '{pve.node}'")
        places = {name: key for key, name, _storage, _format in MAP.findall(asked["config"])}
        unknown = set(asked["disks"]) - set(places)
        if unknown:
            raise TaskError(f"the archive does not tell which drives {', '.join(sorted(unknown))} are")
        told = [line.partition(": ") for line in asked["config"].splitlines() if line and not line.startswith("#")]
        config = {key: value for key, _colon, value in told if key not in NEVER_RESTORED}
        if asked["unique"]:
            config = {
                key: re.sub(r"(?<==)(?:\w\w:){5}\w\w", "BC:24:11:00:00:01", value) for key, value in config.items()
            }
        vm = FakeVm(vmid, config.get("name", f"VM {vmid}"), node=pve.node, config=config)
        pve.vms.append(vm)
        for name, image in asked["disks"].items():
            size = Path(image).stat().st_size
            volid, _format = pve._qm_alloc(asked["storage"], vmid, None, size)
            pve.volumes.catch_up()
            pve.volumes.fill(volid, Path(image), int(pve._qm_volume(volid)["size"]))
            options = split_drive(config.get(places[name], ""))[1]
            options["size"] = told_size(int(pve._qm_volume(volid)["size"]))
            config[places[name]] = join_drive(volid, options)
        vm.config = config
        if asked["pool"]:
            pve._pool_join(asked["pool"], vmid)
        if asked["start"]:
            vm.status = vm.qmpstatus = "running"
        pve.catch_up()

    def answer(self, what: str, body: bytes) -> Any:
        asked = json.loads(body)
        if what == "restore":
            return self.restore(asked)
        return {"dump_begin": self.begin, "dump_end": self.end}[what](int(asked["vmid"]))
