# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API: fakepve, that answers by Proxmox VE's own schema, with real disks and machines behind what it says.

https://pypi.org/project/fakepve/
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from fakepve import FakePve
from fakepve import schema as pve_schema
from fakepve.model import FakeVm, PveError, TaskError
from fakepve.qemu import DRIVE_KEY, is_cdrom, join_drive, split_drive, volume_ref
from fakepve.routing import die
from fakepve.server import API, USER, params

from rigs.proxmox.faults import CutLine, Faults
from rigs.proxmox.ids import COUNT
from rigs.proxmox.machines import Machine, MachineError, drives_of
from rigs.proxmox.volumes import VolumeError, Volumes

# By the first part of an access control path: what stands for the second one.
ACL_PARTS = {"vms": "{vmid}", "storage": "{storage}", "pool": "{poolid}", "nodes": "{node}", "sdn": "{zone}"}
ADMIN = "rig@pve"  # whose calls are neither counted nor met by faults
LONG_TASKS = ("qmshutdown", "qmreboot")
LOOK_EVERY = 0.02  # seconds
SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass
class Call:
    method: str
    path: str  # its template in the schema
    rule: Any = None  # what the schema says of permissions
    asked: list[tuple[str, str]] = field(default_factory=list)  # path and privilege, by what the code checks itself
    user: str = ""
    wrong: dict[str, str] = field(default_factory=dict)  # parameters that the schema refuses


_call: ContextVar[Call | None] = ContextVar("call", default=None)


class NodePve(FakePve):
    time_scale: float

    def __init__(self, folder: Path, node: str, release: int, first_vmid: int, password: str) -> None:
        super().__init__(user="root@pam", password=password, host="127.0.0.1", port=0)
        self.major, self.first_vmid, self.node = release, first_vmid, node
        self.version, self.release_version = ("9.0.10", "9.0") if release >= 9 else ("8.4.1", "8.4")
        self.client_max_size = 1 << 30
        self.nodes = {node: {"online": True}}
        self.storages = _storages(folder, first_vmid)
        self.volumes = Volumes(folder, self.storages)
        self.faults = Faults()
        self.calls: list[Call] = []
        self.machines: dict[int, Machine] = {}
        self._snapshots: dict[int, dict[str, list[str]]] = {}  # volumes by machine and name
        self._folder = folder

    # --- disks and machines are as the model says ---------------------------------------------------------------------

    def catch_up(self) -> None:
        """Raises `TaskError` where that cannot be."""
        try:
            for vmid in list(self.machines):
                vm = self.vm(vmid)
                if vm is None or vm.status != "running":
                    self._power_off(vmid)
            self.volumes.catch_up()
            for vm in self.vms:
                self._keep_snapshots(vm)
            for vm in self.vms:
                if vm.status == "running" and vm.vmid not in self.machines:
                    self._power_on(vm)
        except (MachineError, VolumeError) as error:
            raise TaskError(str(error)) from error

    def _keep_snapshots(self, vm: FakeVm) -> None:
        known = self._snapshots.setdefault(vm.vmid, {})
        for name in set(known) - set(vm.snapshots):
            for volid in known.pop(name):
                self.volumes.forget(volid, name)
        for name in set(vm.snapshots) - set(known):
            known[name] = []
            for drive in drives_of(vm.snapshots[name]):
                if vm.vmid in self.machines:
                    self.machines[vm.vmid].flush(drive.key)
                self.volumes.keep(drive.volid, name)
                known[name].append(drive.volid)

    def _revert(self, vm: FakeVm, name: str) -> None:
        if vm.vmid in self.machines:
            self._power_off(vm.vmid)
        for drive in drives_of(vm.config):
            self._qm_volume(drive.volid)["size"] = self.volumes.revert(drive.volid, name)
        if vm.snapshots[name].get("vmstate"):  # it goes on where it was
            vm.status = vm.qmpstatus = "running"

    def _power_on(self, vm: FakeVm) -> None:
        machine = Machine(vm.vmid, self._folder)
        try:
            for drive in drives_of(vm.config):
                self.volumes.activate(drive.volid, True)
            machine.start(vm.config, self.volumes, self.major)
        except (MachineError, VolumeError):
            vm.status = vm.qmpstatus = "stopped"
            raise
        self.machines[vm.vmid] = machine

    def _power_off(self, vmid: int) -> None:
        """And its volumes are given back, as Proxmox VE does."""
        self.machines.pop(vmid).stop()
        vm = self.vm(vmid)
        for drive in drives_of(vm.config) if vm else ():
            self.volumes.activate(drive.volid, False)

    async def task(
        self, node: str, ttype: str, tid: Any, user: str, body: Any, vm: Any = None, lock: bool = True, log: Any = ()
    ) -> str:
        async def whole() -> Any:
            note = await body()
            if ttype == "qmrollback":
                self._revert(vm, vm.config["parent"])
            self.catch_up()
            return note

        scale = self.time_scale
        try:
            if ttype in LONG_TASKS:  # which go on when their call has answered
                self.time_scale = scale or 1.0
            upid: str = await super().task(node, ttype, tid, user, whole, vm=vm, lock=lock, log=log)
        finally:
            self.time_scale = scale
        return upid

    async def _powerdown(self, vm: FakeVm, p: Mapping[str, Any]) -> str | None:
        """A guest that does not obey may still go off by itself while Proxmox VE waits."""
        if vm.acpi:
            done: str | None = await super()._powerdown(vm, p)
            return done
        clock = asyncio.get_running_loop().time
        deadline = clock() + int(p.get("timeout") or self.shutdown_default_timeout)
        while vm.status == "running":
            if clock() > deadline:
                if str(p.get("forceStop", "0")) not in ("1", "true"):
                    raise TaskError("VM quit/powerdown failed - got timeout")
                vm.status = vm.qmpstatus = "stopped"
                return "VM still running - terminating now with SIGTERM"
            await asyncio.sleep(LOOK_EVERY)
        return None

    def close(self) -> None:
        for vmid in list(self.machines):
            self.machines.pop(vmid).stop()
        self.volumes.close()

    # --- what is asked is noted, and checked against the schema -------------------------------------------------------

    async def _answer(self, request: web.Request, handler: Any, generic: Any, path_node: str | None) -> Any:
        user = request[USER] or ""
        if user == ADMIN:
            return await super()._answer(request, handler, generic, path_node)
        match = generic or self.resolve(request, API)
        call = Call(request.method, match.template if match else request.path, user=user)
        self.calls.append(call)
        info = match.methods.get(request.method) if match else None
        if info is None:
            call.wrong = {"path": "there is no such method"}
            return await super()._answer(request, handler, generic, path_node)
        call.rule = info.get("permissions")
        if not (request.content_type or "").startswith("multipart/"):
            values = {**await params(request), **match.params}
            declared = (info.get("parameters") or {}).get("properties", {})
            known = {name: value for name, value in values.items() if name in declared or name not in match.params}
            call.wrong = dict(pve_schema.validate(info.get("parameters"), known)[1] or {})
            if call.wrong:
                return refused(PveError(400, "Parameter verification failed.", call.wrong))
        fault = self.faults.met(call.method, call.path, f"{request.path_qs} {(await request.read())[:4096]!r}")
        token = _call.set(call)
        try:
            if fault is None:
                return await self.caught_up(super()._answer(request, handler, generic, path_node))
            return await fault.met_by(self, request, super()._answer(request, handler, generic, path_node))
        except CutLine:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("as the test wants it") from None
        finally:
            _call.reset(token)

    async def caught_up(self, answer: Any) -> Any:
        """What no task does, such as the allocation of a volume, is done when the call answers."""
        response = await answer
        try:
            self.catch_up()
        except TaskError as error:
            return refused(PveError(500, str(error)))
        return response

    def allowed(self, user: str, path: str, priv: str) -> bool:
        call = _call.get()
        if call is not None:
            _empty, kind, *rest = path.split("/")
            asked = ("/".join(["", kind, *[ACL_PARTS.get(kind, one) for one in rest[:1]], *rest[1:]]), priv)
            if asked not in call.asked:
                call.asked.append(asked)
        return user == ADMIN or bool(super().allowed(user, path, priv))

    def noted(self) -> list[dict[str, Any]]:
        return [asdict(call) for call in self.calls]

    # --- what fakepve does in its own way, and Proxmox VE in another --------------------------------------------------

    def _routes_rig(self) -> list[tuple[str, str, Any]]:
        return [("PUT", "/nodes/{node}/qemu/{vmid}/resize", self._resize)]

    async def _nextid(self, v: Mapping[str, Any], user: str) -> int:
        """In the range of this rig, that no other one's machines have."""
        if v.get("vmid") is not None:
            found: int = await super()._nextid(v, user)
            return found
        taken = {vm.vmid for vm in self.vms}
        return next(vmid for vmid in range(self.first_vmid, self.first_vmid + COUNT) if vmid not in taken)

    async def _cluster_status(self, request: web.Request) -> web.Response:
        """Of a node that SSH reaches."""
        response: web.Response = await super()._cluster_status(request)
        told = json.loads(response.text or "")
        for one in told["data"]:
            if one.get("name") == self.node and one["type"] == "node":
                one["ip"] = "127.0.0.1"
        return web.json_response(told)

    async def _apply_config(self, vm: FakeVm, user: str, p: Mapping[str, Any]) -> None:
        """Disks are allocated, and what is taken away becomes unused, until that is taken away, too."""
        updates, made = dict(p), []
        deletes = [key for key in str(updates.get("delete") or "").split(",") if key]
        for key, value in list(updates.items()):
            if DRIVE_KEY.match(key):
                self._qm_check_drive(user, vm.vmid, None, key, value, None)
                updates[key], volids = self._qm_new_drive(vm.vmid, key, value, None)
                made += volids
        before = dict(vm.config)
        try:
            await super()._apply_config(vm, user, updates)
        except PveError:
            for volid in made:
                self._qm_free(volid)
            raise
        for key in deletes:
            volume = split_drive(before.get(key, ""))[0]
            gone = key not in vm.config and volume and volume_ref(volume)[0] is not None
            if not gone or is_cdrom(*split_drive(before[key])):
                continue
            if DRIVE_KEY.match(key) and str(updates.get("force", "0")) not in ("1", "true"):
                free = next(number for number in range(256) if f"unused{number}" not in vm.config)
                vm.config[f"unused{free}"] = volume
            elif key.startswith("unused") or DRIVE_KEY.match(key):
                self._qm_free(volume)

    def _qm_new_drive(self, vmid: int, key: str, value: Any, default: str | None) -> tuple[str, list[str]]:
        volume, options = split_drive(str(value))
        source = options.pop("import-from", None)
        if source is None:
            return self._whole_size(*super()._qm_new_drive(vmid, key, value, default))
        sid = volume_ref(volume)[0]
        path = Path(source) if source.startswith("/") else self.volumes.path(source)
        try:
            size, image = self.volumes.image(path)
            volid, _kind = self._qm_alloc(sid, vmid, options.pop("format", None), size)
            self.volumes.catch_up()
            self.volumes.convert(path, image, volid)
        except VolumeError as error:
            raise TaskError(str(error)) from error
        options["size"] = told_size(int(self._qm_volume(volid)["size"]))
        return join_drive(volid, options), [volid]

    def _qm_alloc(
        self, sid: str, vmid: int, fmt: str | None, size: int, linked_from: str | None = None
    ) -> tuple[str, str]:
        """Of whole KiB, in which Proxmox VE counts."""
        made: tuple[str, str] = super()._qm_alloc(sid, vmid, fmt, -(-size // 1024) * 1024, linked_from)
        return made

    def _whole_size(self, value: str, volids: list[str]) -> tuple[str, list[str]]:
        """Of a volume that was made just now, which has what its storage gives out."""
        self.volumes.catch_up()
        for volid in volids:
            size = int(self._qm_volume(volid)["size"])
            value = re.sub(r"(?<=,size=)\w+", told_size(size), value)
        return value, volids

    async def _resize(self, v: Mapping[str, Any], user: str) -> str:
        vm, key = self.find(v["node"], v["vmid"]), str(v["disk"])
        if key not in vm.config:
            raise die(f"disk '{key}' does not exist")
        more, number, unit = re.fullmatch(r"(\+?)(\d+)([KMGT]?)", str(v["size"])).groups()  # type: ignore[union-attr]

        async def body() -> None:
            volume = split_drive(vm.config[key])[0]
            before = int(self._qm_volume(volume)["size"])
            size = int(number) * SIZES[unit] + (before if more else 0)
            if size < before:
                raise TaskError("shrinking disks is not supported")
            self.grow(vm, key, size)

        upid: str = await self.task(v["node"], "resize", vm.vmid, user, body, vm=vm)
        return upid

    def grow(self, vm: FakeVm, key: str, size: int) -> None:
        volume, options = split_drive(vm.config[key])
        size = self.volumes.grow(volume, size, vm.vmid in self.machines)
        self._qm_volume(volume)["size"] = size
        vm.config[key] = join_drive(volume, {**options, "size": told_size(size)})
        if vm.vmid in self.machines:
            self.machines[vm.vmid].grow(key, size)


def told_size(size: int) -> str:
    """As Proxmox VE writes it: the largest unit of which it is whole ones."""
    for unit in ("T", "G", "M", "K"):
        if size % SIZES[unit] == 0:
            return f"{size // SIZES[unit]}{unit}"
    return str(size)


def refused(error: PveError) -> web.Response:
    body = {"data": None, "message": f"{error.message}\n", **({"errors": error.errors} if error.errors else {})}
    return web.json_response(body, status=error.status, reason=error.message.splitlines()[0][:200])


def _storages(folder: Path, first_vmid: int) -> dict[str, dict[str, Any]]:
    content = "images,import,backup,iso,vztmpl,snippets"
    return {
        "local": {"type": "dir", "active": 1, "content": content, "files": set(), "path": f"{folder}/local"},
        "other": {"type": "dir", "active": 1, "content": content, "files": set(), "path": f"{folder}/other"},
        "block": {"type": "lvm", "active": 1, "content": "images", "files": set(), "vgname": f"thick{first_vmid}"},
        "thin": {
            "type": "lvmthin",
            "active": 1,
            "content": "images",
            "files": set(),
            "vgname": f"thin{first_vmid}",
            "thinpool": "data",
        },
    }
