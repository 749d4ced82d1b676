# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider `vsphere`, on a simulated vCenter; what people do there is done with VMware's own client."""

from __future__ import annotations

import copy
import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec
from rigs.ports import free_port
from rigs.vsphere import VSphere

from .base import Abilities, Broken, Driver, Fate, Power

PATIENCE = 60.0  # seconds for a task of the server's
KIB = 1024


class VsphereDriver(Driver):
    name = "vsphere"
    sources = "plugins/module_utils/_providers/vsphere"
    abilities = Abilities(
        live=True, powered_off=True, tracking=True, snapshots=True, imports=True, power=True, removal=True
    )
    failpoints: ClassVar[Mapping[str, Mapping[str, Fate]]] = {
        "on": {"tracking_begun": "undone", "snapshot_made": "undone", "lease_begun": "undone", "lease_ended": "whole"},
        "off": {"lease_begun": "undone"},
        "import": {
            "import_made": "undone",
            "window-delivered": "undone",
            "import_sent": "undone",
            "import_completed": "undone",
            "import_settled": "whole",
        },
    }
    passed_once = frozenset({"tracking_begun", "lease_begun"})
    passed_by = frozenset({"window-copied"})  # imports are written as exports are
    locks = True
    holds = False
    knows_holes = False

    def __init__(self, server: VSphere) -> None:
        self._server = server
        server.settings(tools_running=False)  # nobody there can quiesce a guest
        self._prefix = f"contract-{secrets.token_hex(4)}"
        self._made: list[str] = []
        self._before = server.leftovers()  # of tests before, which may have died

    @classmethod
    def started(cls, fixture: Callable[[str], Any], folder: Path) -> VsphereDriver:
        return cls(fixture("vsphere_server"))

    def close(self) -> None:
        for vm in self._server.leftovers().machines:
            if vm not in self._before.machines:
                self.remove_vm(vm)

    @property
    def spec(self) -> ProviderSpec:
        return self._spec(self._server.port)

    @property
    def broken(self) -> Broken:
        return Broken(self._spec(free_port()), "network")

    def with_secrets(self, fixture: Callable[[str], Any], data: bytes) -> tuple[str, ProviderSpec, Sequence[str]]:
        return self.make_vm(data), self.spec, [self._server.password]

    def in_a_list(self, told: dict[str, Any]) -> dict[str, Any]:
        """Ways to read a disk are tried of few VMs only."""
        listed = copy.deepcopy(told)
        for disk in listed["disks"]:
            disk["details"].pop("export_methods", None)
        return listed

    def make_vm(self, *disks: bytes, power: Power = "off") -> str:
        name = f"{self._prefix}-{len(self._made)}"
        self._server.make_vm(name, disks, running=power == "on", networks=())  # whose names nobody else has
        self._made.append(name)
        return name

    def power(self, vm: str, power: Power) -> None:
        machine = self._machine(vm)
        if power == "on":
            _done(machine.PowerOnVM_Task())
        elif self.is_on(vm):
            _done(machine.PowerOffVM_Task())

    def is_on(self, vm: str) -> bool:
        return bool(self._machine(vm).runtime.powerState == "poweredOn")

    def write(self, vm: str, disk: int, offset: int, data: bytes) -> None:
        """A guest that is off has to be started for that, which vSphere refuses while the VM is leased."""
        from pyVmomi import vim

        if not self.is_on(vm):
            try:
                self.power(vm, "on")
            except vim.fault.TaskInProgress as error:
                raise BlockingIOError(f"{vm} is leased out") from error
            self.power(vm, "off")
        self._server.write(vm, disk, offset, data)

    def zero(self, vm: str, disk: int, offset: int, length: int) -> None:
        self.write(vm, disk, offset, bytes(length))

    def discard(self, vm: str, disk: int, offset: int, length: int) -> None:
        """Thin disks give the blocks back and read as zeros, which change tracking tells as a change."""
        self.zero(vm, disk, offset, length)

    def read(self, vm: str, disk: int) -> bytes:
        return self._server.disk_data(vm, disk)

    def add_disk(self, vm: str, data: bytes) -> None:
        from pyVmomi import vim

        last = self._disks(vm)[-1]
        fresh = vim.vm.device.VirtualDisk(key=last.key + 1, controllerKey=last.controllerKey)
        fresh.unitNumber, fresh.capacityInKB = last.unitNumber + 1, len(data) // KIB
        fresh.backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(diskMode="persistent", thinProvisioned=True)
        self._reconfigure(vm, fresh, "add", "create")
        self.write(vm, len(self._disks(vm)) - 1, 0, data)

    def remove_disk(self, vm: str) -> None:
        self._reconfigure(vm, self._disks(vm)[-1], "remove", "destroy")

    def grow(self, vm: str, disk: int, size: int) -> None:
        grown = self._disks(vm)[disk]
        grown.capacityInKB, grown.capacityInBytes = size // KIB, size
        self._reconfigure(vm, grown, "edit", None)

    def lose_tracking(self, vm: str) -> None:
        self._server.reset_tracking(vm)

    def words_of_loss(self, token: str) -> str:
        return "was reset since the last export"  # the token itself is as long as its disks are many

    def died(self) -> None:
        self._server.lapse()

    def leftovers(self, vm: str, tokens: Set[str]) -> Iterator[str]:
        """Change tracking stays switched on where it was asked for."""
        left = self._server.leftovers()
        for place, name in left.snapshots.items():
            if place.partition("/")[0] == vm:
                yield f"{vm} has the snapshot {name}"
        if vm in left.consolidation:
            yield f"the disks of {vm} need consolidation"
        for lease, state in left.leases.items():
            yield f"the lease {lease} is {state}"
        for task in left.running_tasks:
            yield f"the task {task} runs"
        for file in left.files:
            if file not in self._before.files and file.partition("] ")[2] not in left.machines:
                yield f"{file} is there"

    @property
    def placement(self) -> Mapping[str, Any]:
        return {"storage": "LocalDS_0", "host": "DC0_H0"}

    @property
    def network(self) -> str:
        return "VM Network"

    @property
    def wrong_placements(self) -> Sequence[tuple[Mapping[str, Any], Kind, str]]:
        return (
            ({"storage": "Nowhere"}, "not_found", "no datastore"),
            ({"disk_bus": "virtio"}, "invalid_config", "no disk bus"),
            ({"folder": "Nowhere"}, "not_found", "no folder"),
        )

    def left_of_imports(self) -> Iterator[str]:
        left = self._server.leftovers()
        for machine in left.machines:
            if machine not in (*self._before.machines, *self._made):
                yield f"{machine} is there"
        for file in left.files:
            if file not in self._before.files and file.partition("] ")[2] not in self._made:
                yield f"{file} is there"

    def remove_vm(self, vm: str) -> None:
        self.power(vm, "off")
        _done(self._machine(vm).Destroy_Task())

    @cached_property
    def _content(self) -> Any:
        from pyVim.connect import SmartConnect

        tls = ssl.create_default_context(cafile=str(self._server.certificate))
        return SmartConnect(**self._server.connection(), sslContext=tls).RetrieveContent()

    def _machine(self, vm: str) -> Any:
        found: Any
        from pyVmomi import vim

        view = self._content.viewManager.CreateContainerView(self._content.rootFolder, [vim.VirtualMachine], True)
        (found,) = [one for one in view.view if one.name == vm]
        view.Destroy()
        return found

    def _disks(self, vm: str) -> list[Any]:
        from pyVmomi import vim

        devices = self._machine(vm).config.hardware.device
        return [one for one in devices if isinstance(one, vim.vm.device.VirtualDisk)]

    def _reconfigure(self, vm: str, device: Any, operation: str, file_operation: str | None) -> None:
        from pyVmomi import vim

        change = vim.vm.device.VirtualDeviceSpec(device=device, operation=operation, fileOperation=file_operation)
        _done(self._machine(vm).ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))

    def _spec(self, port: int) -> ProviderSpec:
        server = self._server
        settings = {"hostname": server.host, "port": port, "username": server.user, "password": server.password}
        return ProviderSpec("vsphere", {**settings, "ca_path": str(server.certificate)})


def _done(task: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while task.info.state not in ("success", "error"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if task.info.state == "error":
        raise task.info.error
