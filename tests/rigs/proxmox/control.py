# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests do behind the API's back: machines with disks, writes of guests, faults, and what is there at last."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fakepve.model import FakeVm
from fakepve.qemu import join_drive, split_drive

from rigs.proxmox.commands import Commands
from rigs.proxmox.dumps import Dumps
from rigs.proxmox.faults import Fault
from rigs.proxmox.machines import drives_of
from rigs.proxmox.node_pve import ADMIN, NodePve, told_size

VOLUME_KEY = re.compile(r"(scsi|virtio|sata|ide|efidisk|tpmstate|unused)\d+")


class Control:
    def __init__(self, pve: NodePve, commands: Commands) -> None:
        self._pve, self._commands, self._dumps = pve, commands, Dumps(pve)

    async def answer(self, what: str, words: Mapping[str, str], body: bytes) -> Any:
        if what in ("dump_begin", "dump_end", "restore"):
            return self._dumps.answer(what, body)
        return await getattr(self, f"_{what}")(words, body)

    async def _ready(self, _words: Mapping[str, str], _body: bytes) -> Any:
        return {"storages": sorted(self._pve.storages)}

    async def command(self, body: bytes) -> tuple[int, str]:
        """Its exit status, and what it says: on its output where that is 0, else as an error."""
        return await self._commands.run(parse_qs(body.decode(), keep_blank_values=True)["word"])

    async def _commands_run(self, _words: Mapping[str, str], _body: bytes) -> Any:
        return self._commands.run_ones

    async def _break_command(self, words: Mapping[str, str], _body: bytes) -> Any:
        self._commands.break_next(words["words"], words["message"])

    # --- machines -----------------------------------------------------------------------------------------------------

    async def _make_vm(self, _words: Mapping[str, str], body: bytes) -> Any:
        told = json.loads(body)
        pve = self._pve
        vmid = int(await pve._nextid({}, ADMIN))
        config = {"memory": "64", "scsihw": "virtio-scsi-single", "ostype": "l26", **told["config"]}
        vm = FakeVm(vmid, told["name"], node=told["node"] or pve.node, config=config)
        pve.vms.append(vm)
        pve.nodes.setdefault(vm.node, {"online": True})
        for number, disk in enumerate(told["disks"]):
            key = told["keys"][number] if told["keys"] else f"scsi{number}"
            self._add_disk(vm, key, disk, told["storage"], told["format"])
        if told["running"]:
            vm.status = vm.qmpstatus = "running"
            pve.catch_up()
        return vmid

    def _add_disk(self, vm: FakeVm, key: str, disk: Mapping[str, Any], storage: str, kind: str) -> None:
        pve, size = self._pve, int(disk["size"])
        volid, _kind = pve._qm_alloc(storage, vm.vmid, kind or None, size)
        pve.volumes.catch_up()
        pve.volumes.fill(volid, Path(disk["image"]), int(pve._qm_volume(volid)["size"]))
        if vm.vmid not in pve.machines:
            pve.volumes.activate(volid, False)
        options = {"size": told_size(int(pve._qm_volume(volid)["size"]))}
        if key.startswith(("scsi", "virtio", "sata", "ide")):
            options["discard"] = "on"
        vm.config[key] = join_drive(volid, options)

    async def _add_disk_to(self, words: Mapping[str, str], body: bytes) -> Any:
        told = json.loads(body)
        self._add_disk(self._vm(words), told["key"], told["disk"], told["storage"], told["format"])

    async def _remove_disk(self, words: Mapping[str, str], _body: bytes) -> Any:
        vm = self._vm(words)
        volume = split_drive(vm.config.pop(words["key"]))[0]
        self._pve._qm_free(volume)
        self._pve.catch_up()

    async def _grow(self, words: Mapping[str, str], _body: bytes) -> Any:
        self._pve.grow(self._vm(words), words["key"], int(words["size"]))

    async def _set(self, words: Mapping[str, str], body: bytes) -> Any:
        """Of a VM's configuration; None takes away."""
        config = self._vm(words).config
        for key, value in json.loads(body).items():
            if value is None:
                config.pop(key, None)
            else:
                config[key] = value
        self._vm(words).lock = config.get("lock")
        self._vm(words).name = str(config.get("name", words["vmid"]))

    async def _agent(self, words: Mapping[str, str], _body: bytes) -> Any:
        """Whether it answers in the guest ("on", "off", "hangs")."""
        vm = self._vm(words)
        vm.agent = None if words["state"] == "off" else {}
        vm.agent_hangs = words["state"] == "hangs"

    async def _agent_asked(self, words: Mapping[str, str], _body: bytes) -> Any:
        return {"requests": self._vm(words).agent_requests, "frozen": self._vm(words).agent_frozen}

    async def _obeys(self, words: Mapping[str, str], _body: bytes) -> Any:
        """Whether the guest shuts down when it is asked to."""
        self._vm(words).acpi = words["obeys"] == "True"

    async def _power(self, words: Mapping[str, str], _body: bytes) -> Any:
        """At once, by nobody who asks the API. "crash": QEMU dies, with all that it has in memory."""
        vm = self._vm(words)
        if words["state"] == "crash":
            self._pve.machines[vm.vmid].stop(crash=True)
        vm.status = vm.qmpstatus = "running" if words["state"] == "on" else "stopped"
        self._pve.catch_up()

    async def _clear(self, _words: Mapping[str, str], _body: bytes) -> Any:
        """No machine is there, and no volume."""
        for vm in self._pve.vms:
            vm.status = "stopped"
        self._pve.catch_up()
        self._pve.vms.clear()
        for volid in self._pve.volumes.all():
            self._pve._qm_free(volid)
        self._pve.catch_up()

    async def _remove_vm(self, words: Mapping[str, str], _body: bytes) -> Any:
        vm = self._vm(words)
        vm.status = "stopped"
        self._pve.catch_up()
        for config in (vm.config, *vm.snapshots.values()):
            for key in list(config):
                if VOLUME_KEY.fullmatch(key):
                    self._pve._qm_free(split_drive(str(config[key]))[0])
        self._pve.vms.remove(vm)
        self._pve.catch_up()

    async def _vms(self, _words: Mapping[str, str], _body: bytes) -> Any:
        """All that the cluster has, by their ids."""
        return {
            vm.vmid: {
                "name": vm.name,
                "node": vm.node,
                "status": vm.status,
                "lock": vm.lock,
                "config": vm.config,
                "snapshots": vm.snapshots,
                "pool": vm.pool,
            }
            for vm in self._pve.vms
        }

    # --- disks --------------------------------------------------------------------------------------------------------

    async def _write(self, words: Mapping[str, str], body: bytes) -> Any:
        with tempfile.NamedTemporaryFile(prefix="vmferry-written-", dir=self._pve._folder) as scratch:
            scratch.write(body)
            scratch.flush()
            return self._write_by(words, f"write -s {scratch.name} {words['offset']} {len(body)}")

    async def _zero(self, words: Mapping[str, str], _body: bytes) -> Any:
        return self._write_by(words, f"write -z {words['offset']} {words['length']}")

    async def _discard(self, words: Mapping[str, str], _body: bytes) -> Any:
        return self._write_by(words, f"discard {words['offset']} {words['length']}")

    def _write_by(self, words: Mapping[str, str], what: str) -> bool:
        """By QEMU when it runs; else to the volume. False where something holds its lock."""
        pve, vm, key = self._pve, self._vm(words), words["key"]
        volume = split_drive(vm.config[key])[0]
        if vm.vmid in pve.machines:
            pve.machines[vm.vmid].write(key, what)
            return True
        return pve.volumes.write(volume, what)

    async def _bytes(self, words: Mapping[str, str], _body: bytes) -> bytes:
        vm, key = self._vm(words), words["key"]
        if vm.vmid in self._pve.machines:
            self._pve.machines[vm.vmid].flush(key)
        return self._pve.volumes.bytes_of(split_drive(vm.config[key])[0])

    async def _size(self, words: Mapping[str, str], _body: bytes) -> Any:
        return self._pve.volumes.size(split_drive(self._vm(words).config[words["key"]])[0])

    async def _keys(self, words: Mapping[str, str], _body: bytes) -> Any:
        """Of a VM's disks, in the order of their numbers; the firmware's variables are none."""
        return [drive.key for drive in drives_of(self._vm(words).config) if drive.bus != "efidisk"]

    async def _volumes(self, _words: Mapping[str, str], _body: bytes) -> Any:
        """Paths by volume, and whether it is active."""
        volumes = self._pve.volumes
        return {volid: [str(volumes.path(volid)), volumes.is_active(volid)] for volid in volumes.all()}

    async def _bitmaps(self, words: Mapping[str, str], _body: bytes) -> Any:
        """Names by block node of a machine that runs. Those of jobs have none, and go with these."""
        machine = self._pve.machines.get(int(words["vmid"]))
        nodes = machine.ask("query-named-block-nodes") if machine else []
        found = {
            node["node-name"]: [one["name"] for one in node.get("dirty-bitmaps", ()) if one.get("name")]
            for node in nodes
        }
        return {node: names for node, names in found.items() if names}

    async def _forget_bitmaps(self, words: Mapping[str, str], _body: bytes) -> Any:
        for node, names in (await self._bitmaps(words, b"")).items():
            for name in names:
                self._pve.machines[int(words["vmid"])].ask("block-dirty-bitmap-remove", node=node, name=name)

    async def _qmp(self, words: Mapping[str, str], body: bytes) -> Any:
        told = json.loads(body)
        return self._pve.machines[int(words["vmid"])].ask(told.pop("execute"), **told)

    # --- what goes wrong, and what was asked --------------------------------------------------------------------------

    async def _fault(self, _words: Mapping[str, str], body: bytes) -> Any:
        self._pve.faults.add(Fault(**json.loads(body)))

    async def _heal(self, _words: Mapping[str, str], _body: bytes) -> Any:
        self._pve.faults.heal()
        self._commands._broken.clear()

    async def _calls(self, _words: Mapping[str, str], _body: bytes) -> Any:
        return self._pve.noted()

    async def _forget_calls(self, _words: Mapping[str, str], _body: bytes) -> Any:
        self._pve.calls.clear()

    async def _grant(self, words: Mapping[str, str], body: bytes) -> Any:
        """A user, or a token, with nothing but these privileges by path."""
        user, secret = words["user"], words["secret"]
        if "!" in user:
            self._pve.apitokens[user] = secret
        else:
            self._pve.users[user] = secret
        for path, privileges in json.loads(body).items():
            self._pve.grant(user, path, *privileges)
        if self._pve.acl is None:
            self._pve.acl = {}

    async def _change(self, _words: Mapping[str, str], body: bytes) -> Any:
        """Of the model: `time_scale`, `quorate`, `storages` with options by name, `nodes` with whether they are up."""
        told = json.loads(body)
        for sid, options in told.pop("storages", {}).items():
            self._pve.storages[sid].update(options)
        for node, online in told.pop("nodes", {}).items():
            self._pve.nodes[node] = {"online": online}
        for name, value in told.items():
            if not hasattr(self._pve, name):
                raise ValueError(f"there is no {name}")
            setattr(self._pve, name, value)

    def _vm(self, words: Mapping[str, str]) -> FakeVm:
        found = self._pve.vm(int(words["vmid"]))
        if found is None:
            raise ValueError(f"there is no VM {words['vmid']}")
        return found
